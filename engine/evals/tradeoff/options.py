"""Settings of a choice among models."""

import math
from dataclasses import dataclass, field

from engine.errors import Refused
from engine.evals.comparison.options import METRICS
from engine.evals.comparison.options import Options as ComparisonOptions


@dataclass(frozen=True)
class Options:
    """How models are chosen.

    Attributes:
        label: column that they are judged by.
        evaluation: a key of `METRICS`, whose records are the evidence.
        mode: `default` or `as-published`, of the evidence.
        margin: rates that differ by no more than this share count as equal.
        comparison: of the models in pairs.

    Raises:
        Refused: a value out of range.
    """

    label: str = "label"
    evaluation: str = "probe"
    mode: str = "default"
    margin: float = 0.1
    comparison: ComparisonOptions = field(default_factory=lambda: ComparisonOptions(common=True))

    def __post_init__(self) -> None:
        if self.evaluation not in METRICS:
            raise Refused(
                f"evaluation {self.evaluation!r}",
                f"Those with paired numbers are {', '.join(METRICS)}",
                "choose one of these",
            )
        if self.evaluation != "probe" and self.label != "label":
            raise Refused(
                f"label {self.label!r} with {self.evaluation}",
                "Only probes learn another column than label",
                "leave --evaluation out, or make it the bank's label with `embank bank relabel`",
            )
        if self.mode not in ("default", "as-published"):
            raise Refused(f"mode {self.mode!r}", "It is default or as-published", "choose one of these")
        if not (math.isfinite(self.margin) and 0 <= self.margin <= 1):
            raise Refused(f"margin {self.margin}", "It is a share from 0 to 1", "leave it out for 0.1")
