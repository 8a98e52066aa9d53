"""Plans of studies: what is done, what is to do, how long it takes, how much disk."""

import shutil
from pathlib import Path

import pytest

from engine.errors import Refused
from engine.report.plan_text import print_plan
from engine.study.cells import cells_of
from engine.study.estimate import ARCHITECTURES, Estimate, cell_estimate, pass_estimate, rates_of
from engine.study.feasible import impossible
from engine.study.plan import Plan, plan
from engine.study.read import read_study
from engine.study.study import Cell, Model
from engine.study.supplies import lpips_lacks
from stores.bank.reader import Bank
from stores.bank.record_index import RecordEntry
from stores.bank.records import RunRecord
from tests.engine.study.drawn import run, study_file

#: With one evaluation that fails when it is evaluated, and one that the set cannot have.
EVALUATIONS = """
  fewshot: {n_way: 2, n_shot: 2, n_query: 2, episodes: 20, controls: false}
  knn: {k: [1], leave_one_out: true, controls: false}
  failing: {kind: knn, k: [1], train_split: none, compare: false, controls: false}
  capped: {kind: fewshot, n_way: 2, n_shot: 2, n_query: 2, cap: 4, modes: [as-published, default],
           episodes: 20, compare: false, controls: false}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study that has run, not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    run(study_file(folder, evaluations=EVALUATIONS), folder / "study")
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def planned(folder: Path) -> Plan:
    return plan(read_study(next(folder.glob("*.yaml"))), folder / "study")


def states(planned: Plan) -> dict[str, str]:
    """Return label -> state, without the data set."""
    return {one.cell.label.partition(" / ")[2]: one.state for one in planned.cells}


def test_before_a_run_everything_is_missing_and_estimated(made: Path) -> None:
    before = plan(read_study(next(made.glob("*.yaml"))), made / "not there")
    assert not (made / "not there").exists()
    assert set(states(before).values()) == {"missing", "impossible"}
    (own,) = before.passes
    # 24 pictures, float16; SqueezeNet 1.1 has 512 features, ResNet-18 has 512.
    assert (own.images, own.bytes, own.models) == (24, 24 * 2 * (512 + 512), before.passes[0].models)
    assert before.bytes() == own.bytes and before.seconds() > 0 and not before.measured
    assert before.notes and "AMD EPYC" in before.notes[0]


def test_after_a_run_cells_are_done_failed_or_impossible(made: Path) -> None:
    after = planned(made)
    expected = {"fewshot": "done", "knn": "done", "failing": "failed", "capped": "done"}
    expected["capped, as-published"] = "impossible"
    models = ("random/squeezenet1_1", "random/resnet18")
    assert states(after) == {
        **{f"{model} / {name}": state for model in models for name, state in expected.items()},
        "comparison of fewshot": "done",
        "comparison of knn": "done",
    }
    assert not after.passes and after.bytes() == 0
    failed = next(one for one in after.cells if one.state == "failed")
    assert "none" in failed.reason and failed.remedy
    never = next(one for one in after.cells if one.state == "impossible")
    assert "with a cap" in never.reason and never.seconds == 0


def test_a_cell_without_its_record_is_to_do_again_and_timed_by_the_others(folder: Path) -> None:
    bank = folder / "study" / "banks" / "set0.bank"
    (record, *_) = sorted(path for path in (bank / "records").glob("*-knn-*.json"))
    record.unlink()
    todo = {one.cell.label: one for one in planned(folder).todo if one.state == "missing"}
    # The comparison is of records that are not all there any more.
    assert sorted(one.cell.kind for one in todo.values()) == ["compare", "knn"]
    assert all(one.measured and one.seconds > 0 for one in todo.values())


def test_a_bank_of_another_manifest_has_nothing_that_is_done(folder: Path) -> None:
    shutil.rmtree(folder / "study" / "banks" / "set0.bank" / "records")
    after = planned(folder)
    assert "done" not in states(after).values()
    assert not after.passes  # the features are there


def test_models_that_a_given_bank_lacks_are_said_to_be_lacking(folder: Path) -> None:
    bank = folder / "study" / "banks" / "set0.bank"
    shutil.copytree(bank, folder / "own.bank")
    text = "study: other\ndatasets: {own: {bank: own.bank}}\nmodels: [random/resnet18, moco-v2]\n"
    (folder / "other.yaml").write_text(f"{text}evaluations: [fewshot, saliency]\n", "utf-8")
    other = plan(read_study(folder / "other.yaml"), folder / "other")
    lacking = {(one.cell.model, one.cell.kind) for one in other.cells if one.lacks}
    assert lacking == {("moco-v2", "fewshot"), ("moco-v2", "saliency"), ("", "compare")}
    assert not other.passes
    assert Bank.open(folder / "own.bank").rows == 24


def test_what_a_data_set_cannot_have_is_known_before_it_is_made(tmp_path: Path) -> None:
    text = """\
study: s
datasets: [digits, tiles]
models: [efficientnet-lite0, random/resnet18]
modes: [default, as-published]
evaluations:
  fewshot: {n_way: 5}
  large: {kind: fewshot, n_way: 3, n_shot: 60, n_query: 10}
  curve: {kind: probe, low_shot: [1]}
  multiview:
"""
    path = tmp_path / "s.yaml"
    path.write_text(text, "utf-8")
    study = read_study(path)
    whys = impossible(study, tmp_path / "s", cells_of(study))
    cells = {cell.digest: cell for cell in cells_of(study)}
    unable = {(cells[digest].dataset, cells[digest].evaluation, cells[digest].mode) for digest in whys}
    assert unable == {
        ("tiles", "fewshot", "default"),  # three classes
        ("tiles", "fewshot", "as-published"),
        ("tiles", "large", "default"),  # one of them has 64 pictures
        ("tiles", "large", "as-published"),
        ("digits", "curve", "as-published"),  # the study probed with all images
        ("tiles", "curve", "as-published"),
        ("digits", "multiview", "default"),
        ("tiles", "multiview", "default"),
    }
    # Each for two models, and for their comparison where there is one.
    assert len(whys) == 6 * 3 + 2 * 2
    assert all(why.reason and why.remedy for why in whys.values())


def test_the_plan_fits_80_columns_and_says_the_totals(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    after = planned(made)
    print_plan(after.to_dict())
    text = capsys.readouterr().out
    table = [line for line in text.splitlines() if "  " in line.strip() or line.startswith("To ")]
    assert table and max(map(len, table)) <= 80
    assert "12 cells: 8 done, 2 failed, 2 impossible." in text
    assert "Failed last time:" in text and "Cannot be made:" in text


def embedded(slug: str, encode: float, decode: float) -> RecordEntry:
    """Return a record of 100 images embedded in a pass of these busy seconds."""
    stages = {"encode": {"busy_s": encode, "images": 100}, "decode": {"busy_s": decode, "images": 100}}
    record = RunRecord.now("embed", asked={"model": slug}, used={}, metrics={}, seconds={"stages": stages})
    return RecordEntry(slug, "records/x.json", record)


def test_a_pass_is_estimated_by_passes_like_it() -> None:
    models = [Model(slug, slug) for slug in ("random/resnet18", "random/resnet50")]
    # A record's times are of its whole pass, which both models shared: 8 s of encoding, not 16.
    both = [embedded(model.slug, encode=8.0, decode=2.0) for model in models]
    rates = rates_of(both, (), 224)
    assert pass_estimate(models, 1000, None, rates) == Estimate(pytest.approx(80.0), True)
    # Decoding is the slower stage of a small network.
    slow = rates_of([embedded("random/resnet18", encode=1.0, decode=2.0)], (), 224)
    assert pass_estimate(models[:1], 1000, None, slow) == Estimate(pytest.approx(20.0), True)
    assert not pass_estimate(models, 1000, None, rates_of((), (), 224)).measured


def test_a_cell_is_estimated_by_its_kind_and_model_before_its_kind() -> None:
    def knn(model: str, seconds: float) -> tuple[Cell, RecordEntry, float]:
        cell = Cell("set", model, "knn", "knn", "default", 0)
        record = RunRecord.now("knn", asked={}, used={}, metrics={}, seconds={"total": seconds})
        return cell, RecordEntry(model, "records/x.json", record), 2.0  # seconds by the table

    rates = rates_of((), [knn("a", 4.0), knn("a", 8.0), knn("b", 20.0)], 224)
    # Medians of 2, 4 and 10 times the table's.
    assert cell_estimate(knn("a", 0.0)[0], 10.0, rates) == Estimate(30.0, True)
    assert cell_estimate(knn("c", 0.0)[0], 10.0, rates) == Estimate(40.0, True)
    other = Cell("set", "a", "audit", "audit", "default", 0)
    assert cell_estimate(other, 10.0, rates) == Estimate(10.0, False)


@pytest.mark.slow
def test_lengths_of_features_that_are_known_without_torch_are_those_of_the_networks() -> None:
    from engine.models.backbones import architectures

    for name, (_, length) in ARCHITECTURES.items():
        assert architectures.dimension(name, 224) == length


def test_lpips_lacks_the_weights_of_its_trunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.models.perceptual import SLUGS

    monkeypatch.setenv("EMBANK_CACHE", str(tmp_path))
    assert [why.remedy for why in lpips_lacks()] == [f"run `embank models fetch {s}`" for s in SLUGS.values()]


def test_a_study_is_not_planned_into_what_it_reads(folder: Path) -> None:
    text = "study: other\ndatasets: {own: {bank: study/banks/set0.bank}}\nmodels: [random/resnet18]\n"
    (folder / "other.yaml").write_text(f"{text}evaluations: [audit]\n", "utf-8")
    study = read_study(folder / "other.yaml")
    assert {one.state for one in plan(study, folder / "other").cells} == {"missing"}
    with pytest.raises(Refused, match="own is read from"):
        plan(study, folder / "study")
