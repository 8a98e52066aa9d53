"""Records of a page that is tested: evaluations and comparisons with numbers of the test's choice."""

from collections.abc import Sequence
from zlib import crc32

from engine.report.page.inputs import PageInput, Source
from stores.backends.location import place
from stores.bank.record_index import RecordEntry
from stores.bank.records import RunRecord
from stores.json_types import Json, JsonObject

CREATED = "2026-11-30T12:00:00+00:00"


def entry_of(kind: str, model: str, asked: JsonObject, metrics: JsonObject, **parts: Json) -> RecordEntry:
    """An entry as `stores.bank.record_index` reads it, with an id of its own."""
    record = RunRecord(
        kind=kind,
        asked={"model": model, **asked},
        used=parts.pop("used", {}),
        metrics=metrics,
        seconds={"total": 1.0},
        created=CREATED,
        versions={"embank": "0.1.0", "torch": "2.11.0"},
        **parts,
    )
    name = f"{kind}-{model}-{crc32(repr(sorted(asked.items())).encode()):08x}"
    return RecordEntry(name, f"records/{name}.json", record, None, model)


def probe(model: str, value: float | None, low: float = 0.0, high: float = 1.0, **parts: Json) -> RecordEntry:
    """A linear probe with one number and its interval."""
    asked: JsonObject = {
        "label": parts.pop("label", "label"),
        "mode": parts.pop("mode", "default"),
        "seed": 0,
    }
    test: JsonObject = {
        "mean_per_class_accuracy": value,
        "accuracy": value,
        "intervals": {"mean_per_class_accuracy": {"low": low, "high": high}} if value is not None else {},
    }
    more = parts.pop("metrics", {})
    metrics: JsonObject = {"test": test, "images": {"train": 70, "val": 20, "test": 30}, **more}
    return entry_of("probe", model, asked, metrics, **{"validity": [], **parts})


def fewshot(model: str, value: float, ci95: float, **parts: Json) -> RecordEntry:
    asked: JsonObject = {"n_way": 2, "n_shot": 5, "mode": parts.pop("mode", "default"), "seed": 0}
    metrics: JsonObject = {"accuracy": value, "ci95": ci95, "images": 100, **parts.pop("metrics", {})}
    return entry_of("fewshot", model, asked, metrics, **{"validity": [], **parts})


def comparison(
    entries: Sequence[RecordEntry],
    values: Sequence[float],
    best: Sequence[str],
    pairs: Sequence[tuple[str, str, float, float, float, float, bool]],
    *,
    metric: str = "mean_per_class_accuracy",
    units: int = 500,
    below: str = "",
    mode: str = "default",
) -> RecordEntry:
    """A record of kind `compare`; pairs are (a, b, difference, low, high, p, different)."""
    kind = entries[0].record.kind if entries[0].record else ""
    names = ("a", "b", "difference", "low", "high", "p_holm", "different")
    metrics: JsonObject = {
        "evaluation": kind,
        "metric": metric,
        "task": "2-way 5-shot" if kind == "fewshot" else "label",
        "units": units,
        "unit": "patients",
        "tests": len(pairs),
        "best": list(best),
        "models": [
            {
                "model": e.model,
                "record": e.id,
                "value": v,
                "low": v - 0.1,
                "high": v + 0.1,
                "below_control": below,
            }
            for e, v in zip(entries, values, strict=True)
        ],
        "pairs": [dict(zip(names, pair, strict=True)) for pair in pairs],
    }
    asked: JsonObject = {"evaluation": kind, "mode": mode, "seed": 0, "metric": metric}
    used: JsonObject = {"compared": [e.name for e in entries]}
    return entry_of("compare", "", asked, metrics, used=used)


def page(*entries: RecordEntry, name: str = "xrays", **parts: object) -> PageInput:
    """A page of one data set."""
    return PageInput(name, (Source(name, place("nowhere.bank"), entries),), **parts)  # type: ignore[arg-type]


def issue(code: str, severity: str, sentence: str = "it is so") -> JsonObject:
    return {
        "code": code,
        "severity": severity,
        "sentence": sentence,
        "value": 1,
        "rule": "It should not be",
        "remedy": "do otherwise",
        "subject": "",
    }
