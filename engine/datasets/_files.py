"""Find what packages ship without importing them, and write pictures as the same bytes everywhere."""

import contextlib
import hashlib
import importlib.util
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from engine.errors import Refused
from stores.manifest.tables import write_error
from stores.members.encode import png
from stores.outputs import check_folder

if TYPE_CHECKING:
    from stores.manifest.manifest import Manifest


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

    All are made before the first is written.

    Raises:
        Refused: the directory cannot be written to, or lies in a bank.
        MachineFault: the disk is full or fails.
    """
    from stores.manifest.manifest import Manifest

    made = {f"{picture.label}/{picture.image_id}.png": picture for picture in pictures}
    for folder in {(directory / uri).parent for uri in made}:  # before the first is written
        check_folder(folder)
    rows = []
    for uri, picture in made.items():
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
