"""Values of records under the paper's names: a small study's own records, and documents made here."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from benchmarks.paper.effects import effect
from benchmarks.paper.ours import best_variants, ours_of, slugs_of, values_of, with_best_variants
from benchmarks.paper.sources import dataset_of
from benchmarks.paper.values import Value, Values
from engine.errors import Refused
from engine.report.page.inputs import Source
from stores.backends.location import place
from stores.bank.predictions import read_predictions
from stores.bank.record_index import RecordEntry
from stores.bank.records import RunRecord
from tests.command import embank
from tests.probe_banks import DIM, FIRST, ROWS, SECOND, fill_with, make_probe_bank
from tests.stores.banks import make_key
from tests.studies import MODEL, make_study

FEW = "few_shot_2way_3shot_accuracy_pct"


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Lay out a study's folder with one bank, and few-shot and probe records of both modes."""
    root = make_study(
        tmp_path_factory.mktemp("paper") / "study", 31
    )  # whose test part has 4 and 3 images of its classes
    (root / "banks").mkdir()
    bank = (root / "bank").rename(root / "banks" / "montgomery.bank")
    for mode in ("default", "as-published"):
        few = ("--n-way", 2, "--n-shot", 3, "--n-query", 2, "--episodes", 20)
        for words in (("fewshot", bank, *few), ("probe", bank)):
            ran = embank(*words, "--model", MODEL, "--mode", mode, "--device", "cpu", "--json")
            assert ran.code == 0, ran.err
    return root


def documents(study: Path) -> dict[tuple[str, str], dict]:
    """Read the record files with json alone."""
    bodies = [json.loads(path.read_text()) for path in (study / "banks").glob("*/records/*.json")]
    return {(b["kind"], b["asked"]["mode"]): b for b in bodies if b["kind"] in ("fewshot", "probe")}


@pytest.mark.slow
def test_values_are_the_numbers_of_the_records(study):
    ours, bodies = values_of(study), documents(study)
    assert len(bodies) == 4
    for mode in ("default", "as-published"):
        values = ours.of(mode)
        few = values.get(MODEL, "montgomery", FEW)
        body = bodies["fewshot", mode]["metrics"]
        assert few.value == pytest.approx(100 * body["accuracy"], abs=1e-9)
        assert few.ci95 == pytest.approx(100 * body["ci95"], abs=1e-9)
        assert (few.n, few.over, few.mode) == (20, "episodes", mode)
        assert "episodes 20 (the paper's: 600)" in few.reason
        for metric in ("accuracy", "mean_per_class_accuracy"):
            probe = values.get(MODEL, "montgomery", f"linear_{metric}_pct")
            test = bodies["probe", mode]["metrics"]["test"]
            assert probe.value == pytest.approx(100 * test[metric])
            assert probe.low == pytest.approx(100 * test["intervals"][metric]["low"])
            assert probe.high == pytest.approx(100 * test["intervals"][metric]["high"])
            assert probe.ci95 == pytest.approx((probe.high - probe.low) / 2)
            assert probe.n == bodies["probe", mode]["metrics"]["images"]["test"]


@pytest.mark.slow
def test_a_bank_is_read_like_its_study(study):
    alone = values_of(study / "banks" / "montgomery.bank")
    assert alone == values_of(study)
    renamed = values_of(study, {"montgomery": "shenzhen"})
    assert {value.dataset for value in renamed.values} == {"shenzhen"}


@pytest.mark.slow
def test_the_effect_of_the_mode_is_paired_on_the_same_images(study):
    bank, ours = study / "banks" / "montgomery.bank", values_of(study)
    first, second = (
        ours.of(mode).get(MODEL, "montgomery", "linear_accuracy_pct") for mode in ("default", "as-published")
    )
    tables = [read_predictions(bank, value.record).to_pandas() for value in (first, second)]
    right = [(table.truth == table.predicted).to_numpy() for table in tables]
    assert list(tables[0].image_id) == list(tables[1].image_id)
    differences = 100.0 * right[1] - 100.0 * right[0]
    measured = effect(first, second)
    assert measured.n == len(differences) and measured.over == "images"
    assert measured.difference == pytest.approx(differences.mean())
    from scipy.stats import t

    half = t.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / np.sqrt(len(differences))
    assert measured.high - measured.difference == pytest.approx(half, rel=1e-5)


@pytest.mark.slow
def test_the_effect_on_balanced_accuracy_is_the_mean_over_classes(study):
    bank, ours = study / "banks" / "montgomery.bank", values_of(study)
    metric = "linear_mean_per_class_accuracy_pct"
    first, second = (ours.of(mode).get(MODEL, "montgomery", metric) for mode in ("default", "as-published"))
    scores = []
    for value in (first, second):
        table = read_predictions(bank, value.record).to_pandas()
        assert table.truth.value_counts().tolist() == [4, 3]
        scores.append(100 * (table.truth == table.predicted).groupby(table.truth).mean().mean())
    measured = effect(first, second)
    assert (measured.n, measured.over) == (7, "images")
    assert measured.difference == pytest.approx(scores[1] - scores[0])
    # Independent images with fixed weights: those of the mean over classes, 7 / (2 x images of the class).
    assert measured.low <= measured.difference <= measured.high


@pytest.mark.slow
def test_other_episodes_are_not_paired(study, tmp_path):
    bank = tmp_path / "montgomery.bank"
    shutil.copytree(study / "banks" / "montgomery.bank", bank)
    few = ("--n-way", 2, "--n-shot", 3, "--n-query", 2, "--episodes", 20, "--seed", 1)
    assert embank("fewshot", bank, "--model", MODEL, *few, "--device", "cpu").code == 0
    first, second = (values_of(bank).of(seed=seed).get(MODEL, "montgomery", FEW) for seed in (0, 1))
    measured = effect(first, second)
    assert not measured.paired and measured.reason == "other episodes"
    assert measured.high - measured.low == pytest.approx(2 * np.hypot(first.ci95, second.ci95))


@pytest.mark.slow
def test_few_shot_is_paired_over_the_same_episodes(study):
    ours = values_of(study)
    first, second = (ours.of(mode).get(MODEL, "montgomery", FEW) for mode in ("default", "as-published"))
    measured = effect(first, second)
    # The pool is below 10,001 images, so that both modes have the very same episodes.
    assert (measured.difference, measured.n, measured.over) == (0, 20, "episodes")


def test_a_study_without_banks_is_refused(tmp_path):
    (tmp_path / "banks").mkdir()
    with pytest.raises(Refused, match="has no bank"):
        values_of(tmp_path)


@pytest.mark.parametrize(
    "name, dataset",
    [
        ("chexpert.bank", "chexpert"),
        ("chexpert.as-published.bank", "chexpert"),
        ("bach.as-published-few-shot.bank", "bach"),
        ("chestx", "chestx"),
    ],
)
def test_banks_are_named_after_data_sets(name, dataset):
    assert dataset_of(name) == dataset


# --- documents made here ----------------------------------------------------------------------------------


def made(kind: str, asked: dict, metrics: dict, model: str = "byol", number: int = 0) -> RecordEntry:
    record = RunRecord(kind, asked, {"seed": 0}, metrics, {}, f"2026-01-01T00:00:{number:02}+00:00")
    return RecordEntry(f"{number:08}", f"records/{number}.json", record, None, model)


def ours(*entries: RecordEntry, dataset: str = "bach"):
    return ours_of([Source(dataset, place("/nowhere/x.bank"), entries)])


def test_every_kind_has_the_papers_metric():
    lpips = [
        {"image_id": "a", "lpips": {"alex": 0.2, "squeeze": 0.3, "vgg": None, "mean": None}},
        {"image_id": "a", "lpips": {"alex": 0.4, "squeeze": 0.5, "vgg": None, "mean": None}},
        {"image_id": "b", "lpips": {"alex": 0.9, "squeeze": 0.1, "vgg": None, "mean": None}},
    ]
    items = [{"attentive_diffusion": 0.25, "stride": 1}, {"attentive_diffusion": None, "reason": "corrupt"}]
    test = {"accuracy": 0.75, "mean_per_class_accuracy": 0.5}
    values = ours(
        made("fewshot", {"n_way": 5, "n_shot": 20, "episodes": 600}, {"accuracy": 0.5, "ci95": 0.01}),
        made("finetune", {"steps": 5000}, {"test": test, "images": {"test": 8}}),
        made("invariance", {"transform": "rotation"}, {"cosine": 0.5, "ci95": None, "n": 12}),
        made("invariance", {"transform": "h_flip"}, {"cosine": 0.25, "ci95": 0.125, "n": 12}),
        made("invariance", {"transform": "hue"}, {"cosine": 0.3, "ci95": 0.1, "n": 12}),
        made("invariance", {"transform": "blur"}, {"cosine": 0.4, "ci95": 0.1, "n": 12}),
        made("invariance", {"transform": "multi-view"}, {"cosine": 0.1, "ci95": 0.1, "n": 30}),
        made("saliency", {"mode": "default"}, {"items": items, "mean": 0.25, "interval": {"low": None}}),
        made("reconstruct", {"steps": 3000}, {"items": lpips, "lpips": {"reason": "no weights"}}),
        made("audit", {}, {"pairs": 3}),
    ).of()
    numbers = {value.metric: (value.value, value.ci95) for value in values if math.isfinite(value.value)}
    assert numbers == {
        "few_shot_5way_20shot_accuracy_pct": (50, pytest.approx(1)),
        "finetune_accuracy_pct": (75, None),
        "finetune_mean_per_class_accuracy_pct": (50, None),
        "rotation_invariance_cosine": (0.5, None),
        "hflip_invariance_cosine": (0.25, 0.125),
        "hue_invariance_cosine": (0.3, pytest.approx(0.1)),
        "multiview_invariance_cosine": (0.1, pytest.approx(0.1)),
        "attentive_diffusion": (0.25, None),
        "lpips_alex": (pytest.approx((0.3 + 0.9) / 2), None),
        "lpips_squeeze": (pytest.approx((0.4 + 0.1) / 2), None),
    }
    undefined = {value.metric: value.reason for value in values if not math.isfinite(value.value)}
    assert set(undefined) == {"lpips_vgg", "lpips_mean3"}
    assert "no weights" in undefined["lpips_vgg"]


def test_probes_of_several_findings_and_cross_validated_ones_are_left_out():
    metrics = {"test": {"accuracy": 0.5, "mean_per_class_accuracy": 0.5}}
    assert not ours(made("probe", {"multi_label": True}, metrics)).values
    assert not ours(made("probe", {"cross_validation": {"folds": 5}}, metrics)).values


def test_the_papers_own_protocol_counts_before_a_later_record():
    def few(queries: int, accuracy: float, number: int) -> RecordEntry:
        asked = {"n_way": 2, "n_shot": 20, "episodes": 600, "n_query": queries}
        return made("fewshot", asked, {"accuracy": accuracy, "ci95": 0.01}, number=number)

    metric = "few_shot_2way_20shot_accuracy_pct"
    assert ours(few(15, 0.5, 1), few(5, 0.75, 2)).of().get("byol", "bach", metric).value == 50
    assert ours(few(15, 0.5, 1), few(15, 0.75, 2)).of().get("byol", "bach", metric).value == 75


def test_modes_and_seeds_are_apart():
    def probe(mode: str, seed: int, accuracy: float) -> RecordEntry:
        body = {"test": {"accuracy": accuracy, "mean_per_class_accuracy": accuracy}}
        return made("probe", {"mode": mode, "seed": seed}, body)

    values = ours(probe("default", 1, 0.1), probe("default", 0, 0.2), probe("as-published", 0, 0.3))
    key = ("byol", "bach", "linear_accuracy_pct")
    assert values.modes == ("default", "as-published")
    assert values.of().get(*key).value == pytest.approx(20)
    assert values.of(seed=1).get(*key).value == pytest.approx(10)
    assert values.of("as-published").get(*key).value == pytest.approx(30)


def test_best_variants_are_the_largest_of_each_cell_and_say_of_which():
    rows = {
        ("mimic-chexpert-lr0.01", "bach"): 1.0,
        ("mimic-chexpert-lr1.0", "bach"): 3.0,
        ("mimic-chexpert-lr0.1", "bach"): math.nan,
        ("mimic-chexpert-lr0.01", "shenzhen"): 5.0,
        ("byol", "bach"): 9.0,
    }
    values = Values(Value(model, dataset, "m", number) for (model, dataset), number in rows.items())
    best = best_variants(values)
    assert {(v.model, v.dataset): v.value for v in best} == {
        ("mimic-chexpert", "bach"): 3.0,
        ("mimic-chexpert", "shenzhen"): 5.0,
    }
    assert "mimic-chexpert-lr1.0" in best.get("mimic-chexpert", "bach", "m").reason
    assert len(with_best_variants(values)) == len(rows) + 2


def test_models_count_by_their_slug_unless_two_features_share_it(tmp_path: Path) -> None:
    bank = make_probe_bank(tmp_path)
    features = np.zeros((ROWS, DIM), np.float32)
    keys = [
        make_key(bank.image_digest, model="supervised-r50+paper"),
        make_key(bank.image_digest, model=SECOND, weights="1" * 64),
    ]
    for key in keys:
        fill_with(bank, key, features)
    names = [info.name for info in bank.list()]
    slugs = slugs_of(bank.path)
    assert {slugs[name] for name in names if name in slugs} == {FIRST, "supervised-r50+paper"}
    entries = tuple(
        RecordEntry(
            f"{number:08x}",
            f"records/{number}.json",
            RunRecord.now(
                kind="fewshot",
                asked={"n_way": 2, "n_shot": 3, "mode": "default"},
                used={"feature": name},
                metrics={"accuracy": 0.5, "ci95": 0.1},
                seconds={},
            ),
            None,
            f"name {number}",
        )
        for number, name in enumerate(names)
    )
    models = {value.model for value in ours_of([Source("bach", bank.path, entries)]).values}
    shared = {entry.model for entry in entries if entry.feature not in slugs}
    assert len(shared) == 2 and models == {FIRST, "supervised-r50", *shared}
