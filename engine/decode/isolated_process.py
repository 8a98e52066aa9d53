"""Decoding in child processes, so that a file which crashes, hangs or bloats a decoder costs its row only.

JPEG and PNG of the usual kinds stay in this process: their decoders are small and the most tested there are,
and a child would cost throughput. Any other format goes to a child that holds Pillow and nothing else, and
keeps to the limits of `budget`. One that dies is replaced, and the image tried once more in a fresh one, so
that no verdict depends on images before it.
"""

import json
import os
import pickle
import queue
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any, NoReturn

from PIL import Image

from engine.decode.formats.header import Header
from engine.errors import BadImage, MachineFault
from engine.recipes import Recipe

#: Up to so many pixels an image may take `_SECONDS` of processor time; beyond, in proportion.
_PIXELS = 16_000_000
_SECONDS = 10.0
#: Address space: for the libraries, and for what a decoder holds of each pixel (JPEG 2000: 30 bytes).
_BYTES, _BYTES_A_PIXEL = 1 << 30, 64
#: Wall seconds for each second of processor time: a hang may take none, a busy machine stretches honest work.
_PATIENCE = 3
#: Exit status of a child that ran out of its address space.
_NO_MEMORY = 77
#: Bytes of an answer without the pixels.
_LONGEST = 10_000
#: Bytes of shared memory that a child keeps between images.
_KEPT = 1 << 26
_LENGTHS = struct.Struct("<QQ")
#: What the children run, as `module:function` with `reference.picture_here`'s arguments.
_RENDERER = "engine.decode.pillow:picture_here"


def is_wanted(header: Header) -> bool:
    """Whether an image is of a kind that is not decoded in this process."""
    return not (header.plain or header.format == "PNG")


@dataclass(frozen=True)
class Budget:
    """What decoding one image may take: seconds of processor time, bytes of address space."""

    seconds: float
    bytes: int


def budget(header: Header, size: int) -> Budget:
    """What an image of `size` coded bytes may take: 10 s and 2 GiB to 16 megapixels, then in proportion."""
    pixels = max(header.width * header.height, _PIXELS)
    return Budget(_SECONDS * pixels / _PIXELS, _BYTES + _BYTES_A_PIXEL * pixels + 2 * size)


@dataclass
class Children:
    """Child processes for decoding, as many as threads ask at once. They end with this process.

    Attributes:
        renderer: what they run.
        allow: the budget of an image.
    """

    renderer: str = _RENDERER
    allow: Callable[[Header, int], Budget] = budget
    _idle: "queue.LifoQueue[_Child]" = field(default_factory=queue.LifoQueue, repr=False)

    def picture(self, data: bytes, header: Header, recipe: Recipe) -> Image.Image:
        """As `reference.picture_here`, in a child.

        Raises:
            BadImage: as it does, and decoder_died, too_slow, too_much_memory.
            MachineFault: no child can be started, or somebody else kills them.
        """
        allowed = self.allow(header, len(data))
        try:
            return self._ask(self._take(), data, header, recipe, allowed)
        except _Died as first:
            if first.signal == signal.SIGPROF:  # its own doing, and dear to repeat
                raise BadImage(first.code, str(first)) from None
        try:
            return self._ask(_Child(self.renderer), data, header, recipe, allowed)
        except _Died as second:
            if second.signal == signal.SIGKILL:
                raise _killed() from None
            raise BadImage(second.code, str(second)) from None

    def _take(self) -> "_Child":
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            return _Child(self.renderer)

    def _ask(
        self, child: "_Child", data: bytes, header: Header, recipe: Recipe, allowed: Budget
    ) -> Image.Image:
        answer = child.ask(data, header, recipe, allowed)
        self._idle.put(child)
        if isinstance(answer, BadImage):
            raise answer
        return answer

    def close(self) -> None:
        """End the children that are idle; more are started when there is need."""
        with suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()


class _Died(Exception):
    """A child ended before it answered; `code` says why, `signal` by which signal (0: by none)."""

    def __init__(self, status: int, allowed: Budget) -> None:
        self.signal = max(0, -status)
        self.code, detail = "decoder_died", f"the decoder ended with status {status}"
        if self.signal in (signal.SIGPROF, signal.SIGALRM):
            self.code, detail = "too_slow", f"decoding takes more than {allowed.seconds:g} s"
        elif status == _NO_MEMORY:
            self.code, detail = "too_much_memory", f"decoding takes more than {allowed.bytes >> 20} MiB"
        elif self.signal:
            detail = f"the decoder crashed ({signal.strsignal(self.signal) or self.signal})"
        super().__init__(detail)


class _Child:
    """One child. Images go both ways through a file in memory, all else through pipes; it answers in JSON."""

    def __init__(self, renderer: str) -> None:
        # OpenBLAS would start threads, each with address space of its own.
        env = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        env["PYTHONPATH"] = os.pathsep.join(os.path.abspath(path) for path in sys.path)  # noqa: PTH100
        try:
            self._shared = os.memfd_create("embank-decode")
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, renderer, str(self._shared)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=env,
                pass_fds=[self._shared],
            )
        except OSError as error:
            raise _not_started(error.strerror or str(error)) from error
        if self._out.read(1) != b"+":
            raise _not_started(f"it ended with status {self._end()}")

    @property
    def _in(self) -> IO[bytes]:
        assert self._process.stdin
        return self._process.stdin

    @property
    def _out(self) -> IO[bytes]:
        assert self._process.stdout
        return self._process.stdout

    def ask(self, data: bytes, header: Header, recipe: Recipe, allowed: Budget) -> Image.Image | BadImage:
        """The picture, or why there is none. Raises _Died, also if the answer makes no sense."""
        question = pickle.dumps((header, recipe, allowed))
        try:
            _put(self._shared, data)
            self._in.write(_LENGTHS.pack(len(question), len(data)) + question)
            self._in.flush()
            length, size = _LENGTHS.unpack(self._read(_LENGTHS.size))
            if length > _LONGEST or size > 3 * header.width * header.height:
                raise ValueError
            answer = json.loads(self._read(length))
            if "code" in answer:
                return BadImage(
                    str(answer["code"]), str(answer["detail"]), pending=answer.get("pending") is True
                )
            image = Image.frombytes(answer["mode"], answer["size"], os.pread(self._shared, size, 0))
            if image.width * image.height != header.width * header.height:
                raise ValueError
            return image
        except (EOFError, OSError, ValueError, TypeError, KeyError):
            raise _Died(self._end(), allowed) from None

    def _read(self, size: int) -> bytes:
        data = self._out.read(size)
        if len(data) != size:
            raise EOFError
        return data

    def _end(self) -> int:
        """Exit status, after making sure that it has ended."""
        try:
            return self._process.wait(1)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return 0
        finally:
            self.close()

    def close(self) -> None:
        with suppress(OSError):
            self._in.close()
        self._out.close()
        self._process.wait()
        os.close(self._shared)


def _put(shared: int, data: bytes) -> None:
    """Write at the start. The file keeps its length unless that is large: fresh pages are dear."""
    if os.fstat(shared).st_size > _KEPT:
        os.ftruncate(shared, 0)
    if os.pwrite(shared, data, 0) != len(data):
        raise OSError("no memory for the image")


def _killed() -> MachineFault:
    return MachineFault(
        "Processes that decode were killed from outside (SIGKILL), perhaps because memory ran out",
        "A fault of the machine must not mark an image as bad",
        "free memory, or use fewer threads (`embank embed --threads N`), then run the same command again; "
        "committed chunks are kept",
    )


def _not_started(reason: str) -> MachineFault:
    return MachineFault(
        f"A process for decoding could not be started ({reason})",
        "Formats other than JPEG and PNG are decoded in processes of their own",
        "end other processes or free memory, then run the same command again; committed chunks are kept",
    )


children = Children()


def _drop_inherited() -> None:
    # A forked copy of this process must not talk to its parent's children.
    children._idle = queue.LifoQueue()


os.register_at_fork(after_in_child=_drop_inherited)


# ---- the child's side


def _serve(renderer: str, shared: int) -> NoReturn:
    """Answer until the parent has gone."""
    import importlib

    module, _, name = renderer.partition(":")
    picture = getattr(importlib.import_module(module), name)
    Image.init()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    source, sink = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    sink.write(b"+")
    sink.flush()
    while head := source.read(_LENGTHS.size):
        length, size = _LENGTHS.unpack(head)
        header, recipe, allowed = pickle.loads(source.read(length))
        data = os.pread(shared, size, 0)
        _limit(allowed)
        answer, pixels = _answer(picture, data, header, recipe)
        _limit(None)
        _put(shared, pixels)
        text = json.dumps(answer).encode()
        sink.write(_LENGTHS.pack(len(text), len(pixels)) + text)
        sink.flush()
    os._exit(0)


def _limit(allowed: Budget | None) -> None:
    """Set the limits of one image, or lift them. The kernel ends a process that passes one, in any code."""
    seconds = allowed.seconds if allowed else 0.0
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE * seconds)
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    wanted = allowed.bytes if allowed else hard
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))


def _answer(
    picture: Callable[[bytes, Header, Recipe], Image.Image], data: bytes, header: Header, recipe: Recipe
) -> tuple[dict[str, Any], bytes]:
    try:
        image = picture(data, header, recipe)
        return {"mode": image.mode, "size": image.size}, image.tobytes()
    except BadImage as bad:
        if isinstance(bad.__cause__, MemoryError):
            os._exit(_NO_MEMORY)
        return {"code": bad.code, "detail": bad.detail, "pending": bad.pending}, b""
    except MemoryError:
        os._exit(_NO_MEMORY)


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
