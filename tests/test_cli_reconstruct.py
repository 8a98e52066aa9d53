"""`embank reconstruct` as a user types it."""

from pathlib import Path

import pytest
from PIL import Image

from engine.evals.reconstruction.progress import Estimate, Progress
from engine.report.reconstruct_progress import estimate_lines, reconstruction_line
from stores.maintenance.verify import verify
from tests.command import embank
from tests.engine.evals.invariance_banks import MODEL, build

pytestmark = pytest.mark.slow

TINY = ("--steps", 1, "--seeds", 2, "--threads", 1, "--device", "cpu")


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(build(tmp_path_factory.mktemp("reconstruct"), 4, grey=1).path)


def test_pictures_a_gallery_and_a_record(bank: Path, tmp_path: Path) -> None:
    words = ("reconstruct", bank, "--model", MODEL, "--id", "001.png", *TINY)
    ran = embank(*words, "-o", tmp_path / "out", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["model"] == MODEL and [item["seed"] for item in ran.json["items"]] == [0, 1]
    for item in ran.json["items"]:
        assert item["image_id"] == "001.png" and item["loss"] > 0
        assert set(item["lpips"]) == {"alex", "squeeze", "vgg", "mean"}
        assert Image.open(tmp_path / "out" / item["file"]).size == (32, 32)
    assert "models fetch supervised-alexnet" in ran.json["lpips"]["reason"]
    assert sorted(map(str, (tmp_path / "out").iterdir())) == sorted(ran.json["files"])
    assert Image.open(tmp_path / "out" / "gallery.png").width > 3 * 168
    assert "2/2 updates" in ran.err
    again = embank(*words, "-o", tmp_path / "out")  # replaces its own pictures
    assert again.code == 0 and "0 networks computed" in again.out and "sd between seeds" in again.out
    (record, *_) = embank("records", "ls", bank, "--kind", "reconstruct", "--json").json["records"]
    assert (record["metric"], record["value"]) == ("loss.mean", ran.json["loss"]["mean"])
    figure = tmp_path / "losses.svg"
    assert embank("records", "show", bank, record["record"], "-o", figure).code == 0
    assert "mean squared error of the feature map" in figure.read_text()
    assert verify(bank).ok
    pruned = embank("bank", "prune", bank, "--json").json["removed"]
    assert pruned["reconstructions"]["files"] == 2


def test_an_estimate_and_progress_say_time_memory_and_loss() -> None:
    long = estimate_lines(Estimate(12, 36_000, 2, 7200.0, 3 << 29))
    assert "12 networks, 2 at a time in 1.5 GiB, 36,000 updates: about 2:00:00" in long[0]
    assert "--steps" in long[1] and len(estimate_lines(Estimate(1, 3, 1, 5.0, 1 << 20))) == 1
    line = reconstruction_line(Progress(1, 3, 30, 90, 20, 10.0, 0.125))
    assert line == "network 2/3: 30/90 updates, 2.00 a second, loss 0.125, 0:30 left"


def test_as_published_takes_every_model_at_224_pixels(tmp_path: Path) -> None:
    bank = Path(build(tmp_path, 2, grey=0).path)
    words = ("--model", "all", "--mode", "as-published", "--steps", 1, "--images", 1, "--threads", 1)
    ran = embank("reconstruct", bank, *words, "--device", "cpu", "-o", tmp_path / "out", "--json")
    assert ran.code == 0 and ran.json["mode"] == "as-published", ran.err
    assert Image.open(tmp_path / "out" / ran.json["items"][0]["file"]).size == (224, 224)


def test_refusals_leave_nothing(bank: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    Image.new("RGB", (2, 2)).save(mine / "gallery.png")
    for words, says in (
        (("--model", MODEL, "--id", "nobody"), "nobody"),
        (("--model", MODEL, "-o", mine), "gallery.png exists"),
        (("--model", MODEL, "--mode", "as-published", "--seeds", 2), "2 seeds"),
        (("--model", MODEL, "--model", "random/resnet34", "--weights", "x.pth"), "2 models"),
        (("--model", MODEL, "--precision", "bf16", "--device", "cpu"), "float32"),
    ):
        ran = embank("reconstruct", bank, *words)
        assert ran.code == 2 and says in ran.err and "remedy" in ran.err, ran.err
    assert [path.name for path in mine.iterdir()] == ["gallery.png"]
