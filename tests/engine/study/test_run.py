"""Runs of studies: what they make, what they make again, and what stops them or does not."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from torchvision import models

from engine.errors import MachineFault, Refused
from engine.evals.fewshot.bank import fewshots_from_bank
from engine.evals.fewshot.evaluate import Protocol
from engine.study.failures import failures_of
from engine.study.ledger import Ledger
from engine.study.progress import Hooks, State
from engine.study.read import read_study
from engine.study.reporting import write_report
from engine.study.status import states_of
from engine.study.study import Cell
from stores.bank.records import together
from stores.manifest.manifest import Manifest
from tests.engine.study.drawn import run, study_file

LABELS = [
    "set0 / random/squeezenet1_1 / fewshot",
    "set0 / random/resnet18 / fewshot",
    "set0 / comparison of fewshot",
    "set0 / random/squeezenet1_1 / knn",
    "set0 / random/resnet18 / knn",
    "set0 / comparison of knn",
    "set0 / random/squeezenet1_1 / audit",
    "set0 / random/resnet18 / audit",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study file, and the study below it, made once and not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    _, outcome = run(study_file(folder), folder / "study")
    assert (outcome.cells, outcome.made, outcome.done, outcome.failures) == (8, 8, 8, ())
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def records(folder: Path) -> list[Path]:
    return sorted((folder / "study" / "banks" / "set0.bank" / "records").glob("*.json"))


def test_each_cell_has_one_record_of_the_evaluation_itself(made: Path) -> None:
    states = states_of(read_study(made / "killed.yaml"), made / "study")
    assert sorted(state.cell.label for state in states) == sorted(LABELS)
    assert {state.state for state in states} == {"done"}
    bank = made / "study" / "banks" / "set0.bank"
    with together(write=False):  # as by hand, from the same bank
        own = fewshots_from_bank(bank, ["random/resnet18"], Protocol(2, 2, 2, 20), threads=1)[0]
    entry = next(s.entry for s in states if s.cell.label == "set0 / random/resnet18 / fewshot")
    assert entry is not None and entry.record is not None
    assert entry.record.metrics["accuracy"] == own["accuracy"]
    assert len(Ledger.of(bank).entries) == 8 and len(records(made)) == 8 + 2, "and one of each embedding"


def test_a_second_run_makes_nothing(folder: Path) -> None:
    run(folder / "killed.yaml", folder / "study")  # notes that paths start elsewhere now
    before = {path: path.stat().st_mtime_ns for path in (folder / "study").rglob("*") if path.is_file()}
    _, outcome = run(folder / "killed.yaml", folder / "study")
    assert (outcome.made, outcome.done) == (0, 8)
    after = {path: path.stat().st_mtime_ns for path in (folder / "study").rglob("*") if path.is_file()}
    lock = folder / "study" / "lock"
    assert {path for path in after if after[path] != before.get(path)} <= {lock} and len(after) == len(before)


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        ("side: 32", "side: 48", "recipe"),
        ("side: 32", "side: 32, dtype: float32", "dtype"),
        ("decoder: reference", "decoder: turbo", "decoder"),
    ],
)
def test_other_features_than_those_of_a_finished_study_are_noticed(
    folder: Path, before: str, after: str, what: str
) -> None:
    file, text = folder / "killed.yaml", (folder / "killed.yaml").read_text()
    file.write_text(text.replace(before, after))
    study, outcome = run(file, folder / "study")
    assert outcome.made == 0 and len(outcome.failures) == 6, "of all cells but comparisons"
    assert all(f"was made with another {what}" in failure.value for failure in outcome.failures)
    assert [state.state for state in states_of(study, folder / "study")].count("failed") == 6
    features = list((folder / "study" / "banks" / "set0.bank").glob("random-*"))
    assert len(features) == 2, "nothing was embedded"
    file.write_text(text)
    study, outcome = run(file, folder / "study")
    assert (outcome.made, outcome.done) == (0, 8)
    assert {state.state for state in states_of(study, folder / "study")} == {"done"}


def test_other_weights_under_the_same_name_are_noticed(tmp_path: Path) -> None:
    file, weights = study_file(tmp_path, 0), tmp_path / "mine.pth"
    model = "  - {model: torchvision/squeezenet1_1, name: mine, weights: mine.pth}\n"
    file.write_text(file.read_text().replace("models:\n", f"models:\n{model}"))
    for seed, failed in ((0, 0), (1, 3)):
        torch.manual_seed(seed)
        torch.save(models.squeezenet1_1(weights=None).state_dict(), weights)
        _, outcome = run(file, tmp_path / "study")
        assert len(outcome.failures) == failed
    assert all("made with other weights" in failure.value for failure in outcome.failures)
    weights.unlink()
    assert run(file, tmp_path / "study")[1].failures == ()


def test_another_folder_of_a_finished_study_is_noticed(tmp_path: Path) -> None:
    file = study_file(tmp_path, 1)
    for folder, count in (("first", 16), ("second", 12)):
        for row in range(count):
            target = tmp_path / folder / "train" / "ab"[row % 2]
            target.mkdir(parents=True, exist_ok=True)
            shutil.copy(tmp_path / "set0" / f"{row}.png", target)
    text = file.read_text().replace("{manifest: set0.parquet}", "{builtin: imagefolder, folder: first}")
    file.write_text(text)
    assert run(file, tmp_path / "study")[1].failures == ()
    file.write_text(text.replace("folder: first", "folder: second"))
    _, outcome = run(file, tmp_path / "study")
    assert len(outcome.failures) == 3 and "set0.bank" in outcome.failures[0].value
    file.write_text(text)
    _, outcome = run(file, tmp_path / "study")
    assert (outcome.made, outcome.done) == (0, 3)


def test_another_manifest_of_a_finished_study_is_noticed(folder: Path) -> None:
    manifest = folder / "set0.parquet"
    frame = Manifest.read(manifest).frame
    frame["label"] = ["ab"[row % 3 == 0] for row in range(len(frame))]
    manifest.unlink()
    assert run(folder / "killed.yaml", folder / "study")[1].failures == (), "what is made is still right"
    Manifest.from_frame(frame, folder / "set0").write(manifest)
    _, outcome = run(folder / "killed.yaml", folder / "study")
    assert len(outcome.failures) == 6 and "other labels" in outcome.failures[0].value
    shutil.rmtree(folder / "study" / "banks" / "set0.bank")  # as the remedy says
    _, outcome = run(folder / "killed.yaml", folder / "study")
    assert (outcome.made, outcome.failures) == (8, ())


def test_an_added_evaluation_is_all_that_is_made(folder: Path) -> None:
    file = folder / "killed.yaml"
    file.write_text(file.read_text() + "  votes: {kind: knn, k: [3], leave_one_out: true, controls: false}\n")
    _, outcome = run(file, folder / "study")
    assert (outcome.made, outcome.cells) == (3, 11), "two models and their comparison"
    assert (folder / "study" / "study.yaml").read_text() == file.read_text()


def test_an_interrupted_run_goes_on(folder: Path) -> None:
    for path in records(folder):
        if "embed" not in path.name:
            path.unlink()
    states: list[tuple[str, str]] = []

    def stop(cell: Cell, state: State) -> None:
        states.append((cell.label, state))
        if len([one for one in states if one[1] == "done"]) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(folder / "killed.yaml", folder / "study", Hooks(on_state=stop))
    assert len(records(folder)) == 2 + 3 and not (folder / "study" / "now.json").exists()
    _, outcome = run(folder / "killed.yaml", folder / "study")
    assert (outcome.made, outcome.done) == (5, 8)
    assert len(records(folder)) == 2 + 8
    assert states[0] == (LABELS[0], "running") and states[1] == (LABELS[0], "done")


def test_a_full_disk_ends_the_run_and_the_next_one_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = [path for path in records(folder) if "knn" in path.name]
    for path in lost:
        path.unlink()
    link = os.link

    def full(source: object, target: object, **options: object) -> None:
        if "-knn-" in str(target):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        link(source, target, **options)

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(MachineFault):
        run(folder / "killed.yaml", folder / "study")
    assert not list((folder / "study").glob("failures/*")), "the disk is at fault, and not the cell"
    monkeypatch.undo()
    _, outcome = run(folder / "killed.yaml", folder / "study")
    # Both cells, and their comparison, which is of records that are not there any more.
    assert (outcome.made, outcome.done) == (3, 8)


def test_weights_that_cannot_be_read_fail_their_cells_alone(tmp_path: Path) -> None:
    file = study_file(tmp_path, 1)
    text = file.read_text()
    model = "  - {model: torchvision/squeezenet1_NUMBER, name: NAME, weights: NAME.pth}\n"
    mine, hollow = (
        model.replace("NAME", name).replace("NUMBER", n) for name, n in (("mine", "1"), ("hollow", "0"))
    )
    file.write_text(text.replace("models:\n", f"models:\n{mine}{hollow}"))
    (tmp_path / "mine.pth").write_bytes(b"\x80\x02garbage" * 99)  # refused when it is read
    state = models.squeezenet1_0(weights=None).state_dict()
    state["features.0.bias"] *= float("nan")
    torch.save(state, tmp_path / "hollow.pth")  # refused when it is to embed
    study, outcome = run(file, tmp_path / "study")
    failed = {failure.label for failure in outcome.failures}
    kinds = ("fewshot", "knn", "audit")
    assert failed == {
        *(f"set0 / {name} / {kind}" for name in ("mine", "hollow") for kind in kinds),
        *(f"set0 / comparison of {kind}" for kind in kinds[:2]),
    }
    assert outcome.made == 3
    documents = list((tmp_path / "study" / "failures").glob("*.json"))
    assert {json.loads(path.read_text())["label"] for path in documents} == failed
    assert all("mine.pth" in one.value for one in outcome.failures if "/ mine /" in one.label)
    assert {state.state for state in states_of(study, tmp_path / "study")} == {"done", "failed"}
    torch.manual_seed(0)
    torch.save(models.squeezenet1_1(weights=None).state_dict(), tmp_path / "mine.pth")
    _, outcome = run(file, tmp_path / "study")
    assert outcome.made == 5, "and comparisons of those that are there"
    assert {failure.label for failure in outcome.failures} == {f"set0 / hollow / {kind}" for kind in kinds}
    assert len(list((tmp_path / "study" / "failures").glob("*.json"))) == 3


def test_missing_images_fail_their_data_set_alone(tmp_path: Path, made: Path) -> None:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "killed.yaml"
    shutil.copy(made / "set0.parquet", tmp_path / "gone.parquet")
    text = file.read_text().replace(
        "datasets:\n", "datasets:\n  gone: {manifest: gone.parquet, root: nowhere}\n"
    )
    file.write_text(text)
    (tmp_path / "nowhere").mkdir()
    study, outcome = run(file, tmp_path / "study")
    assert outcome.made == 0 and len(outcome.failures) == 8 and outcome.done == 8
    assert all(failure.label.startswith("gone / ") for failure in outcome.failures)
    assert all(failure.exit_code == 2 for failure in outcome.failures)
    cells = {state.cell.digest: state.cell for state in states_of(study, tmp_path / "study")}
    assert len(failures_of(tmp_path / "study", cells)) == 8


def test_failures_of_cells_that_the_study_no_longer_has_go(folder: Path) -> None:
    file, text = folder / "killed.yaml", (folder / "killed.yaml").read_text()
    many = "  many: {kind: fewshot, n_way: 2, n_shot: 900, n_query: 2, episodes: 20, controls: false}\n"
    file.write_text(text + many)
    assert (
        len(run(file, folder / "study")[1].failures) == len(list(folder.glob("study/failures/*.json"))) == 3
    )
    file.write_text(text)
    assert run(file, folder / "study")[1].failures == ()
    assert not list(folder.glob("study/failures/*.json"))


def test_a_bank_that_a_study_names_is_evaluated_where_it_is(folder: Path) -> None:
    file = folder / "bank.yaml"
    (folder / "study" / "banks" / "set0.bank").rename(folder / "own.bank")
    text = (folder / "killed.yaml").read_text().replace("killed", "banked")
    file.write_text(text.replace("{manifest: set0.parquet}", "{bank: own.bank}"))
    before = len(list((folder / "own.bank" / "records").glob("*.json")))
    _, outcome = run(file, folder / "banked")
    assert (outcome.made, outcome.failures) == (0, ()), "these very cells are done"
    file.write_text(file.read_text().replace("n_shot: 2", "n_shot: 3"))
    _, outcome = run(file, folder / "banked")
    assert outcome.made == 3 and not (folder / "banked" / "banks").exists()
    assert len(list((folder / "own.bank" / "records").glob("*.json"))) == before + 3


def test_a_folder_of_something_else_is_refused(folder: Path) -> None:
    other = (folder / "killed.yaml").read_text().replace("study: killed", "study: other")
    (folder / "other.yaml").write_text(other)
    with pytest.raises(Refused, match="the folder of the study 'killed'"):
        run(folder / "other.yaml", folder / "study")
    with pytest.raises(Refused, match="holds something else"):
        run(folder / "killed.yaml", folder)


def test_the_report_is_made_again_when_a_reason_changes(folder: Path) -> None:
    file = folder / "killed.yaml"
    many = "  many: {kind: fewshot, n_way: 2, n_shot: 900, n_query: 2, episodes: 20, controls: false}\n"
    file.write_text(file.read_text() + many)
    study, _ = run(file, folder / "study")
    report = write_report(study, folder / "study")
    made = report.stat().st_mtime_ns
    assert write_report(study, folder / "study").stat().st_mtime_ns == made
    path = next(folder.glob("study/failures/*.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), "value": "quite another reason"}))
    assert "quite another reason" in write_report(study, folder / "study").read_text()
