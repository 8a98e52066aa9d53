"""What a finetuning leaves besides its record: weights to embed with, curves, event files."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from engine.evals.finetune.curve import Curve
from engine.models.checkpoints.lineage import lineage_of
from engine.report import tensorboard_log
from stores.bank.reader import Bank
from stores.bank.records import read_all
from tests.command import Ran, embank
from tests.engine.report.test_tensorboard_log import scalars
from tests.studies import MODEL, make_study

pytestmark = pytest.mark.slow

#: The architecture of the untrained `MODEL`, for which weights can be given.
TRAINED = "torchvision/squeezenet1_1"
STEM = "random-squeezenet1_1"


def _finetune(root: Path, bank: Path, *words: object) -> Ran:
    recipe = ("--recipe", root / "recipe.json", "--device", "cpu", "--threads", 1)
    steps = ("--steps", 4, "--validate-every", 2, "--batch-size", 4, "--lr", 0.001, "--bootstrap", 0)
    model = ("--model", MODEL, "--bank", bank, *recipe, *steps)
    return embank("finetune", root / "m.parquet", *model, *words)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with one finetuning, its files in `out` and `events`."""
    pytest.importorskip("tensorboard")
    root = make_study(tmp_path_factory.mktemp("finetuned"), 16)
    ran = _finetune(root, root / "bank", "-o", root / "out", "--tensorboard", root / "events", "--json")
    assert ran.code == 0, ran.err
    endings = (".safetensors", ".head.safetensors", ".png", ".csv")
    assert ran.json["files"] == [str(root / "out" / f"{STEM}{ending}") for ending in endings]
    assert all(Path(file).is_file() for file in ran.json["files"])
    return root


def test_curve_events_and_record_say_the_same(study: Path) -> None:
    record = read_all(study / "bank")[-1]
    curve = Curve.from_dict(record.metrics["curve"])
    assert [point.step for point in curve.points] == [2, 4]
    assert Curve.from_csv((study / "out" / f"{STEM}.csv").read_text()) == curve
    shown = scalars(study / "events" / STEM)
    for tag, column in {
        "loss/train": "train_loss",
        "loss/validation": "val_loss",
        "score/validation accuracy": "val_score",
        "learning rate": "lr",
    }.items():
        expected = [(point.step, np.float32(getattr(point, column))) for point in curve.points]
        assert shown[tag] == expected


def test_the_weights_are_embedded_and_the_feature_says_what_they_are(study: Path) -> None:
    file, bank = study / "out" / f"{STEM}.safetensors", study / "bank"
    lineage, record = lineage_of(file), read_all(bank)[-1]
    assert lineage is not None
    assert (lineage.base, lineage.architecture, lineage.seed) == (MODEL, TRAINED, 0)
    assert lineage.base_weights_sha256 == Bank.open(bank).features(MODEL).key.weights
    assert lineage.step == record.metrics["tested_step"]
    assert lineage.manifest_digest == record.used["manifest_digest"]
    assert (lineage.classes, lineage.options["steps"]) == (("c0", "c1"), 4)
    words = ("--recipe", study / "recipe.json", "--device", "cpu", "--threads", 1)
    ran = embank("embed", study / "m.parquet", "--model", TRAINED, "--weights", file, "--bank", bank, *words)
    assert ran.code == 0, ran.err
    before, after = (Bank.open(bank).features(name).array for name in (MODEL, TRAINED))
    assert not np.allclose(before, after, atol=1e-3)
    assert read_all(bank)[-1].used["lineage"] == lineage.to_dict()


def test_the_same_training_gives_the_same_file_and_a_later_one_shows_all_of_it(
    study: Path, tmp_path: Path
) -> None:
    """Also where event files are requested only once it was finished."""
    assert _finetune(study, tmp_path / "bank").code == 0
    again = ("-o", tmp_path / "out", "--tensorboard", tmp_path / "events")
    assert _finetune(study, tmp_path / "bank", *again).code == 0
    name = f"{STEM}.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (study / "out" / name).read_bytes()
    assert scalars(tmp_path / "events" / STEM) == scalars(study / "events" / STEM)


def test_without_tensorboard_nothing_begins(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genuine = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "tensorboard" else genuine(name, *a)
    )
    tensorboard_log.unavailable_reason.cache_clear()
    try:
        ran = _finetune(study, tmp_path / "bank", "--tensorboard", tmp_path / "events")
    finally:
        tensorboard_log.unavailable_reason.cache_clear()
    assert ran.code == 2
    assert "embank[tensorboard]" in ran.err
    assert list(tmp_path.iterdir()) == []


def test_files_of_others_are_not_replaced(study: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / f"{STEM}.csv").write_text("name,age\n")
    ran = _finetune(study, tmp_path / "bank", "-o", tmp_path / "out")
    assert ran.code == 2
    assert "--force" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
