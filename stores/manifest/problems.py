"""What a check of a manifest says: its problems, and the report that lists them."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Problem:
    """One finding.

    Attributes:
        severity: `error` makes rows or numbers wrong, `warning` may, `note` is good to know.
        code: stable word.
        count: how many rows, groups or classes it concerns.
        text: what was found.
        remedy: what to do about it.
        examples: the first few, as text.
    """

    severity: Severity
    code: str
    count: int
    text: str
    remedy: str
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckReport:
    """What `check` found.

    Attributes:
        rows, unlabelled: numbers of rows.
        digest: of the manifest.
        classes: label -> rows.
        class_counts: split -> label -> rows; the empty text stands for no split and no label.
        groups: number of distinct groups.
        files_checked, content_checked: whether files were looked at, and their bytes.
        problems: worst first.
        notes: what was converted or cleaned when the manifest was read.
    """

    rows: int
    unlabelled: int
    digest: str
    classes: dict[str, int]
    class_counts: dict[str, dict[str, int]]
    groups: int
    files_checked: bool
    content_checked: bool
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """No problem is an error."""
        return all(problem.severity != "error" for problem in self.problems)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {"ok": self.ok, **asdict(self), "problems": [asdict(problem) for problem in self.problems]}
