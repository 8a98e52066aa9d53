"""Which checks run in the time there is: in order of value, those that can end."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from benchmarks.speed.common import markdown_table

#: Seconds until a worker's first check: a process starts, imports torch and opens the device.
START_S = 12.0
#: Seconds of a check at tiny sizes.
QUICK_S = 2.0


class Ranked(Protocol):
    """Say what is needed of a check to pack it."""

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def rank(self) -> int: ...


C = TypeVar("C", bound=Ranked)


@dataclass(frozen=True)
class Plan(Generic[C]):
    """List the checks that run in a time, in order, and those left out, each with its expected seconds."""

    runs: tuple[tuple[C, float], ...]
    left: tuple[tuple[C, float], ...]

    @property
    def seconds(self) -> float:
        """Expected seconds of all that runs."""
        return sum(seconds for _, seconds in self.runs)

    def text(self, minutes: float) -> str:
        """Return the plan as Markdown."""
        rows = [["runs", check.kind, check.name, f"{seconds:.0f}"] for check, seconds in self.runs]
        rows += [["left out", check.kind, check.name, f"{seconds:.0f}"] for check, seconds in self.left]
        counts = f"{len(self.runs)} checks of {self.seconds:.0f} s, {len(self.left)} left out"
        head = f"{minutes:g} minutes: {counts}. What ends early makes room.\n\n"
        return head + markdown_table(["", "kind", "check", "s"], rows)


def in_order(checks: Iterable[C]) -> list[C]:
    """Sort checks by value: proofs, then measurements, which begin with the ceilings; each by rank."""
    return sorted(checks, key=lambda check: (check.kind != "proof", check.rank))


def pack(checks: Sequence[C], seconds: float, expected: Callable[[C], float]) -> Plan[C]:
    """Take each check in turn that still fits; one that does not makes way for smaller ones.

    Args:
        checks: in order of value.
        seconds: in all.
        expected: of one check.
    """
    runs, left = [], []
    remaining = seconds
    for check in checks:
        needed = expected(check)
        if needed <= remaining:
            runs.append((check, needed))
            remaining -= needed
        else:
            left.append((check, needed))
    return Plan(tuple(runs), tuple(left))
