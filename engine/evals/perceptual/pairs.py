"""Pairs of image files: two files, or two folders whose files are matched by name."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import Refused
from stores.manifest.image_folder import list_images
from stores.manifest.uri_policy import shown


@dataclass(frozen=True)
class Pair:
    """Two image files.

    Attributes:
        a, b: paths relative to the roots; None where a folder has no file of that name.
    """

    a: str | None
    b: str | None


@dataclass(frozen=True)
class Pairs:
    """Pairs of image files.

    Attributes:
        roots: folders that the paths of `a` and of `b` start from.
        pairs: sorted by name.
    """

    roots: tuple[Path, Path]
    pairs: tuple[Pair, ...]


def find_pairs(a: Path, b: Path) -> Pairs:
    """Pair two files, or the images of two folders by their path without its extension.

    A file whose partner is missing makes a pair without it, so that nothing is left out in silence.

    Raises:
        Refused: a path that is not there, a file and a folder, a folder without images, two files of one
            name, or no pair at all.
    """
    for path in (a, b):
        if not path.exists():
            raise Refused(f"{path} is not there", "Two images, or two folders of images", "check the path")
    if a.is_dir() != b.is_dir():
        file, folder = (b, a) if a.is_dir() else (a, b)
        raise Refused(
            f"{file} is a file and {folder} a folder",
            "Two images are compared, or two folders of images",
            f"choose an image in {folder}",
        )
    if not a.is_dir():
        return Pairs((a.absolute().parent, b.absolute().parent), (Pair(a.name, b.name),))
    of_a, of_b = _by_name(a), _by_name(b)
    if not of_a.keys() & of_b.keys():
        raise Refused(
            f"{a} with {len(of_a)} images and {b} with {len(of_b)} have no name in common",
            f"Files match by their path below the folder, without extension, e.g. {shown(next(iter(of_a)))}",
            "rename the files, or give the folders that correspond",
        )
    names = sorted(of_a.keys() | of_b.keys(), key=os.fsencode)
    return Pairs((a, b), tuple(Pair(of_a.get(name), of_b.get(name)) for name in names))


def _by_name(folder: Path) -> Mapping[str, str]:
    """Return name without extension -> path, both relative to the folder."""
    try:
        uris = list_images(folder).uris
    except OSError as error:
        raise Refused(
            f"{error.filename}: {error.strerror}", "The folder can be listed", "check the path"
        ) from error
    if not uris:
        raise Refused(
            f"{folder} has no image", "Images are files with an image's extension", "check the path"
        )
    names: dict[str, str] = {}
    for uri in uris:
        name = os.path.splitext(uri)[0]  # noqa: PTH122 - of a text with forward slashes
        if name in names:
            raise Refused(
                f"{shown(names[name])} and {shown(uri)} in {folder}",
                "A name without extension belongs to one file",
                "move one of them away",
            )
        names[name] = uri
    return names
