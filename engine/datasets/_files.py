"""Find what packages ship without importing them, and write pictures as the same bytes everywhere."""

import contextlib
import hashlib
import importlib.util
import os
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from engine.errors import Refused
from stores.tables import write_error

if TYPE_CHECKING:
    from stores.manifest import Manifest

_STORED = 65535  # longest stored block of a deflate stream


def package_file(package: str, relative: str, install: str) -> Path:
    """A file inside an installed package. The package is not imported, so it cannot reach for the network.

    Args:
        package: import name.
        relative: path inside the package.
        install: what to install if it is missing.

    Raises:
        Refused: the package, or the file in it, is missing.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = Path(folder) / relative
        if path.is_file():
            return path
    raise Refused(
        f"{package}/{relative} is not installed",
        "These images come with that package",
        f"run `pip install {install}`",
    )


def png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode 8-bit pixels as PNG without compression: the bytes depend on the pixels alone.

    Compressed bytes would change with the version of zlib, and every digest with them.

    Args:
        pixels: uint8 [height, width] grey or [height, width, 3] RGB.

    Source: PNG specification (W3C, third edition), sections 5 and 10; RFC 1950 and 1951 for the stream.
    """
    height, width = pixels.shape[:2]
    colour = 0 if pixels.ndim == 2 else 2
    rows = pixels.reshape(height, -1)
    raw = np.hstack([np.zeros((height, 1), np.uint8), rows]).tobytes()  # filter 0 before each row
    starts = range(0, len(raw), _STORED)
    stream = b"\x78\x01"
    for start in starts:
        block = raw[start : start + _STORED]
        last = start + _STORED >= len(raw)
        stream += struct.pack("<BHH", last, len(block), 0xFFFF ^ len(block)) + block
    stream += struct.pack(">I", zlib.adler32(raw))
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", stream), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )


@dataclass(frozen=True)
class Picture:
    """One image to write.

    Attributes:
        image_id, label, group: as in the manifest.
        pixels: uint8 [height, width] or [height, width, 3].
        extra: further columns.
    """

    image_id: str
    label: str
    group: str
    pixels: npt.NDArray[np.uint8]
    extra: dict[str, str] = field(default_factory=dict)


def write_pictures(directory: Path, pictures: Iterable[Picture]) -> "Manifest":
    """Write pictures as `<label>/<image_id>.png` and list them with their digests, sorted by uri.

    Raises:
        Refused: the directory cannot be written to.
        MachineFault: the disk is full or fails.
    """
    from stores.manifest import Manifest

    rows = []
    for picture in pictures:
        uri = f"{picture.label}/{picture.image_id}.png"
        data = png(picture.pixels)
        _write_once(directory / uri, data)
        row = {"image_id": picture.image_id, "uri": uri, "label": picture.label, "group": picture.group}
        rows.append(row | {"sha256": hashlib.sha256(data).hexdigest()} | picture.extra)
    rows.sort(key=lambda row: row["uri"].encode())
    return Manifest.from_columns({name: [row[name] for row in rows] for name in rows[0]}, directory)


def _write_once(path: Path, data: bytes) -> None:
    """Whole or not at all, but not fsynced: what a power cut loses, the manifest's digest finds."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if path.is_file() and path.read_bytes() == data:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise write_error(path, error) from error
