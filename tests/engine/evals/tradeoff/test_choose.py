"""The choice among models of a bank: what is judged, what is probed, what it costs, and what is printed."""

import csv
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import embank
from engine.errors import EmbankError, Refused
from engine.evals.common.validity import ValidityIssue
from engine.evals.comparison.result import Comparison, Pair, Part, Setting
from engine.evals.neighbours.knn import KnnOptions, knn_from_bank
from engine.evals.probe.bank import BankProbe, probes_from_bank
from engine.evals.probe.options import ProbeOptions, SplitOptions
from engine.evals.tradeoff.evaluate import choose_model, orders_of
from engine.evals.tradeoff.words import verdict_of
from stores.bank import documents
from stores.bank.reader import Bank
from stores.bank.record_index import read_index
from stores.bank.records import RunRecord, attached_name, read_all
from stores.bank.writer import FeatureWriter
from stores.json_types import JsonObject
from tests.command import embank as run
from tests.probe_banks import DIM, FIRST, ROWS, SECOND, fill_with, make_probe_bank
from tests.stores.banks import make_key

QUICK: dict[str, Any] = {"resamples": 200, "device": "cpu", "threads": 1}
WORSE = "random/resnet18"


def timed(bank: Path, model: str, images: int, busy: float, device: str = "cpu", **seconds: Any) -> None:
    """Keep a record of a model's embedding; `seconds` replace its own clock."""
    clock = {"images": images, "busy_s": busy, "img_per_s": round(images / busy, 3)}
    feature = Bank.open(bank).features(model).name
    RunRecord.now(
        kind="embed",
        asked={"model": model},
        used={"feature": feature, "device": device, "encoder": {"flags": {"threads": 2}}},
        metrics={},
        seconds=seconds or {"total": busy, "encode": clock},
    ).write(bank)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models: two whose features know the labels, and a wider one of noise."""
    bank = make_probe_bank(tmp_path_factory.mktemp("choice"))
    noise = np.random.default_rng(5).normal(size=(ROWS, 2 * DIM)).astype(np.float32)
    fill_with(bank, make_key(bank.image_digest, model=WORSE), noise)
    path = Path(str(bank.path))
    for model, seconds in ((FIRST, 2.4), (SECOND, 4.8), (WORSE, 2.4)):
        timed(path, model, ROWS, seconds)
    choose_model(path, **QUICK)
    return path


@pytest.fixture
def bank(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "bank"))


def test_it_is_the_comparison_beside_the_costs(made: Path) -> None:
    choice, records = choose_model(made, **QUICK), read_all(made)
    assert sum(record.kind == "probe" for record in records) == 3, "probed once, and then taken as they are"
    compared = embank.compare(made, "probe", common=True, resamples=200, threads=1)
    assert choice.comparison.pairs == compared.pairs
    assert [candidate.standing for candidate in choice.candidates] == list(compared.parts[0].standings)
    costs = {candidate.standing.model: candidate.costs.costs for candidate in choice.candidates}
    for model, rate in ((FIRST, 100), (SECOND, 50), (WORSE, 100)):
        array = Bank.open(made).features(model).array
        assert costs[model].img_per_s == pytest.approx(rate)
        assert (costs[model].dim, costs[model].bytes_per_row) == (array.shape[1], array.nbytes // len(array))


def test_the_set_follows_from_tests_and_costs(made: Path) -> None:
    """The best model encodes half as many images as the next, from which the wider third cannot be told."""
    choice = choose_model(made, **QUICK)
    different = {(pair.a, pair.b) for pair in choice.comparison.pairs if pair.different}
    assert different == {(SECOND, FIRST), (SECOND, WORSE)}
    assert choice.members == (SECOND, FIRST)
    by = {candidate.standing.model: candidate.replaced_by for candidate in choice.candidates}
    assert by == {SECOND: (), FIRST: (), WORSE: (FIRST,)}
    text = " ".join(choice.verdict)
    assert f"among 2 of 3 models: {SECOND} and {FIRST}" in text
    assert f"{FIRST} encodes 2.0 times as many images a second as {SECOND}" in text


def test_what_is_told_follows_the_metric_and_needs_a_test() -> None:
    pairs = [
        Pair("a", "b", -0.5, -0.9, -0.1, 0.001, 0.003, "t", True),
        Pair("a", "c", -0.6, -1.0, 0.2, 0.2, 0.4, "t", False),
        Pair("b", "c", -0.1, math.nan, math.nan, math.nan, math.nan, "t", False, "one patient"),
        Pair("c", "d", 0.0, 0.0, 0.0, math.nan, math.nan, "t", False, "no difference in any resample"),
        Pair("a", "undefined", math.nan, math.nan, math.nan, math.nan, math.nan, "t", False, "one class"),
    ]
    expected = {"log_loss": ("a", "b"), "auroc": ("b", "a")}
    for metric, winner in expected.items():
        setting = Setting("probe", metric, "label", 9, 9, "images", 200, 0, "percentile", 0.05, 3)
        better, alike = orders_of("abcd", Comparison(setting, (Part("", (), tuple(pairs), ()),)))
        assert [("abcd"[i], "abcd"[j]) for i, j in np.argwhere(better)] == [winner]
        assert {frozenset(("abcd"[i], "abcd"[j])) for i, j in np.argwhere(alike)} == {
            frozenset("ac"),
            frozenset("cd"),
        }


def test_what_the_catalogue_says_of_licences(bank: Path) -> None:
    store = Bank.open(bank)
    note = store.path / ".embank"
    for model, source in (("moco-v2", "published by its authors"), ("swav", "file mine.pth")):
        key = make_key(store.image_digest, model=model)
        fill_with(store, key, np.random.default_rng(1).normal(size=(ROWS, DIM)).astype(np.float32))
        feature = store.features(model).name
        body = {"model": model, "weights_source": source}
        documents.replace(note / feature / "provenance.json", body, note / "tmp" / model)
    choice = choose_model(bank, models=["moco-v2", "swav"], **QUICK)
    costs = {candidate.standing.model: candidate.costs for candidate in choice.candidates}
    assert (costs["moco-v2"].licence, costs["moco-v2"].costs.commercial) == ("repository CC BY-NC 4.0", False)
    assert (costs["swav"].licence, costs["swav"].costs.commercial) == ("", None), (
        "not of the user's own weights"
    )
    assert any("licence of moco-v2 forbids commercial use" in sentence for sentence in choice.verdict)
    assert any("swav may be used commercially is unclear" in sentence for sentence in choice.verdict)


def test_rates_of_other_machines_and_of_shared_passes_are_unknown(bank: Path) -> None:
    timed(bank, FIRST, ROWS + 1, 0.1, device="cuda:0")
    for record in (bank / "records").glob("*-embed-*.json"):
        if json.loads(record.read_text())["asked"]["model"] != FIRST:
            record.unlink()
    for model in (SECOND, WORSE):
        timed(bank, model, ROWS, 1.0, total=7.0, stages={"encode": {"images": ROWS, "busy_s": 3.0}})
    costs = {c.standing.model: c.costs for c in choose_model(bank, **QUICK).candidates}
    assert (
        costs[FIRST].costs.img_per_s == pytest.approx((ROWS + 1) / 0.1) and costs[FIRST].machine == "cuda:0"
    )
    for model in (SECOND, WORSE):
        assert math.isnan(costs[model].costs.img_per_s)
        assert costs[model].rate_reason == "embedded in one pass with 1 other, whose time was not kept apart"
    for model in (SECOND, WORSE):
        timed(bank, model, ROWS, 3.0)
    costs = {c.standing.model: c.costs for c in choose_model(bank, **QUICK).candidates}
    assert (
        "measured on cuda:0" in costs[FIRST].rate_reason
        and "others on cpu, 2 threads" in costs[FIRST].rate_reason
    )
    assert costs[SECOND].costs.img_per_s == pytest.approx(ROWS / 3)


def test_a_bank_without_records_of_embedding_is_chosen_from_without_rates(bank: Path) -> None:
    for record in (bank / "records").glob("*-embed-*.json"):
        record.unlink()
    choice = choose_model(bank, **QUICK)
    assert choice.members == (SECOND,), "better, and no dearer in what is known"
    assert {c.costs.rate_reason for c in choice.candidates} == {"the bank has no record of its embedding"}
    assert "No rate is known of any model: they are chosen among without it" in choice.notes


def test_one_model_leaves_nothing_to_choose(made: Path) -> None:
    choice = choose_model(made, models=[FIRST], **QUICK)
    assert choice.members == (FIRST,) and choice.comparison.pairs == ()
    assert choice.verdict[0].startswith(f"There is one model, {FIRST}, and nothing to choose from")
    with pytest.raises(Refused, match="named once"):
        choose_model(made, models=[FIRST, FIRST], **QUICK)


def test_settings_of_the_users_own_are_taken_and_those_without_are_named(bank: Path) -> None:
    held_out = BankProbe(splits=SplitOptions(fraction=0.4))
    fast = ProbeOptions(C=(0.01, 1.0), bootstrap=0, threads=1)
    probes_from_bank(bank, [FIRST, SECOND], held_out, fast)
    choice = choose_model(bank, **QUICK)
    assert {candidate.standing.model for candidate in choice.candidates} == {FIRST, SECOND}
    (note,) = [note for note in choice.notes if "not judged" in note]
    assert note.startswith(f"{WORSE} is not judged") and f"`embank probe {bank} --model {WORSE}`" in note


def test_neighbours_are_judged_by_their_records(bank: Path) -> None:
    with pytest.raises(Refused, match="no record of knn") as refused:
        choose_model(bank, evaluation="knn", **QUICK)
    assert f"`embank knn {bank} --model all`" in refused.value.remedy
    assert run("knn", bank, "--model", "all", "--device", "cpu").code == 0
    assert len(choose_model(bank, evaluation="knn", **QUICK).candidates) == 3
    knn_from_bank(bank, FIRST, KnnOptions(k=(3,), device="cpu", threads=1))
    assert choose_model(bank, evaluation="knn", **QUICK).members == (FIRST,)


def test_what_cannot_be_probed_says_how_it_could_be(bank: Path) -> None:
    with pytest.raises(Refused, match="has no column 'nothing'") as refused:
        choose_model(bank, "nothing", **QUICK)
    assert refused.value.remedy == "choose one of them"
    with pytest.raises(Refused) as refused:
        choose_model(bank, "split", **QUICK)
    assert f"`embank probe {bank} --model all --label split`" in refused.value.remedy
    with pytest.raises(Refused, match="Only probes learn another column"):
        choose_model(bank, "edema", evaluation="knn", **QUICK)
    for refusing in ({"evaluation": "embed"}, {"margin": 2.0}, {"mode": "paper"}, {"metric": "speed"}):
        with pytest.raises(Refused):
            choose_model(bank, **{**QUICK, **refusing})


def rewrite(bank: Path, models: tuple[str, ...], change: Callable[[RunRecord], RunRecord]) -> None:
    """Put changed probes of models in the place of those that are there."""
    for entry in read_index(Bank.open(bank).path):
        if entry.record is None or entry.record.kind != "probe" or entry.model not in models:
            continue
        path = change(entry.record).write(bank)
        for table in entry.record.predictions:
            attached = bank / "records" / attached_name(entry.name, table)
            attached.rename(bank / "records" / attached_name(path.name, table))
        (bank / entry.path).unlink()


def set_validity(bank: Path, models: tuple[str, ...], code: str, below: bool = False) -> None:
    """Give the probes of models an error, as a record has it."""
    issue = ValidityIssue(code, "error", f"{code} it is", 1, "a rule", "a remedy").to_dict()
    part: JsonObject = {"metric": "mean_per_class_accuracy", "finding": "", "control": "metadata"}
    of_control: JsonObject = (
        {"below_control": [{**part, "control_value": 1.0, "value": 0.5}]} if below else {}
    )
    rewrite(
        bank,
        models,
        lambda record: replace(record, validity=[issue], metrics={**record.metrics, **of_control}),
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda record: replace(record, used={**record.used, "manifest_digest": "0" * 64}),
        lambda record: replace(record, used={**record.used, "key": "0" * 64}),
        lambda record: replace(record, asked={**record.asked, "mode": "as-published"}),
        lambda record: replace(record, asked={**record.asked, "multi_label": True}),
    ],
    ids=["other labels", "another feature", "another mode", "findings"],
)
def test_records_of_something_else_do_not_count(bank: Path, change: Callable[[RunRecord], RunRecord]) -> None:
    rewrite(bank, (SECOND,), lambda record: replace(change(record), created="2999-01-01T00:00:00+00:00"))
    (other,) = [e.id for e in read_index(Bank.open(bank).path) if e.model == SECOND and "-probe-" in e.path]
    choice = choose_model(bank, **QUICK)
    assert len(choice.candidates) == 3, "it was probed again"
    assert other not in {candidate.standing.record for candidate in choice.candidates}


def test_a_model_whose_numbers_are_no_evidence_is_not_judged(bank: Path) -> None:
    """The best model would be in the set, and replace the worst one if it were faster."""
    set_validity(bank, (SECOND,), "patients_across_parts")
    choice = choose_model(bank, **QUICK)
    (best,) = [one for one in choice.candidates if one.standing.model == SECOND]
    assert not best.member and best.reason == "its numbers are no evidence: patients_across_parts it is"
    assert best.to_dict()["validity"] == list(best.validity) != []
    assert choice.members == (FIRST,)
    assert choice.verdict[0].startswith(f"Take {FIRST}: it costs no more than the other model")
    assert choice.verdict[1] == f"Not judged: {SECOND}, whose numbers are no evidence."
    set_validity(bank, (FIRST,), "not_finite_rows")
    choice = choose_model(bank, **QUICK)
    assert choice.members == (WORSE,) and f"{WORSE} is the only model that can be judged" in choice.verdict[0]
    set_validity(bank, (WORSE,), "not_finite_rows")
    choice = choose_model(bank, **QUICK)
    assert choice.members == () and choice.verdict[0].startswith(
        "There is no choice yet: the numbers of no model are evidence."
    )
    ran = run("models", "choose", bank, "--device", "cpu", "--resamples", 200, "-o", bank.parent / "none.svg")
    assert ran.code == 0 and "There is no choice yet" in ran.out and "error: " in ran.out, ran.err


def test_a_control_counts_where_it_is_better_in_the_metric_that_is_judged(bank: Path) -> None:
    set_validity(bank, (SECOND,), "below_control")
    assert choose_model(bank, **QUICK).members == (SECOND, FIRST), "it is below one in another metric alone"
    set_validity(bank, (SECOND,), "below_control", below=True)
    assert choose_model(bank, **QUICK).members == (FIRST,)


def test_a_model_without_a_value_is_not_judged(made: Path) -> None:
    document = choose_model(made, **QUICK).to_dict()
    models: Any = document["models"]
    for model in models:
        model["value"] = math.nan
    assert "undefined for every model" in verdict_of({**document, "reason": "one class"})[0]


def test_a_refused_choice_leaves_nothing_behind(bank: Path) -> None:
    """Of two models one can be probed, and is not: the other has no finished embedding."""
    store = Bank.open(bank)
    key = make_key(store.image_digest, model="swav")
    fill_with(store, key, np.zeros((ROWS, DIM), np.float32), failed=tuple(range(ROWS)))
    with FeatureWriter(store, make_key(store.image_digest, model="byol"), DIM):
        pass
    notes = choose_model(bank, models=(), **QUICK).notes
    assert {note for note in notes if "is not judged" in note} == {
        "swav is not judged: no image has an embedding",
        "byol is not judged: its embedding is not finished",
    }
    for record in (bank / "records").glob("*-probe-*"):
        record.unlink()
    before = sorted(path.name for path in (bank / "records").iterdir())
    for model in ("swav", "byol"):
        with pytest.raises(EmbankError):
            choose_model(bank, models=[FIRST, model], **QUICK)
    with pytest.raises(Refused):
        choose_model(bank, metric="attentive_diffusion", **QUICK)
    with pytest.raises(Refused):
        choose_model(bank, alpha=2.0, **QUICK)
    assert sorted(path.name for path in (bank / "records").iterdir()) == before


def test_the_command_prints_draws_and_writes(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = ("models", "choose", made, "--device", "cpu", "--resamples", 200, "--threads", 1)
    ran = run(*words, "-o", tmp_path / "new" / "choice.svg")
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert max(len(line) for line in lines if " " in line and str(tmp_path) not in line) <= 80
    assert lines[0].startswith("warning: ") and "3 of 240 images have no embedding" in lines[0]
    assert any(line.startswith("The choice is among 2 of 3 models") for line in lines)
    assert "A model is left out of the set if a member costs no more in anything" in ran.out
    assert any("no: 2 instead" in line for line in lines)
    svg = (tmp_path / "new" / "choice.svg").read_text()
    assert "images encoded a second" in svg.replace("<!-- ", "") and "models choose" in svg
    ran = run(*words, "--json", "-o", tmp_path / "choice.csv")
    document = json.loads(ran.out)
    assert document["set"] == [SECOND, FIRST] and document["bank"] == str(made)
    with (tmp_path / "choice.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == [model["model"] for model in document["models"]]
    assert [row["in_set"] for row in rows] == ["True", "True", "False"]
    assert float(rows[0]["value"]) == document["models"][0]["value"]
