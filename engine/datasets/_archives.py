"""Containers of images as adapters see them: open, list, or refuse with the file's name."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from engine.errors import ManifestError
from stores import members
from stores.manifest.image_folder import SUFFIXES

IMAGE_SUFFIXES = tuple(sorted(SUFFIXES))


@contextlib.contextmanager
def opened(path: Path, remedy: str = "fetch the file again") -> Iterator[int]:
    """A descriptor of a container; trouble in the body is told as the container's.

    Raises:
        ManifestError: it cannot be read, or is not what its name says.
    """
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}", "It is a readable file", "check the path") from error
    try:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise ManifestError(f"{path} is no regular file", "It is a readable file", "check the path")
        yield file
    except members.MemberError as error:
        raise ManifestError(f"{path}: {error.detail}", "It is what its name says", remedy) from error
    except OSError as error:
        raise ManifestError(f"{path}: {error.strerror}", "It is a readable file", "check it") from error
    finally:
        os.close(file)
