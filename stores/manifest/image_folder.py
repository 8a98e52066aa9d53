"""The image files below a folder, and digests of files; what they mean is decided elsewhere."""

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

#: Suffixes of image files, lower case: those of every format that can be decoded from a plain file.
SUFFIXES = frozenset({
    ".avif", ".bmp", ".gif", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm",
    ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp",
})  # fmt: skip

#: Suffixes of pictures and volumes that cannot be decoded -> the format's name.
_UNSUPPORTED = {
    ".exr": "OpenEXR", ".fits": "FITS", ".heic": "HEIC", ".heif": "HEIF", ".jls": "JPEG-LS",
    ".jxl": "JPEG XL", ".jxr": "JPEG XR", ".nii": "NIfTI", ".nii.gz": "NIfTI", ".nrrd": "NRRD",
    ".pam": "PAM", ".pfm": "PFM", ".psd": "Photoshop", ".svg": "SVG",
}  # fmt: skip

#: Called with (items done, items).
Progress = Callable[[int, int], None]
_BLOCK = 1 << 20  # bytes hashed at a time
#: Items after which progress is reported.
_STEP = 256

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Listing:
    """The image files below a folder.

    Attributes:
        uris: paths relative to the folder, with forward slashes, sorted by their bytes.
        skipped: reason -> number of files or folders left out.
    """

    uris: list[str]
    skipped: dict[str, int]


def list_images(root: Path, *, follow_links: bool = False) -> Listing:
    """Walk a folder for files with an image suffix.

    Hidden files and folders are skipped and counted, and so are files with other suffixes and, unless
    `follow_links`, links to folders. Anything else with an image suffix is listed, even a dangling link or a
    pipe: reading it fails later, in its own row.

    Raises:
        OSError: a folder cannot be listed.
    """
    uris: list[str] = []
    skipped: Counter[str] = Counter()
    # A folder is not entered again below itself: a link to a folder above would make the walk endless.
    pending = [("", frozenset({_identity(root)}))]
    while pending:
        folder, above = pending.pop()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                reason = _reason_to_skip(entry, follow_links)
                if reason:
                    skipped[reason] += 1
                elif not entry.is_dir():
                    uris.append(folder + entry.name)
                elif (identity := _identity(Path(entry.path))) in above:
                    skipped["link to a folder above"] += 1
                else:
                    pending.append((f"{folder}{entry.name}/", above | {identity}))
    return Listing(sorted(uris, key=os.fsencode), dict(sorted(skipped.items())))


def _reason_to_skip(entry: "os.DirEntry[str]", follow_links: bool) -> str:
    """Return why an entry is left out; empty if it is not."""
    if entry.name.startswith("."):
        return "hidden"
    if entry.is_dir():
        return "link to a folder" if entry.is_symlink() and not follow_links else ""
    suffix = os.path.splitext(entry.name)[1].lower()  # noqa: PTH122 - a Path for each of a million is slow
    if suffix in SUFFIXES:
        return ""
    if suffix == ".gz" and entry.name.lower().endswith(".nii.gz"):
        suffix = ".nii.gz"
    if suffix in _UNSUPPORTED:
        return f"{_UNSUPPORTED[suffix]} is not decoded, convert it to PNG or TIFF ({suffix})"
    return f"not an image ({suffix or 'no suffix'})"


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def sha256_of(path: Path) -> str | None:
    """Return the SHA-256 of a regular file in hex; None if it cannot be read or is not a regular file."""
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
    """Return `sha256_of` each path, in order; in threads, as hashing releases the interpreter's lock."""
    return run_threads(sha256_of, paths, len(paths), workers=workers, progress=progress)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """On Ctrl-C, end the reading of containers in other threads, which the pool would wait for."""
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
    """Apply a function to items in threads, a batch at a time.

    Args:
        function: called once for each item.
        items: at least `total` items.
        total: how many items to take.
        workers: number of threads.
        progress: called with (items done, total) after every batch.

    Returns:
        The results, in the order of the items.
    """
    results: list[R] = []
    iterator = iter(items)
    with ThreadPoolExecutor(workers or min(16, 2 * (os.cpu_count() or 1))) as pool, _interruptible():
        for start in range(0, total, _STEP):
            batch = [item for _, item in zip(range(min(_STEP, total - start)), iterator, strict=False)]
            results += pool.map(function, batch)
            if progress:
                progress(len(results), total)
    return results
