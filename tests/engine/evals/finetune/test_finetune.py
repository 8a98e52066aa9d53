"""Runs of finetuning: resume to the bit, best weights, interruptions, full disks, bad input."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from sklearn.metrics import roc_auc_score
from torch.nn import functional

from engine.decode import RandomCrops, make_training_decoder
from engine.embed.run import embed
from engine.errors import ChangedImage, MachineFault, Refused
from engine.evals.finetune.bank import finetune
from engine.evals.finetune.checkpoints import document_of
from engine.evals.finetune.evaluate import finetune as run
from engine.evals.finetune.inputs import Inputs
from engine.evals.finetune.options import FinetuneOptions
from engine.evals.finetune.order import Order
from engine.evals.finetune.progress import Hooks, Progress
from engine.evals.finetune.trainer import Diverged
from engine.evals.probe.options import Policies, SplitOptions
from engine.models import resolve
from engine.models.checkpoints.lineage import lineage_of
from engine.models.forward.encoder import build_with_weights, load
from engine.normalise import normalise_numpy
from stores.backends import disk
from stores.bank.predictions import read_predictions
from stores.bank.reader import Bank
from stores.bank.records import RunRecord, read_record, record_files
from stores.manifest.manifest import Manifest
from tests.engine.evals.finetune.images import RUNTIME, quick, spec, write_images


class Killed(Exception):
    """Stands for the end of the process: nothing after it is saved."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return write_images(tmp_path_factory.mktemp("finetune") / "images")


@pytest.fixture(scope="module")
def whole(images: Manifest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A bank with an undisturbed run, and its report."""
    bank = tmp_path_factory.mktemp("whole") / "bank"
    return bank, train(images, bank)


def train(images: Manifest, bank: Path, hooks: Hooks | None = None, **more: object) -> dict[str, Any]:
    return finetune(images, [spec()], bank, quick(**more), runtime=RUNTIME, hooks=hooks)[0]


def at(step: int, action: Any) -> Hooks:
    """Call `action` once, right after an update."""
    done: list[int] = []

    def on_progress(progress: Progress) -> None:
        if progress.step == step and not done:
            done.append(step)
            action()

    return Hooks(on_progress)


def kill() -> None:
    raise Killed


def weights(bank: Path, report: dict[str, Any]) -> dict[str, torch.Tensor]:
    return load_file(bank / report["weights"])


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def without_clock(report: dict[str, Any]) -> str:
    """As text, in which NaN equals NaN."""
    return json.dumps({n: v for n, v in report.items() if n not in ("seconds", "trained_seconds", "stages")})


def recorded(bank: Path) -> tuple[RunRecord, pa.Table]:
    """The only record of a bank, and its predictions."""
    (path,) = record_files(bank)
    return read_record(path), read_predictions(bank, path.name)


def test_a_run_is_a_plain_torch_loop_on_its_crops(images: Manifest, tmp_path: Path) -> None:
    """Of a network without BatchNorm, in which rounding does not grow from step to step."""
    options, model = quick(weight_decay=0.01), resolve("random/squeezenet1_1", recipe=spec().recipe)
    report = finetune(images, [model], tmp_path / "bank", options, runtime=RUNTIME)[0]
    train_rows = np.flatnonzero(np.array(images.column("split")) == "train")
    labels = torch.tensor([["a", "b"].index(label) for label in images.column("label")])
    source = Inputs.of_manifest(images, model, tmp_path / "bank").source
    decoder = make_training_decoder(
        "turbo", model.recipe, RandomCrops(0), device="cpu", threads=1, batch_size=6
    )
    backbone = build_with_weights(model)[0].train()
    torch.manual_seed(0)
    head = torch.nn.Linear(model.dim, 2)
    parameters = [*backbone.parameters(), *head.parameters()]
    sgd = torch.optim.SGD(parameters, lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.01)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, T_max=options.steps)
    losses = []
    with decoder:
        for batch in decoder.stream(source, Order(train_rows, 6, 0).batches(0, options.steps)):
            pixels = torch.from_numpy(normalise_numpy(batch.pixels.numpy(), model.recipe)).float()
            loss = functional.cross_entropy(head(backbone(pixels)), labels[list(batch.rows)])
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            cosine.step()
            losses.append(loss.item())
    curve = [point["train_loss"] for point in report["curve"]["points"]]
    assert curve == pytest.approx(np.reshape(losses, (3, 2)).mean(axis=1).tolist(), rel=1e-5)
    ours, theirs = weights(tmp_path / "bank", report), backbone.state_dict()
    assert report["best_step"] == 6 and ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-6) for name in ours)


def test_the_report_says_what_was_done(whole: tuple[Path, dict[str, Any]], images: Manifest) -> None:
    bank, report = whole
    assert {"model", "test", "steps", "best_step", "val_score", "seconds"} <= report.keys()
    assert report["images"] == {"train": 16, "val": 8, "test": 8} and report["steps"] == 6
    points = report["curve"]["points"]
    assert [point["step"] for point in points] == [2, 4, 6]
    best = max(point["val_score"] for point in points)
    assert report["val_score"] == best and report["best_step"] in {
        point["step"] for point in points if point["val_score"] == best
    }
    record, table = recorded(bank)
    assert record.kind == "finetune" and table.num_rows == 8
    scores = table.column("score.b").to_numpy()
    truth = np.array(table.column("truth").to_pylist()) == "b"
    assert report["test"]["auroc"] == pytest.approx(roc_auc_score(truth, scores))
    assert report["test"]["accuracy"] == np.mean((scores > 0.5) == truth)
    assert {"low", "high", "groups"} <= report["test"]["intervals"]["accuracy"].keys()
    assert record.used["splits"]["train"]["rows"] == 16


def test_the_same_run_gives_the_same_bits_and_another_seed_others(
    images: Manifest, whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    bank, report = whole
    again = train(images, tmp_path / "bank")
    assert without_clock(again) == without_clock(report)
    assert same(weights(tmp_path / "bank", again), weights(bank, report))
    other = train(images, tmp_path / "bank", seed=1, steps=2)
    assert other["run"] != report["run"]
    assert not same(weights(tmp_path / "bank", other), weights(bank, report))


@pytest.mark.parametrize(
    "step", [3, *(pytest.param(step, marks=pytest.mark.thorough) for step in (1, 2, 4, 5))]
)
def test_a_killed_run_goes_on_and_ends_with_the_same_bits(
    step: int, images: Manifest, whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        train(images, tmp_path / "bank", at(step, kill))
    report = train(images, tmp_path / "bank")
    assert without_clock(report) == without_clock(whole[1])
    assert same(weights(tmp_path / "bank", report), weights(*whole))
    assert not list((tmp_path / "bank").rglob("checkpoint*"))


def test_an_interrupt_is_saved_at_its_step_and_a_finished_run_is_not_trained_again(
    images: Manifest, whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as error:
        train(images, tmp_path / "bank", at(3, lambda: signal.raise_signal(signal.SIGINT)))
    assert type(error.value) is KeyboardInterrupt and signal.getsignal(signal.SIGINT) is before
    (checkpoint,) = (tmp_path / "bank").rglob("checkpoint.safetensors")
    state = document_of(checkpoint.read_bytes())["state"]
    assert isinstance(state, dict) and (state["step"], state["loss_count"]) == (3, 1)
    notes: list[str] = []
    report = train(images, tmp_path / "bank", Hooks(on_note=notes.append))
    assert notes == [f"{report['model']} goes on after step 3"]
    assert without_clock(report) == without_clock(whole[1])
    steps: list[int] = []
    again = train(images, tmp_path / "bank", Hooks(lambda progress: steps.append(progress.step)))
    assert steps == [] and without_clock(again) == without_clock(report)


def test_a_damaged_checkpoint_is_not_used(
    images: Manifest, whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(Killed):
        train(images, tmp_path / "bank", at(5, kill))
    (checkpoint,) = (tmp_path / "bank").rglob("checkpoint.safetensors")
    data = bytearray(checkpoint.read_bytes())
    data[len(data) // 2] ^= 1
    checkpoint.write_bytes(data)
    assert without_clock(train(images, tmp_path / "bank")) == without_clock(whole[1])


def test_a_full_disk_leaves_the_last_checkpoint(
    images: Manifest, whole: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        """The disk's calls, with no room for the second checkpoint."""

        def __init__(self) -> None:
            self.large = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def write(self, descriptor: int, data: memoryview) -> int:
            self.large += len(data) > 1 << 20
            if self.large > 1:
                os.write(descriptor, data[: 1 << 19])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return os.write(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(disk, "os", Full())
        with pytest.raises(MachineFault, match="No space left"):
            train(images, tmp_path / "bank")
    (checkpoint,) = (tmp_path / "bank").rglob("checkpoint.safetensors")
    state = document_of(checkpoint.read_bytes())["state"]
    assert isinstance(state, dict) and state["step"] == 2
    assert without_clock(train(images, tmp_path / "bank")) == without_clock(whole[1])


def test_a_run_that_gets_worse_ends_with_the_weights_that_were_best(images: Manifest, tmp_path: Path) -> None:
    worse = {"lr": 0.02, "schedule": "constant", "validate_every": 1, "patience": 2, "select": "log-loss"}
    report = train(images, tmp_path / "bank", steps=30, **worse)
    points = report["curve"]["points"]
    best = min(points, key=lambda point: point["val_score"])
    assert report["stopped_early"] and report["steps"] == best["step"] + 2 < 30
    assert points[-1]["val_score"] > best["val_score"] == report["val_score"]
    assert (report["best_step"], report["tested_step"]) == (best["step"], best["step"])
    shorter = train(images, tmp_path / "bank", steps=best["step"], **worse)
    assert same(weights(tmp_path / "bank", report), weights(tmp_path / "bank", shorter))
    assert json.dumps(report["test"]) == json.dumps(shorter["test"])  # in which NaN equals NaN


def test_as_published_tests_the_last_weights_and_the_auroc_of_decisions(
    images: Manifest, tmp_path: Path
) -> None:
    options = {"mode": "as-published", "splits": SplitOptions(val="none")}
    report = train(images, tmp_path / "bank", **options)
    rows = np.arange(16)
    np.random.RandomState(0).shuffle(rows)
    assert report["images"] == {"train": 13, "val": 3, "test": 8}  # floor(0.2 * 16)
    assert report["tested_step"] == 6 and report["val_score"] == report["curve"]["points"][-1]["val_score"]
    _, table = recorded(tmp_path / "bank")
    truth, predicted = (np.array(table.column(name).to_pylist()) == "b" for name in ("truth", "predicted"))
    assert report["test"]["auroc_of_decisions"] == pytest.approx(roc_auc_score(truth, predicted))
    assert any("6 steps; the study took 5,000" in note for note in report["notes"])


def test_the_weights_give_the_features_that_the_head_was_trained_on(
    images: Manifest, whole: tuple[Path, dict[str, Any]]
) -> None:
    """The finished file, read by the strict loader, and the head give the scores of the record."""
    bank, report = whole
    path = bank / report["weights"]
    model = replace(spec(), weights_path=path, weights_sha256=_sha256(path), seed=None)
    encoder = load(model, RUNTIME)
    source = Inputs.of_manifest(images, model, bank).source
    from engine.decode import make_decoder

    _, table = recorded(bank)
    with make_decoder("turbo", model.recipe.rendering, device="cpu", threads=1, batch_size=8) as decoder:
        (batch,) = decoder.stream(source, [table.column("row").to_pylist()])
    head = load_file(path.with_name("head.safetensors"))
    logits = encoder(batch.pixels) @ head["weight"].T + head["bias"]
    assert logits.softmax(1)[:, 1].numpy() == pytest.approx(table.column("score.b").to_numpy(), abs=1e-4)
    lineage = lineage_of(path)
    assert lineage is not None
    assert (lineage.base_weights_sha256, lineage.step) == (spec().weights_sha256, report["best_step"])
    assert lineage.classes == ("a", "b")


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_findings_are_learned_together_with_masks(images: Manifest, tmp_path: Path) -> None:
    findings = ("left", "right", "never")
    options = quick(findings=findings, policies=Policies(), class_weight="balanced")
    report = finetune(images, [spec()], tmp_path / "bank", options, runtime=RUNTIME)[0]
    assert report["multi_label"] and report["evaluated"] == 2 and report["select"] == "auroc"
    assert [finding["label"] for finding in report["findings"]] == ["left", "right", "never"]
    assert "1 of 2 classes" in report["findings"][2]["reason"]
    _, table = recorded(tmp_path / "bank")
    aurocs = []
    for name in ("left", "right"):
        cells = np.array(images.column(name))[table.column("row").to_numpy()]
        known = np.isin(cells, ["0", "1"])
        truth, score = (table.column(f"{kind}.{name}").to_numpy() for kind in ("truth", "score"))
        assert (np.isnan(truth) == ~known).all() and (np.isnan(score) == ~known).all()
        aurocs.append(roc_auc_score(cells[known] == "1", score[known]))
    assert report["test"]["auroc"] == pytest.approx(np.mean(aurocs))
    assert np.isnan(table.column("score.never").to_numpy()).all()


def test_images_that_fail_are_counted_and_left_out(images: Manifest, tmp_path: Path) -> None:
    root = tmp_path / "images"
    shutil.copytree(images.root, root)
    for name in ("00.png", "04.png", "12.png", "13.png"):  # of train, val, test, test
        (root / name).write_bytes(b"no picture")
    report = train(Manifest.from_frame(images.frame, root), tmp_path / "bank")
    assert report["failed"] == 4 and report["test"]["images"] == 6
    assert report["failures"] == {
        "train": {"unknown_format": 1}, "val": {"unknown_format": 1}, "test": {"unknown_format": 2}
    }  # fmt: skip


def test_an_image_that_differs_from_the_banks_is_refused(images: Manifest, tmp_path: Path) -> None:
    root = tmp_path / "images"
    shutil.copytree(images.root, root)
    manifest = Manifest.from_frame(images.frame, root)
    embed(manifest, [spec()], tmp_path / "bank", runtime=RUNTIME)
    report = train(manifest, tmp_path / "bank", steps=2)
    assert report["failed"] == 0
    (record,) = (r for r in map(read_record, record_files(tmp_path / "bank")) if r.kind == "finetune")
    assert record.used["key"] == Bank.open(tmp_path / "bank").features().key.digest
    shutil.copy(root / "01.png", root / "00.png")  # of the train part
    with pytest.raises(ChangedImage, match=r"00\.png"):
        train(manifest, tmp_path / "bank", steps=4)


def test_a_loss_that_is_not_finite_keeps_the_last_sound_checkpoint(images: Manifest, tmp_path: Path) -> None:
    with pytest.raises(Diverged, match=r"loss (of|after) step") as error:
        train(images, tmp_path / "bank", lr=1e3, momentum=0.99, schedule="constant", steps=200)
    assert error.value.exit_code == 1 and "--lr" in error.value.remedy
    kept = list((tmp_path / "bank").rglob("checkpoint.safetensors"))
    assert ("is kept" in error.value.found) == bool(kept)
    for path in kept:
        assert all(bool(torch.isfinite(t).all()) for t in load_file(path).values())


def _with(images: Manifest, **columns: list[str]) -> Manifest:
    return Manifest.from_frame(images.frame.assign(**columns), images.root)


def test_what_cannot_be_learned_is_refused_and_nothing_is_written(images: Manifest, tmp_path: Path) -> None:
    rows, split = range(len(images)), images.column("split")
    of_train = ["a" if split[row] == "train" else "b" for row in rows]
    of_val = ["a" if split[row] == "val" else "ab"[row % 2] for row in rows]
    cases: list[tuple[Manifest, FinetuneOptions, str]] = [
        (_with(images, label=of_train), quick(), "1 class among 16 train images"),
        (_with(images, label=of_val), quick(select="auroc"), "No auroc on the 8 validation images"),
        (_with(images, split=["train"] * len(images)), quick(), "split 'test'"),
        (images, quick(findings=("never",)), "Not one finding can be learned"),
    ]
    for manifest, options, words in cases:
        with pytest.raises(Refused, match=words):
            finetune(manifest, [spec()], tmp_path / "bank", options, runtime=RUNTIME)
    with pytest.raises(Refused, match="as-published"):
        run(
            Inputs.of_manifest(images, spec(), tmp_path / "bank"),
            quick(mode="as-published"),
            replace(RUNTIME, precision="bf16"),
        )
    assert not (tmp_path / "bank").exists()


def test_a_class_that_only_validation_and_test_have_counts_as_wrong(images: Manifest, tmp_path: Path) -> None:
    labels = [
        "c" if split != "train" and row % 8 == 5 else label
        for row, (label, split) in enumerate(zip(images.column("label"), images.column("split"), strict=True))
    ]
    report = train(_with(images, label=labels), tmp_path / "bank", steps=2)
    per_class = {entry["class"]: entry for entry in report["test"]["per_class"]}
    assert any("Train has no image of 'c'" in note for note in report["notes"])
    assert (per_class["c"]["images"], per_class["c"]["accuracy"]) == (2, 0)


def test_without_a_validation_split_patients_of_train_are_cut_off(images: Manifest, tmp_path: Path) -> None:
    split = ["train" if word == "val" else word for word in images.column("split")]
    report = train(_with(images, split=split), tmp_path / "bank", steps=2)
    assert report["images"]["train"] + report["images"]["val"] == 24
    assert not any("belong to a patient" in note for note in report["notes"])


@pytest.mark.slow
def test_a_process_that_is_killed_goes_on_and_ends_with_the_same_bits(
    images: Manifest, whole: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    script = f"""
import os, signal
from engine.evals.finetune.bank import finetune
from engine.evals.finetune.progress import Hooks
from stores.manifest.manifest import Manifest
from tests.engine.evals.finetune.images import RUNTIME, quick, spec
def strike(progress):
    if progress.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
finetune(Manifest.read({str(tmp_path / "m.parquet")!r}), [spec()], {str(tmp_path / "bank")!r}, quick(),
         runtime=RUNTIME, hooks=Hooks(strike))
"""
    images.write(tmp_path / "m.parquet")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[4])}
    ran = subprocess.run([sys.executable, "-c", script], env=environment, check=False)
    assert ran.returncode == -signal.SIGKILL
    report = train(images, tmp_path / "bank")
    assert without_clock(report) == without_clock(whole[1])
    assert same(weights(tmp_path / "bank", report), weights(*whole))


@pytest.mark.slow
def test_it_learns_its_images_by_heart(images: Manifest, tmp_path: Path) -> None:
    """A network that is validated and tested on copies of its 32 images gets all of them right."""
    for row in range(32):
        for copy in (32, 64):
            (tmp_path / "images").mkdir(exist_ok=True)
            for target in (row, row + copy):
                shutil.copy(images.root / f"{row:02}.png", tmp_path / "images" / f"{target:02}.png")
    columns = {
        "uri": [f"{row:02}.png" for row in range(96)],
        "label": ["ab"[row % 2] for row in range(96)],
        "split": [("train", "val", "test")[row // 32] for row in range(96)],
    }
    copies = Manifest.from_columns(columns, tmp_path / "images")
    report = train(copies, tmp_path / "bank", steps=60, batch_size=16, validate_every=20, patience=0)
    assert report["images"]["train"] == 32
    assert report["val_score"] == report["test"]["accuracy"] == 1.0
