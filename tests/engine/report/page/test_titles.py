"""Names of evaluations, and which settings tell two of them apart."""

import pytest

from engine.report.page.collect import latest
from engine.report.page.comparisons import comparisons_of
from engine.report.page.evidence import evidence_of
from engine.report.page.groups import groups_of
from engine.report.page.results import results_of
from engine.report.page.settings import words_of
from engine.report.page.titles import title_of
from stores.json_types import Json, JsonObject
from tests.page_records import comparison, entry_of, page, probe

COLUMNS = ["edema", "effusion", "mass", "nodule"]


@pytest.mark.parametrize(
    ("kind", "asked", "metrics", "title"),
    [
        ("fewshot", {"n_way": 5, "n_shot": 20}, {}, "5-way 20-shot"),
        ("knn", {"leave_one_out": True}, {"k": 3}, "3-NN, leave one out"),
        ("probe", {"label": "label"}, {}, "linear probe"),
        (
            "probe",
            {"label": "edema", "cross_validation": {"folds": 5}},
            {},
            "linear probe, cross-validated: edema",
        ),
        (
            "probe",
            {"label": ", ".join(COLUMNS), "multi_label": True},
            {"findings": [{"label": name} for name in COLUMNS]},
            "linear probe of 4 findings",
        ),
        ("finetune", {"label": None}, {}, "finetuning"),
        ("invariance", {"transform": "h_flip"}, {}, "invariance: h_flip"),
        ("embed", {}, {}, "embedding"),
        ("audit", {}, {}, "audit"),
        ("compare", {"evaluation": "probe"}, {}, "comparison of models: probe"),
    ],
)
def test_titles(kind: str, asked: JsonObject, metrics: JsonObject, title: str) -> None:
    record = entry_of(kind, "a", asked, metrics).record
    assert record is not None
    assert title_of(record) == title


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "seed 0"),
        (None, "no seed"),
        ({"banks": ["a.bank", "b.bank"], "split": None}, "seed a.bank, b.bank"),
        ({"folds": 5, "repeats": 2}, "seed folds 5; repeats 2"),
    ],
)
def test_settings_in_words(value: Json, words: str) -> None:
    assert words_of("seed", value) == words


def test_batch_sizes_tell_finetunings_apart_and_nothing_else() -> None:
    finetunings, embeddings = (
        [entry_of(kind, "a", {"batch_size": size}, {}) for size in (8, 16)] for kind in ("finetune", "embed")
    )
    assert len(latest(finetunings)) == 2
    assert len(latest(embeddings)) == 1
    given = page(*finetunings)
    names = [one.protocol for one in results_of(given)]
    assert names == ["finetuning, batch size 16", "finetuning, batch size 8"]
    assert len(groups_of(given, "finetune")) == 2


def test_the_number_of_resamples_is_no_question() -> None:
    first, second = (entry_of("probe", "a", {"label": "x", "bootstrap": n}, {"n": n}) for n in (100, 1000))
    assert latest([first, second]) == [second]
    assert len(groups_of(page(first, second), "probe")) == 1


def test_all_sections_give_an_evaluation_the_same_name() -> None:
    entries = [probe("a", 0.9, label="edema"), probe("b", 0.7, label="edema")]
    own = comparison(entries, [0.9, 0.7], ["a"], [("a", "b", 0.2, 0.1, 0.3, 0.001, True)])
    given = page(*entries, own)
    (group,) = groups_of(given, "probe")
    (compared,) = comparisons_of(given)
    names = {one.protocol for one in results_of(given)} | {one.title for one in evidence_of(given, "probe")}
    assert names == {group.protocol} == {compared.task} == {"linear probe: edema"}
    # Without the records that were compared, the comparison says itself what it is of.
    (alone,) = comparisons_of(page(own))
    assert alone.task == "linear probe"
