"""The targets on an H200, and the documentation's table of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.gpu.floors import NOT_MEASURED
from benchmarks.speed.common import figure, markdown_table

#: Answers to whether a target is met.
UNMEASURED = "unmeasured"


@dataclass(frozen=True)
class Target:
    """A target.

    Attributes:
        name: also that of the `Reading` that is held against it.
        limit: in the unit.
        unit: of limit and reading.
        at_most: whether less is better.
        check: that measures it.
    """

    name: str
    limit: float
    unit: str
    at_most: bool
    check: str

    @property
    def text(self) -> str:
        """The condition in words."""
        return f"at {'most' if self.at_most else 'least'} {shown(self.limit, self.unit)}"

    def met(self, measured: float) -> bool:
        """Return whether a measurement meets the target; NaN does not."""
        return measured <= self.limit if self.at_most else measured >= self.limit


FORWARD = Target("ResNet-50 forward in bf16", 12_000, "img/s", False, "forward rate: resnet50")
END_TO_END = Target(
    "ResNet-50 end to end", 0.9, "of its slower stage", False, "end to end: xray-512, resnet50"
)
VIT = Target("ViT-L/14 end to end", 2000, "img/s", False, "end to end: xray-512, ViT-L/14")
FEWSHOT = Target(
    "600 few-shot episodes of 224,316 x 2,048, resident", 5, "ms", True,
    "few-shot: 600 episodes of resident features",
)  # fmt: skip
SWEEP = Target(
    "45-value probe sweep of 28,100 x 2,048", 2, "s", True, "probe: 45 regularisation values at once"
)
SWEEP_GAIN = Target(
    "the same sweep against cuML, one value after another", 5, "times", False,
    "probe: 45 regularisation values against cuML one by one",
)  # fmt: skip
WHITENING = Target("whitening 100 x 256 x 2,048", 20, "ms", True, "invariance: whitening of 100 x 256 views")
LOADING = Target(
    "bank of 224,316 x 2,048 to the device", 0.3, "s", True, "bank: features from disk to the device"
)
OCCLUSION = Target("ResNet-50 occlusion map", 5, "s", True, "saliency: one image, all places, pixels to map")

TARGETS = (FORWARD, END_TO_END, VIT, FEWSHOT, SWEEP, SWEEP_GAIN, WHITENING, LOADING, OCCLUSION)
COLUMNS = ("target", "measured", "floor", "share of floor", "met")


def judged(reading: Mapping[str, Any], *, counts: bool) -> dict[str, Any]:
    """Return a reading with `target` and `met` if there is a target of its name.

    Args:
        reading: from `Reading.to_dict`.
        counts: whether it was measured on a GPU at full size; otherwise `met` is `unmeasured`.
    """
    for target in TARGETS:
        if target.name == reading["name"]:
            met = ("yes" if target.met(reading["measured"]) else "no") if counts else UNMEASURED
            return {**reading, "target": target.text, "met": met}
    return dict(reading)


def shown(value: Any, unit: str) -> str:
    """Format a number with its unit; texts as they are."""
    if isinstance(value, str):
        return value
    if unit.startswith("of its"):
        return f"{100 * value:.3g} % {unit}"
    return f"{figure(float(value))} {unit}"


def table(readings: Iterable[Mapping[str, Any]]) -> str:
    """Return the documentation's table, a row for each target.

    Args:
        readings: from `judged`, of any checks; those at tiny sizes or on the CPU count as not measured.
    """
    of = {reading["name"]: reading for reading in readings if reading.get("met") in ("yes", "no")}
    return markdown_table(COLUMNS, [_row(target, of.get(target.name)) for target in TARGETS])


def _row(target: Target, reading: Mapping[str, Any] | None) -> list[str]:
    first = f"{target.name}: {target.text}"
    if reading is None:
        return [first, NOT_MEASURED, NOT_MEASURED, NOT_MEASURED, UNMEASURED]
    share = reading["share_of_floor"]
    return [
        first,
        shown(reading["measured"], target.unit),
        _floor(reading, target.unit),
        share if isinstance(share, str) else f"{100 * share:.0f} %",
        reading["met"],
    ]


def _floor(reading: Mapping[str, Any], unit: str) -> str:
    floor = reading["floor"]
    return floor if isinstance(floor, str) else f"{shown(floor, unit)} ({reading['bound_by']})"
