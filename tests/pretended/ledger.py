"""What a program made the pretended device do, by the program's own lines: waits, and bytes copied."""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

ROOT = Path(__file__).resolve().parents[2]
#: Where a line of the program may be.
_PARTS = tuple(f"{ROOT}/{part}" for part in ("engine/", "stores/", "benchmarks/", "cli.py"))

Kind = Literal["wait", "upload", "download"]


@dataclass(frozen=True)
class Entry:
    """One thing done.

    Attributes:
        kind: `wait`: the host stood still until a stream had come so far. A blocking copy is entered both as
            a copy and as a wait.
        place: `engine/…py:LINE`, the innermost line of the program; `tests` where there is none.
        cause: operation.
        size: bytes copied, 0 for a wait.
        pinned: of a copy: whether the host's side is page-locked. Copies from and to other memory go through
            a buffer of the driver, and never overlap.
    """

    kind: Kind
    place: str
    cause: str
    size: int = 0
    pinned: bool = False


class Ledger:
    """Entries, in order."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    def wait(self, cause: str) -> None:
        self.entries.append(Entry("wait", _place(), cause))

    def copy(self, kind: Kind, size: int, pinned: bool) -> None:
        self.entries.append(Entry(kind, _place(), "copy", size, pinned))

    def count(self, kind: Kind, place: str = "") -> int:
        """How many entries of a kind, at places that begin so."""
        return sum(entry.kind == kind and entry.place.startswith(place) for entry in self.entries)

    def size(self, kind: Kind, place: str = "") -> int:
        """Bytes of a kind, at places that begin so."""
        return sum(e.size for e in self.entries if e.kind == kind and e.place.startswith(place))

    def by_line(self, kind: Kind) -> Counter[str]:
        """Entries of a kind at each line, the most first when it is printed."""
        return Counter(entry.place for entry in self.entries if entry.kind == kind)


def _place() -> str:
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_filename.startswith(_PARTS):
            return f"{Path(frame.f_code.co_filename).relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "tests"
