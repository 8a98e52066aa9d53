"""Names of evaluations, and which settings tell two of them apart."""

from dataclasses import replace

import pytest

from engine.report.page.collect import latest
from engine.report.page.comparisons import comparisons_of
from engine.report.page.evidence import evidence_of
from engine.report.page.groups import groups_of
from engine.report.page.numbers import main_number
from engine.report.page.results import results_of
from engine.report.page.room import room_for
from engine.report.page.settings import settings_of, words_of
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


def test_the_seed_of_a_split_is_no_setting_of_its_own() -> None:
    """It is the seed of the evaluation, which is a setting already."""
    splits: JsonObject = {"train": "train", "seed": 3, "mode": "default"}
    record = entry_of("probe", "a", {"seed": 3, "splits": splits}, {}).record
    assert record is not None
    assert settings_of(record) == {"seed": 3, "train part": "train"}


def test_the_better_model_of_a_pair_is_first_whatever_the_record_has() -> None:
    entries = [probe("a", 0.7), probe("b", 0.9)]
    own = comparison(entries, [0.9, 0.7], ["b"], [("a", "b", -0.2, -0.3, -0.1, 0.001, True)])
    (compared,) = comparisons_of(page(*entries, own))
    (pair,) = compared.pairs
    assert (pair.better, pair.worse, pair.difference, pair.low, pair.high) == ("b", "a", 0.2, 0.1, 0.3)


def test_a_control_that_beats_one_finding_does_not_mark_the_mean_of_all() -> None:
    below: JsonObject = {"metric": "auroc", "control": "chance", "control_value": 0.5, "finding": "edema"}
    metrics: JsonObject = {"test": {"auroc": 0.8}, "below_control": [below]}
    record = entry_of("probe", "a", {"multi_label": True}, metrics).record
    assert record is not None
    number = main_number(record)
    assert number is not None
    assert number.below == ""
    alone = replace(record, metrics={**metrics, "below_control": [{**below, "finding": None}]})
    other = main_number(alone)
    assert other is not None
    assert (other.below, other.control) == ("chance", 0.5)


def test_pages_of_few_records_have_more_room() -> None:
    assert room_for(page(*[probe("a", 0.5)] * 2)) == 8
    assert room_for(page(*[probe("a", 0.5)] * 500)) == 2
    assert room_for(page(*[probe("a", 0.5)] * 3000)) == 1
