"""A page of very many records: within its bytes, honest about what is left out, its results complete."""

import pytest

from engine.report.page.assemble import page_of, report_html
from engine.report.page.cutting import within
from engine.report.page.inputs import PageInput, PageOptions, Source
from stores.bank.record_index import RecordEntry
from stores.json_types import Json, JsonObject
from tests.page_records import comparison, entry_of, fewshot, issue, page, probe

FINDINGS = ("edema", "effusion", "mass", "nodule", "a rather long name of a finding")
MODES = ("default", "as-published")


def _strata(value: float) -> Json:
    ends: Json = {"auroc": {"low": value - 0.1, "high": value + 0.1}}
    body: JsonObject = {"images": 50, "patients": 40, "auroc": value, "accuracy": value, "intervals": ends}
    strata: list[Json] = [{"stratum": name, **body} for name in ("AP", "PA", "lateral", "unknown")]
    return [{"column": column, "strata": strata} for column in ("view", "site")]


def _low_shot(value: float) -> Json:
    score: Json = {"mean": value, "low": value - 0.1, "high": value + 0.1}
    curve: list[Json] = [{"shots": shots, "accuracy": score, "auroc": score} for shots in (1, 2, 5, 10)]
    return {"shots": [1, 2, 5, 10], "seeds": 5, "curve": curve}


def _sweep(value: float) -> Json:
    return {"C": [10.0**k for k in range(-5, 7)], "val_score": [value] * 12, "converged": [True] * 12}


def _records(model: str, value: float, mode: str) -> list[RecordEntry]:
    """Return what a study may keep of one model and mode."""
    test: JsonObject = {"auroc": value, "accuracy": value}
    fit: JsonObject = {"test": test, "strata": _strata(value), "sweep": _sweep(value)}
    findings: list[Json] = [{"label": name, **fit} for name in FINDINGS]
    transforms = ("rotation", "h_flip", "brightness")
    cosine: JsonObject = {"cosine": value, "ci95": 0.01, "n": 20}
    grave: list[Json] = [
        issue("small_classes", "warning"),
        issue("grid_edge", "warning", "The best C is the largest"),
    ]
    own: JsonObject = {"strata": _strata(value), "low_shot": _low_shot(value), "sweep": _sweep(value), "n": 9}
    points: list[Json] = [
        {"step": step, "lr": 0.01, "train_loss": 1.0, "val_loss": 1.1, "val_score": value}
        for step in range(0, 5000, 200)
    ]
    label = ", ".join(FINDINGS)
    asked: JsonObject = {"label": label, "multi_label": True, "mode": mode, "seed": 0}
    learned: JsonObject = {"mode": mode, "label": "label", "batch_size": 64}
    return [
        probe(model, value, mode=mode, metrics=own, validity=grave),
        entry_of("probe", model, asked, {"findings": findings, "test": {"auroc": value}}, validity=grave),
        fewshot(model, value, 0.01, mode=mode, validity=grave),
        entry_of("finetune", model, learned, {"curve": {"points": points}, "test": {"accuracy": value}}),
        *(entry_of("invariance", model, {"transform": name, "mode": mode}, cosine) for name in transforms),
    ]


def _page(models: int, datasets: int) -> PageInput:
    names = [f"group/foundation-model-{number:02}" for number in range(models)]
    sources: list[Source] = []
    for number in range(datasets):
        entries: list[RecordEntry] = []
        for mode in MODES:
            values = [0.9 - place / 100 for place in range(models)]
            own = [_records(name, value, mode) for name, value in zip(names, values, strict=True)]
            pairs = [(names[0], name, 0.1, 0.05, 0.2, 0.001, True) for name in names[1:]]
            compared = [comparison([one[0] for one in own], values, names[:1], pairs, mode=mode)]
            entries += [*(entry for one in own for entry in one), *compared]
        sources += page(*entries, name=f"set {number}").sources
    return PageInput("A large study", tuple(sources), models=tuple(names))


@pytest.mark.parametrize(
    ("models", "datasets", "most"),
    [(4, 1, 250_000), pytest.param(20, 8, 5_000_000, marks=pytest.mark.thorough)],
)
def test_a_large_study_keeps_to_the_bytes(models: int, datasets: int, most: int) -> None:
    given, options = _page(models, datasets), PageOptions(max_bytes=most)
    complete = page_of(given, options)
    cut, document = within(complete, most)
    assert len(document) <= most
    assert document == report_html(given, options)
    assert cut != complete
    assert cut.verdict == complete.verdict
    for identity in ("validity", "results"):
        before, after = ({s.id: s for s in one.sections}[identity] for one in (complete, cut))
        assert before.blocks[:1] == after.blocks[:1]
    assert b"to keep the page small" in document.lower()
    assert not any("larger than" in line for line in cut.made)
