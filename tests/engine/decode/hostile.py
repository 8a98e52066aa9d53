"""A renderer for child processes that does what the image's last bytes say, as broken decoders do."""

import ctypes
import os
import signal
import time
from pathlib import Path

import numpy as np
from PIL import Image

from engine.decode.formats.header import Header
from engine.decode.pillow import picture_here
from engine.recipes import Recipe


def bad(data: bytes, deed: str) -> bytes:
    """The image with a deed behind its end, where decoders do not look."""
    return data + b"deed " + deed.encode()


def picture(data: bytes, header: Header, recipe: Recipe) -> Image.Image:
    """As `picture_here`, unless a deed is asked for."""
    _, _, deed = data.rpartition(b"deed ")
    name, _, rest = deed.decode("latin-1").partition(":")
    if len(name) < 20 and name in _DEEDS:
        _DEEDS[name](rest)
    if name == "lie":
        return Image.new("RGB", (9, 9))
    return picture_here(data, header, recipe)


def _segfault(_: str) -> None:
    ctypes.string_at(0)


def _spin(_: str) -> None:
    while True:
        pass


def _eat(_: str) -> None:
    eaten = []
    while True:
        eaten.append(np.empty(1 << 26, np.uint8))


def _talk(_: str) -> None:
    """What C libraries do."""
    os.write(1, b"warning: something is odd\n" * 99)


def _once(path: str) -> None:
    """Die because of what came before, not because of the image."""
    if not Path(path).exists():
        Path(path).touch()
        os.abort()


_DEEDS = {
    "segfault": _segfault,
    "abort": lambda _: os.abort(),
    "exit": lambda _: os._exit(3),
    "spin": _spin,
    "sleep": lambda _: time.sleep(1000),
    "eat": _eat,
    "kill": lambda _: os.kill(os.getpid(), signal.SIGKILL),
    "talk": _talk,
    "once": _once,
}
