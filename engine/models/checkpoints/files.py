"""Weights files as files: their digests, and what is surely none. Nothing here needs torch."""

import hashlib
import stat
from pathlib import Path

from engine.errors import WeightsError

#: The largest file read; the greatest backbones of torchvision and timm stay below 10 GiB.
MAX_BYTES = 32 * 2**30


def sha256_of(path: Path) -> str:
    """SHA-256 of a weights file, after checking that it is a file of a sane size.

    Raises:
        WeightsError: missing, not a regular file, empty, or larger than `MAX_BYTES`.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise refuse(path, "is not a regular file", "Weights are read from one file", "name a file")
        if not 0 < status.st_size <= MAX_BYTES:
            raise refuse(
                path,
                f"has {status.st_size} bytes",
                f"1 to {MAX_BYTES} are believable",
                "fetch the file again",
            )
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise refuse(
            path, f"cannot be read ({error.strerror})", "The weights must be there", "check the path"
        ) from error


def refuse_impostors(path: Path, head: bytes) -> None:
    """Raise WeightsError where a file's first bytes are those of a web page or of a Git LFS pointer."""
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise refuse(
            path,
            "is a web page",
            "The download gave a page instead of the file",
            "open the link in a browser and save the file",
        )
    if start.startswith(b"version https://git-lfs"):
        raise refuse(path, "is a Git LFS pointer", "The weights themselves are needed", "run `git lfs pull`")


def refuse(path: Path, found: str, rule: str, remedy: str) -> WeightsError:
    """What to raise about a weights file."""
    return WeightsError(f"{path} {found}", rule, remedy)
