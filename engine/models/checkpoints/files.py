"""Digests of weights files, and checks that need no knowledge of their format. Nothing here needs torch."""

import hashlib
import stat
from pathlib import Path

from engine.errors import WeightsError

#: The largest file that is read; the largest backbones of torchvision and timm stay below 10 GiB.
MAX_BYTES = 32 * 2**30


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a weights file in hex, after checking that it is a file of a plausible size.

    Raises:
        WeightsError: missing, not a regular file, empty, or larger than `MAX_BYTES`.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise weights_error(
                path, "is not a regular file", "Weights are read from one file", "name a file"
            )
        if not 0 < status.st_size <= MAX_BYTES:
            raise weights_error(
                path,
                f"has {status.st_size} bytes",
                f"1 to {MAX_BYTES} are plausible",
                "fetch the file again",
            )
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise weights_error(
            path, f"cannot be read ({error.strerror})", "The weights must be there", "check the path"
        ) from error


def refuse_other_content(path: Path, head: bytes) -> None:
    """Raise WeightsError if a file's first bytes are those of a web page or of a Git LFS pointer."""
    start = head.lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise weights_error(
            path,
            "is a web page",
            "The download gave a page instead of the file",
            "open the link in a browser and save the file",
        )
    if start.startswith(b"version https://git-lfs"):
        raise weights_error(
            path, "is a Git LFS pointer", "The weights themselves are needed", "run `git lfs pull`"
        )


def weights_error(path: Path, fault: str, rule: str, remedy: str) -> WeightsError:
    """Return the error about a weights file; `fault` continues a sentence that begins with its path."""
    return WeightsError(f"{path} {fault}", rule, remedy)
