"""`embank finetune` as a user types it."""

import json
import re
import signal
from pathlib import Path

import pytest

import embank as public
from engine.evals.finetune.progress import Progress
from engine.report import finetune_progress
from stores.bank.records import read_all
from tests.command import Ran, embank
from tests.engine.evals.finetune.images import MODEL, write_images

NAME = MODEL.removeprefix("random/")
QUICK = ("--steps", 4, "--batch-size", 6, "--validate-every", 2, "--bootstrap", 30, "--lr", 0.01)
MACHINE = ("--device", "cpu", "--threads", 1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("finetune")
    write_images(folder / "images").write(folder / "m.parquet")
    recipe = folder / "recipe.json"
    recipe.write_text(json.dumps({"size": 32, "crop": 32}))
    return {"manifest": folder / "m.parquet", "recipe": recipe, "folder": folder}


def run(files: dict[str, Path], bank: Path, *more: object) -> Ran:
    words = ("--model", MODEL, "--recipe", files["recipe"], "--bank", bank, *QUICK, *MACHINE)
    return embank("finetune", files["manifest"], *words, *more)


def test_json_has_the_promised_keys_and_the_weights_can_be_embedded_at_once(
    files: dict[str, Path], tmp_path: Path
) -> None:
    bank, out = tmp_path / "bank", tmp_path / "out"
    ran = run(files, bank, "--json", "-o", out)
    assert ran.code == 0, ran.err
    report = ran.json
    assert {"model", "test", "steps", "best_step", "val_score", "seconds"} <= report.keys()
    assert {"accuracy", "mean_per_class_accuracy", "auroc"} <= report["test"].keys()
    assert report["steps"] == 4 and report["best_step"] in (2, 4) and report["lr"] == 0.01
    assert "4/4" in ran.err and "MB for checkpoints" not in ran.err  # nothing was left to estimate
    backbone, head, *curves = map(Path, report["files"])
    assert [curve.suffix for curve in curves] == [".png", ".csv"]
    assert backbone.read_bytes() == (bank / report["weights"]).read_bytes() and head.is_file()
    embedded = embank(
        "embed", files["manifest"], "--model", f"torchvision/{NAME}", "--weights", backbone, "--recipe",
        files["recipe"], "--bank", bank, *MACHINE, "--json",
    )  # fmt: skip
    assert embedded.code == 0, embedded.err
    assert embedded.json["ok"] == 32
    assert [record.kind for record in read_all(bank)] == ["finetune", "embed"]
    assert embank("bank", "verify", bank).code == 0
    listed = embank("records", "ls", bank, "--kind", "finetune")
    assert f"label: test accuracy {report['test']['accuracy']:.3f}" in " ".join(listed.out.split())
    again = run(files, bank, "-o", out)
    assert again.code == 2 and "--force" in again.err


def test_text_names_model_score_and_weights(files: dict[str, Path], tmp_path: Path) -> None:
    ran = run(files, tmp_path / "bank", "--mode", "as-published", "--val-split", "none", "--steps", 6)
    assert ran.code == 0, ran.err
    assert "MB for checkpoints" in ran.err
    assert "AUROC of class decisions" in ran.out and "the study took 5,000" in ran.out
    assert re.search(r"weights: \.embank/finetune/[0-9a-f]{12}/weights\.safetensors", ran.out)
    assert all(len(line) <= 80 for line in ran.out.splitlines() if "─" in line)


def test_several_columns_and_findings(files: dict[str, Path], tmp_path: Path) -> None:
    findings = ("--label", "left", "--label", "right", "--multi-label", "--json")
    report = run(files, tmp_path / "bank", *findings, "--class-weight", "balanced").json
    assert report["label"] == "left, right" and report["evaluated"] == 2
    several = run(files, tmp_path / "bank", "--label", "label", "--label", "group", "--json")
    assert several.code == 2, "a patient is in one part alone, and so no class of train is tested"
    each = run(files, tmp_path / "bank", *findings[:4], "--uncertain", "ones", "--json", "--steps", 2)
    assert [result["label"] for result in each.json] == ["left", "right"]


def test_more_failed_images_than_allowed_exit_with_1(files: dict[str, Path], tmp_path: Path) -> None:
    write_images(tmp_path / "images").write(tmp_path / "m.parquet")
    for name in ("00.png", "12.png"):
        (tmp_path / "images" / name).write_bytes(b"")
    words = {**files, "manifest": tmp_path / "m.parquet"}
    assert run(words, tmp_path / "bank", "--max-failed", 0.1).code == 0
    ran = run(words, tmp_path / "bank")
    assert ran.code == 1 and "empty 1" in ran.out


def test_a_diverging_run_exits_with_1_and_advises_a_smaller_rate(
    files: dict[str, Path], tmp_path: Path
) -> None:
    ran = run(files, tmp_path / "bank", "--lr", 1000, "--steps", 60, "--schedule", "constant")
    assert ran.code == 1 and "step" in ran.err and "--lr" in ran.err


def test_an_interrupted_run_exits_with_130_and_goes_on(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def strike(progress: Progress) -> None:
        if progress.step == 3:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(finetune_progress, "_updater", lambda live: strike)
        ran = run(files, tmp_path / "bank")
    assert ran.code == 130 and "run the same command to resume" in ran.err
    assert not read_all(tmp_path / "bank")
    again = run(files, tmp_path / "bank", "--json")
    assert again.code == 0 and "goes on after step 3" in again.err and again.json["steps"] == 4


def test_a_bank_of_other_images_or_labels_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    other = write_images(tmp_path / "images", 28)
    other.write(tmp_path / "m.parquet")
    assert run({**files, "manifest": tmp_path / "m.parquet"}, tmp_path / "bank", "--steps", 1).code == 0
    ran = run(files, tmp_path / "bank")
    assert ran.code == 2 and "holds other images" in ran.err


def test_the_public_function_takes_a_manifest_and_options(files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(public.EmbankError, match="split 'nowhere'"):
        public.finetune(
            files["manifest"],
            [MODEL],
            tmp_path / "bank",
            public.FinetuneOptions(splits=_splits("nowhere")),
        )
    assert not (tmp_path / "bank").exists()


def _splits(train: str) -> object:
    from engine.evals.probe.options import SplitOptions

    return SplitOptions(train=train)
