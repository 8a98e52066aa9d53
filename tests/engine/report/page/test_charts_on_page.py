"""All charts on one page: ids that occur once, no style outside the sheet, and records of any shape."""

import copy
import random
import re
from collections import Counter

import pytest

from engine.report.page.assemble import SectionModule
from engine.report.page.blocks import Page
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.page.render import render_page
from engine.report.page.sections import (
    comparisons,
    confusion,
    invariance_views,
    label_efficiency,
    learning_curves,
    losses,
    reliability,
    selection,
    strata,
)
from stores.bank.record_index import RecordEntry
from stores.json_types import Json, JsonObject
from tests.page_records import entry_of, page

MODULES: tuple[SectionModule, ...] = (
    comparisons,
    strata,
    label_efficiency,
    selection,
    reliability,
    confusion,
    learning_curves,
    losses,
    invariance_views,
)
_ENDS: Json = {"low": 0.5, "high": 0.9}
_BINS: Json = {"count": [2, 0, 3], "frequency": [0.5, None, 0.7], "probability": [0.2, None, 0.8]}
_MEAN: Json = {"mean": 0.7, "ci95": 0.05}
PROBE: JsonObject = {
    "classes": ["a", "b"],
    "select": "accuracy",
    "best_C": 1.0,
    "val_score": 0.8,
    "images": {"train": 10, "val": 5, "test": 5},
    "sweep": {"C": [0.1, 1.0, 10.0], "val_score": [0.6, 0.8, 0.7], "converged": [True, True, False]},
    "test": {
        "accuracy": 0.7,
        "auroc": 0.8,
        "confusion_matrix": [[2, 1], [0, 2]],
        "intervals": {"accuracy": _ENDS},
    },
    "calibration": {
        "temperature": 1.2,
        "bins": {"before": _BINS, "after": _BINS},
        "ece": {"before": 0.1, "after": 0.2},
    },
    "low_shot": {
        "seeds": 5,
        "shots": [1, 5],
        "curve": [{"shots": 1, "accuracy": _MEAN, "auroc": _MEAN}, {"shots": 5, "accuracy": _MEAN}],
    },
    "strata": [
        {
            "column": "view",
            "gaps": {"auroc": {"value": 0.1, "low": 0.0, "high": 0.2}},
            "strata": [{"stratum": "AP", "images": 3, "auroc": 0.7, "intervals": {"auroc": _ENDS}}],
        }
    ],
}
FINETUNE: JsonObject = {
    "curve": {"points": [{"step": 0, "val_loss": 1.0, "val_score": 0.5}, {"step": 5, "train_loss": 0.4}]},
    "tested_step": 5,
    "select": "accuracy",
    "test": {"accuracy": 0.7},
}
RECONSTRUCT: JsonObject = {"curves": {"steps": [0, 1], "of": ["i, seed 0"], "losses": [[3.0, 1.0]]}}
INVARIANCE: JsonObject = {
    "n": 5,
    "views": 3,
    "cosine": 0.6,
    "ci95": 0.1,
    "baseline": 0.1,
    "by_view": {
        "names": ["factor"],
        "parameters": [[1], [2], [3]],
        "cosine": [1, 0.7, 0.5],
        "ci95": [0, 0.1, 0.1],
    },
}
COMPARE: JsonObject = {
    "evaluation": "probe",
    "metric": "accuracy",
    "task": "label",
    "unit": "images",
    "best": ["a"],
    "models": [
        {"model": "a", "value": 0.9, "low": 0.8, "high": 1.0, "letters": "a", "rank": {"low": 1, "high": 2}},
        {"model": "b", "value": None, "letters": "", "rank": None},
    ],
    "pairs": [
        {"a": "a", "b": "b", "difference": 0.1, "low": 0.0, "high": 0.2, "p_holm": 0.1, "different": False}
    ],
}
BODIES = {
    "probe": PROBE,
    "finetune": FINETUNE,
    "reconstruct": RECONSTRUCT,
    "invariance": INVARIANCE,
    "compare": COMPARE,
}
ODD: tuple[Json, ...] = (
    None,
    "x",
    [],
    {},
    -1,
    [None],
    1e308,
    True,
    0,
    [[]],
    [{}],
    {"a": 1},
    [1, "x"],
    5e-324,
)


def everything() -> PageInput:
    return page(
        *(
            entry_of(kind, model, {"transform": "blur"}, body)
            for kind, body in BODIES.items()
            for model in "ab"
        )
    )


def test_ids_occur_once_and_names_are_there() -> None:
    sections = [section for module in MODULES for section in module.sections(everything(), PageOptions())]
    assert len(sections) == len(MODULES)
    html = render_page(Page("p", sections=tuple(sections))).decode()
    ids = Counter(re.findall(r'\bid="([^"]*)"', html))
    assert [name for name, count in ids.items() if count > 1] == []
    named = {name for names in re.findall(r'aria-labelledby="([^"]*)"', html) for name in names.split()}
    assert named <= set(ids)
    assert "<svg" in html
    assert ' style="' not in html


def test_the_same_records_give_the_same_bytes() -> None:
    first, second = (
        [section for module in MODULES for section in module.sections(everything(), PageOptions())]
        for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("kind", BODIES)
def test_records_of_any_shape_do_not_stop_the_page(kind: str) -> None:
    chance = random.Random(kind)
    for _ in range(100):
        body = copy.deepcopy(BODIES[kind])
        for _ in range(chance.randint(1, 3)):
            _damage(body, chance)
        entries = (entry_of(kind, "a", {}, BODIES[kind]), entry_of(kind, "b", {}, body))
        for module in MODULES:
            module.sections(page(*entries), PageOptions())


def _damage(body: JsonObject, chance: random.Random) -> None:
    """Replace a random part of a document by something odd."""
    inner: Json = body
    while isinstance(inner, dict | list) and inner:
        keys: list[object] = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
        key = chance.choice(keys)
        below = inner[key]  # type: ignore[index, call-overload]
        if not (isinstance(below, dict | list) and below) or chance.random() < 0.3:
            inner[key] = copy.deepcopy(chance.choice(ODD))  # type: ignore[index, call-overload]
            return
        inner = below


def test_a_page_without_records_has_no_charts() -> None:
    empty: tuple[RecordEntry, ...] = ()
    assert not any(module.sections(page(*empty), PageOptions()) for module in MODULES)
