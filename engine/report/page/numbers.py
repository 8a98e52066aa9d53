"""Numbers of records as the page writes them: value, interval, and what limits them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from engine.report.json_parts import members, objects
from engine.report.marks import MARK
from engine.report.page.blocks import Value
from stores.bank.record_table import interval
from stores.bank.records import RunRecord
from stores.json_types import Json

#: Stands after a number that a control could as well have reached by chance.
UNCERTAIN = "‡"
#: Metric -> its name in sentences.
WORDS: Mapping[str, str] = {
    "accuracy": "accuracy",
    "mean_per_class_accuracy": "balanced accuracy",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "log_loss": "log loss",
    "calibration_error": "calibration error (ECE)",
    "cosine": "cosine similarity",
    "mahalanobis": "Mahalanobis distance",
    "attentive_diffusion": "attentive diffusion",
    "lpips": "LPIPS",
    "loss": "loss of features",
}
#: Metrics that are better when smaller.
SMALLER_IS_BETTER = frozenset({"log_loss", "calibration_error", "lpips", "loss"})
#: Kind -> (path, metric) of its main number; the first one that a record has.
_MAIN: Mapping[str, tuple[tuple[str, str], ...]] = {
    "fewshot": (("accuracy", "accuracy"),),
    "knn": (("test.accuracy", "accuracy"),),
    "probe": (("test.mean_per_class_accuracy", "mean_per_class_accuracy"), ("test.accuracy", "accuracy")),
    "finetune": (("test.mean_per_class_accuracy", "mean_per_class_accuracy"), ("test.accuracy", "accuracy")),
    "invariance": (("cosine", "cosine"),),
    "multiview": (("cosine", "cosine"),),
    "saliency": (("mean", "attentive_diffusion"),),
    "reconstruct": (("lpips.mean", "lpips"), ("loss.mean", "loss")),
}
_FINDINGS = (("test.auroc", "auroc"),)


@dataclass(frozen=True)
class Number:
    """A number of a record.

    Attributes:
        metric: a key of `WORDS`.
        value: None where it is undefined.
        low, high: of its 95 % interval; None where there is none.
        reason: why it is undefined; else "".
        below: name of a control that is better; "" where none is.
        control: value of that control.
        uncertain: why it cannot be told from a control; "" where it can, or nothing is known.
    """

    metric: str
    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str = ""
    below: str = ""
    control: float | None = None
    uncertain: str = ""

    @property
    def word(self) -> str:
        """Name of the metric."""
        return WORDS.get(self.metric, self.metric.replace("_", " "))


def main_number(record: RunRecord) -> Number | None:
    """Return the number that a record is judged by; None for kinds that have none."""
    paths = _MAIN.get(record.kind, ())
    if paths is not _FINDINGS and (record.asked.get("multi_label") or record.asked.get("findings")):
        paths = _FINDINGS if record.kind in ("probe", "finetune") else paths
    numbers = [number_at(record, path, metric) for path, metric in paths]
    return next((one for one in numbers if one.value is not None), numbers[0] if numbers else None)


def number_at(record: RunRecord, path: str, metric: str) -> Number:
    """Return the number at a dotted path of a record's metrics."""
    *outer, name = path.split(".")
    body: Json = dict(record.metrics)
    for part in outer:
        body = members(body).get(part)
    parent = members(body)
    value = finite(parent.get(name))
    low, high = interval(parent, name)
    reason = ""
    if value is None:
        reasons = (parent.get(f"{name}_reason"), parent.get("reason"), record.metrics.get("reason"))
        reason = next((str(one) for one in reasons if one), "the record has no such number")
    return _beside_controls(Number(metric, value, low, high, reason), record)


def _beside_controls(number: Number, record: RunRecord) -> Number:
    """Return a number with what its record says of controls."""
    for one in objects(record.metrics.get("below_control") or []):
        if one.get("metric") == number.metric and not one.get("finding"):
            name = str(one.get("control")).replace("_", " ")
            return replace(number, below=name, control=finite(one.get("control_value")))
    for one in objects(list(record.validity or [])):
        if one.get("code") == "not_told_from_control":
            return replace(number, uncertain=str(one.get("sentence")))
    return number


def finite(value: Json) -> float | None:
    """Return a JSON number as a float; None for anything else."""
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def decimal(value: float | None, digits: int = 3) -> str:
    """Return a number in few digits, with a true minus sign; a dash where it is undefined."""
    if value is None:
        return "–"
    text = f"{value:.{digits}f}" if abs(value) < 1e5 else f"{value:.3g}"
    return text.replace("-", "−")


def bounds(low: float | None, high: float | None, digits: int = 3) -> str:
    """Return an interval, e.g. `0.542–0.917`, or `−0.190 to 0.200` where an end is negative."""
    between = " to " if low is not None and low < 0 else "–"
    return f"{decimal(low, digits)}{between}{decimal(high, digits)}"


def p_value(p: float | None) -> str:
    """Return a p value: `p = 0.012`, `p < 0.001`; its spaces do not break."""
    if p is None:
        return "no p value"
    return "p\u00a0<\u00a00.001" if p < 0.001 else f"p\u00a0=\u00a0{p:.3f}"


def value_of(number: Number | None, *, strong: bool = False) -> Value:
    """Return a number as a cell of a table, marked where a control is better or as good."""
    if number is None:
        return Value("–")
    if number.value is None:
        return Value("undefined", reason=number.reason)
    mark, reason, tone = _limits(number)
    within = f" ({bounds(number.low, number.high)})" if number.low is not None else ""
    return Value(
        f"{decimal(number.value)}{mark}{within}",
        number.value,
        number.low,
        number.high,
        reason,
        "error" if tone else None,
        strong and not tone,
    )


def _limits(number: Number) -> tuple[str, str, bool]:
    if number.below:
        reached = f", which reaches {decimal(number.control)}" if number.control is not None else ""
        return MARK, f"Below a control, {number.below}{reached}", True
    if number.uncertain:
        return UNCERTAIN, number.uncertain, False
    return "", "", False
