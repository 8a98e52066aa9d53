"""Location of a bank: a directory of a file system, or a prefix in a bucket of an object store."""

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from stores.errors import BankError

#: Amazon S3 and whatever speaks its protocol; Google Cloud Storage; Azure Blob Storage (az://CONTAINER/PREFIX);
#: and what else has been registered (`stores.backends.registry`).
SCHEMES = {"s3", "gs", "az"}
# One slash is enough: a URL that went through `pathlib.Path` has lost the other.
_OBJECTS = re.compile(r"([a-z][a-z0-9+.-]*):/{1,2}([^/]*)/?(.*)", re.DOTALL)
_OTHER_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://.*", re.DOTALL)


@dataclass(frozen=True)
class ObjectPath:
    """The name of an object or of a prefix, with the part of `pathlib.Path` that the stores use, and no I/O.

    Attributes:
        scheme: one of `SCHEMES`.
        bucket: its name.
        key: names with `/` between; empty for the bucket itself.
    """

    scheme: str
    bucket: str
    key: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}".rstrip("/")

    def __truediv__(self, relative: str) -> "ObjectPath":
        return replace(self, key=f"{self.key}/{relative}".strip("/"))

    @property
    def name(self) -> str:
        """The last of the names; the bucket's if there is none."""
        return self.key.rpartition("/")[2] or self.bucket

    @property
    def parent(self) -> "ObjectPath":
        return replace(self, key=self.key.rpartition("/")[0])

    @property
    def parents(self) -> "tuple[ObjectPath, ...]":
        """The prefixes that it lies below, the innermost first, the bucket last."""
        names = self.key.split("/") if self.key else []
        return tuple(replace(self, key="/".join(names[:end])) for end in reversed(range(len(names))))

    def relative_to(self, other: "ObjectPath") -> PurePosixPath:
        return PurePosixPath("/", self.key).relative_to(PurePosixPath("/", other.key))

    def resolve(self) -> "ObjectPath":
        return self


Place: TypeAlias = Path | ObjectPath


def place(where: Place | str) -> Place:
    """Return the place that a path or a URL names.

    Raises:
        BankError: a URL of another scheme, without bucket, or with `.`, `..` or an empty name in it.
    """
    if isinstance(where, ObjectPath):
        return where
    text = os.fspath(where)
    url = _OBJECTS.fullmatch(text)
    if url is not None and url[1] in SCHEMES:
        return _object_path(text, *url.groups())
    if isinstance(where, str) and _OTHER_URL.fullmatch(text):
        raise BankError(
            text, "A bank is a directory, or a prefix at s3://, gs:// or az://", "use one of these schemes"
        )
    return Path(where)


def _object_path(text: str, scheme: str, bucket: str, key: str) -> ObjectPath:
    names = key.rstrip("/").split("/") if key else []
    if not bucket or any(name in ("", ".", "..") or not name.isprintable() for name in names):
        raise BankError(
            text,
            f"A bank in a bucket is {scheme}://BUCKET/PREFIX, printable and without `..`",
            "correct the URL",
        )
    return ObjectPath(scheme, bucket, "/".join(names))
