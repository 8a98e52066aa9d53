"""Small banks of known content, made in milliseconds, and an `os` that fails, dies or waits on demand."""

import hashlib
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stores.backends import disk, flock, local
from stores.bank import documents
from stores.bank.keys import ChunkResult, Failure, FeatureKey
from stores.bank.reader import Bank
from stores.bank.writer import FeatureWriter, open_or_create
from stores.manifest import tables
from stores.manifest.manifest import Manifest

#: Calls of `os` that touch the disk, as `stores.backends.local` and the modules behind it make them.
PRIMITIVES = frozenset(
    ["open", "close", "read", "readv", "write", "pwrite", "ftruncate", "fsync", "listdir", "stat"]
) | {"link", "replace", "unlink", "mkdir", "rmdir"}
#: What may differ between an undisturbed run and one that was killed and resumed.
FREE = ("records", ".embank/tmp", ".embank/quarantine")
FREE_NAMES = ("stamps.json", "provenance.json", "lock", "commit.lock")


def make_manifest(root: Path, rows: int) -> Manifest:
    """`rows` images with ids, three labels (some missing), two splits and patients."""
    import pandas as pd

    frame = pd.DataFrame(
        {
            "image_id": [f"image {row:05d}" for row in range(rows)],
            "uri": [f"{row:05d}.png" for row in range(rows)],
            "label": [("pear", "apple", "", "zebra")[row % 4] for row in range(rows)],
            "split": [("train", "test")[row % 2] for row in range(rows)],
            "group": [f"patient {row // 3}" for row in range(rows)],
        }
    )
    return Manifest.from_frame(frame, root / "images")


def make_key(images: str, **changes: Any) -> FeatureKey:
    fields = {
        "model": "torchvision/resnet18",
        "weights": "w" * 64,
        "architecture": "resnet18",
        "recipe": "r" * 64,
        "precision": "fp32",
        "decoder": "reference",
        "layer": "avgpool",
        "images": images,
    }
    return FeatureKey(**{**fields, **changes})


def embeddings(rows: int, dim: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """float32 [rows, dim], a function of the arguments alone."""
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def is_bad(row: int) -> bool:
    """Whether the row fails in these banks."""
    return row % 29 == 5


def chunk_result(index: int, start: int, stop: int, dim: int, seed: int = 0) -> ChunkResult:
    """The chunk as a decoder and a backbone would hand it over: row 5, 34, 63, ... failed."""
    bad = np.array([is_bad(row) for row in range(start, stop)])
    values = embeddings(stop, dim, seed)[start:]
    values[bad] = 7.0  # Whatever a failed row holds must not matter.
    failures = tuple(Failure(start + int(at), "truncated", "cut off") for at in np.flatnonzero(bad))
    return ChunkResult(index, values, ~bad, failures, image_contents(start, stop))


def image_contents(start: int, stop: int) -> npt.NDArray[np.uint8]:
    """What the rows were made from, uint8 [stop - start, 32]: the same for all features."""
    digests = b"".join(hashlib.sha256(b"image %d" % row).digest() for row in range(start, stop))
    return np.frombuffer(digests, np.uint8).reshape(-1, 32)


def fill(bank: Bank, key: FeatureKey, dim: int, seed: int = 0) -> None:
    """Compute, commit and seal whatever is missing of a feature."""
    with FeatureWriter(bank, key, dim) as writer:
        for index in writer.todo:
            writer.commit(chunk_result(index, *writer.bounds(index), dim, seed))
        writer.seal()


def make_bank(path: Path, rows: int = 150, dim: int = 24, chunk_rows: int = 64, **changes: Any) -> Bank:
    """A bank with one sealed feature."""
    bank = open_or_create(path, make_manifest(path.parent, rows), chunk_rows=chunk_rows)
    fill(bank, make_key(bank.image_digest, **changes), dim)
    return bank


def content(root: Path) -> dict[str, bytes]:
    """Every file that must be bit-identical after any history."""
    found = {}
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root).as_posix()
        if path.is_file() and path.name not in FREE_NAMES and not relative.startswith(FREE):
            found[relative] = path.read_bytes()
    return found


class Os:
    """`os`, with `before(count, name, args)` called ahead of every primitive.

    Args:
        before: may raise, kill, wait or look.
        sync: whether fsync is really made; tests that do not cut the power save the time.
    """

    def __init__(self, before: Callable[[int, str, tuple[Any, ...]], None], sync: bool = False) -> None:
        self._before, self._sync, self.count = before, sync, 0
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in PRIMITIVES:
            return real

        def primitive(*args: Any, **options: Any) -> Any:
            with self._lock:
                self.count += 1
                count = self.count
            if name == "close":  # Closing works even where it reports an error.
                real(*args)
                return self._before(count, name, args)
            self._before(count, name, args)
            return None if name == "fsync" and not self._sync else real(*args, **options)

        return primitive


#: Modules whose `os` the stores touch the disk by.
_DOORS: tuple[Any, ...] = (disk, local, flock, tables)


@contextmanager
def patched(fake: Any) -> Iterator[Any]:
    """Let the stores use `fake`, an `Os` or the like, for the body."""
    before = [door.os for door in _DOORS]
    try:
        for door in _DOORS:
            door.os = fake
        yield fake
    finally:
        for door, real in zip(_DOORS, before, strict=True):
            door.os = real


def nothing(count: int, name: str, args: tuple[Any, ...]) -> None:
    """A `before` that lets everything pass."""


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A temporary folder, in memory where there is such a place: these banks are made by the thousand."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as name:
        yield Path(name)


def lies(root: Path, feature: str) -> list[str]:
    """Markers that promise files which are not there, or not so. A torn marker promises nothing."""
    found = []
    for marker in sorted((root / ".embank" / feature / "markers").glob("*.json")):
        try:
            body = documents.decode(marker.read_bytes(), marker)
        except documents.BrokenDocument:
            continue
        for name, promise in body["files"].items():
            path = root / name
            if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != promise["sha256"]:
                found.append(f"{marker.name}: {name}")
    return found
