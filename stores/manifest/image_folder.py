"""Find the images below a folder, and hash files, without deciding what they mean."""

import contextlib
import hashlib
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

#: Suffixes taken for images, lower case: of every format that is decoded as it lies in a folder.
SUFFIXES = frozenset({
    ".avif", ".bmp", ".gif", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm",
    ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
})  # fmt: skip

#: Suffixes of pictures and volumes that are not decoded, and what they are.
_NAMED = {
    ".exr": "OpenEXR", ".fits": "FITS", ".heic": "HEIC", ".heif": "HEIF", ".jls": "JPEG-LS",
    ".jxl": "JPEG XL", ".jxr": "JPEG XR", ".nii": "NIfTI", ".nii.gz": "NIfTI", ".nrrd": "NRRD",
    ".pam": "PAM", ".pfm": "PFM", ".psd": "Photoshop", ".svg": "SVG",
}  # fmt: skip

Progress = Callable[[int, int], None]
_BLOCK = 1 << 20

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Listing:
    """What lies below a folder.

    Attributes:
        uris: image files, relative to the folder, with forward slashes, sorted by their bytes.
        skipped: reason -> number of files or folders left out.
    """

    uris: list[str]
    skipped: dict[str, int]


def list_images(root: Path, *, follow_links: bool = False) -> Listing:
    """Walk a folder for files with an image suffix.

    Hidden files and folders are skipped and counted, and so are files with other suffixes and, unless
    `follow_links`, links to folders. Whatever bears an image's name is listed, be it a dangling link or a
    pipe: reading it fails later, in its own row.

    Raises:
        OSError: a folder cannot be listed.
    """
    uris: list[str] = []
    skipped: Counter[str] = Counter()
    # A folder is entered once on any one way down; a link upwards would lead round for ever.
    pending = [("", frozenset({_identity(root)}))]
    while pending:
        folder, above = pending.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                reason = _reason(entry, follow_links)
                if reason:
                    skipped[reason] += 1
                elif not entry.is_dir():
                    uris.append(folder + entry.name)
                elif (identity := _identity(Path(entry.path))) in above:
                    skipped["link to a folder above"] += 1
                else:
                    pending.append((f"{folder}{entry.name}/", above | {identity}))
    return Listing(sorted(uris, key=os.fsencode), dict(sorted(skipped.items())))


def _reason(entry: "os.DirEntry[str]", follow_links: bool) -> str:
    """Why an entry is left out; empty if it is not."""
    if entry.name.startswith("."):
        return "hidden"
    if entry.is_dir():
        return "link to a folder" if entry.is_symlink() and not follow_links else ""
    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - a Path for each of a million is slow
    if suffix in SUFFIXES:
        return ""
    if suffix == ".gz" and entry.name.lower().endswith(".nii.gz"):
        suffix = ".nii.gz"
    if suffix in _NAMED:
        return f"{_NAMED[suffix]} is not decoded, convert it to PNG or TIFF ({suffix})"
    return f"not an image ({suffix or 'no suffix'})"


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def sha256_of(path: Path) -> str | None:
    """SHA-256 of a regular file in hex; None if it cannot be read or is something else."""
    try:
        # A pipe would block an ordinary open until someone writes to it.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(handle, "rb", buffering=0) as file:
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return None
            digest = hashlib.sha256()
            while block := file.read(_BLOCK):
                digest.update(block)
        except OSError:
            return None
    return digest.hexdigest()


def hash_all(
    paths: Sequence[Path], *, workers: int | None = None, progress: Progress | None = None
) -> list[str | None]:
    """`sha256_of` every path, in order, in threads (hashing releases the interpreter's lock)."""
    return run_threads(sha256_of, paths, len(paths), workers=workers, progress=progress)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end what threads read from containers, for which the pool would wait."""
    try:
        yield
    except KeyboardInterrupt:
        from stores.members.pool import readers

        readers.abandon()
        raise


def run_threads(
    function: Callable[[T], R],
    items: Iterable[T],
    total: int,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[R]:
    """Map in threads, in order, with bounded read-ahead, telling `progress` (done, total) now and then."""
    step = 256
    results: list[R] = []
    iterator = iter(items)
    with ThreadPoolExecutor(workers or min(16, 2 * (os.cpu_count() or 1))) as pool, _interruptible():
        for start in range(0, total, step):
            batch = [item for _, item in zip(range(min(step, total - start)), iterator, strict=False)]
            results += pool.map(function, batch)
            if progress:
                progress(len(results), total)
    return results
