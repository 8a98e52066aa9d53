"""Reconstruction from a bank: results, checkpoints, files, and images or networks that fail."""

import errno
import hashlib
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.decode.formats.sniff import sniff
from engine.decode.pillow import render
from engine.errors import MachineFault, ModelError, Refused
from engine.evals.common.image_inputs import Images, open_images
from engine.evals.reconstruction import runner
from engine.evals.reconstruction.bank import reconstruct
from engine.evals.reconstruction.evaluate import Hooks, _Job, measure
from engine.evals.reconstruction.generator import Architecture, Generator, draw_noise
from engine.evals.reconstruction.lane import NetworkState
from engine.evals.reconstruction.options import ReconstructionOptions
from engine.evals.reconstruction.pictures import encode, ending_for, reopened
from engine.evals.reconstruction.progress import Progress
from engine.evals.reconstruction.result import Reconstruction
from engine.models.backbones import architectures
from engine.models.backbones.feature_maps import spatial_map
from engine.recipes import Recipe
from engine.runtime import Runtime
from stores.backends import disk
from stores.bank.records import read_all
from tests.engine.evals import invariance_banks
from tests.engine.evals.reconstruction.networks import fill
from tests.oracles.skip_network import skip_network

pytestmark = pytest.mark.slow

CPU = Runtime("cpu", "fp32", 1)
QUICK = ReconstructionOptions(steps=3, seeds=2, ids=("000.png",))


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(invariance_banks.build(tmp_path_factory.mktemp("bank"), 4, grey=1).path)


def opened(bank: Path, **more: object) -> Images:
    return open_images(bank, invariance_banks.MODEL, **more)


def elsewhere(images: Images, home: Path) -> Images:
    """The same images, with reconstructions kept in another folder."""
    home.mkdir()
    return replace(images, home=home)


def run(
    images: Images, options: ReconstructionOptions = QUICK, runtime: Runtime = CPU, **hooks: object
) -> dict:
    made: list[Reconstruction] = []
    hooks = {"on_reconstruction": made.append, **hooks}
    report = reconstruct(images, options, runtime=runtime, hooks=Hooks(**hooks))
    return {**report, "made": made}


def same(ours: object, theirs: object) -> bool:
    return json.dumps(ours) == json.dumps(theirs)  # as text, in which NaN equals NaN


def test_reconstructions_are_kept_and_not_computed_again(bank: Path) -> None:
    images = opened(bank)
    first = run(images)
    again = run(images)
    assert (first["computed"], again["computed"]) == (2, 0)
    assert same(again["items"], first["items"]) and same(again["loss"], first["loss"])
    losses = [item["loss"] for item in first["items"]]
    assert [item["seed"] for item in first["items"]] == [0, 1] and losses[0] != losses[1]
    assert first["loss"]["mean"] == pytest.approx(np.mean(losses))
    assert first["loss"]["seed_sd"] == pytest.approx(np.std(losses, ddof=1))
    assert first["curves"]["losses"][0][-1] == losses[0] and first["curves"]["steps"] == [0, 1, 2, 3]
    for item, one in zip(first["items"], first["made"], strict=True):
        assert item["initial_loss"] > item["loss"] > 0 and (bank / item["kept"]).exists()
        assert math.isnan(item["lpips"]["mean"]) and item["file"] == one.file
        np.testing.assert_array_equal(reopened(one.data), one.image)
    record = [record for record in read_all(bank) if record.kind == "reconstruct"][-1]
    assert record.used["map"] == "layer4" and record.used["shape"] == [512, 1, 1]
    more = run(images, replace(QUICK, seeds=3))
    assert more["computed"] == 1 and same(more["items"][:2], first["items"])


def first_loss(pixels: np.ndarray, noise: int, recipe: Recipe) -> float:
    """The loss before the first update, by torchvision's own network and the plain generator, float32."""
    generator, plain = Generator((0,), Architecture()), skip_network()
    fill(plain, generator, 0)
    net, maps = architectures.build_seeded("torchvision/resnet18", 0), []
    net.layer4.register_forward_hook(lambda module, inputs, output: maps.append(output))
    mean, sd = (torch.tensor(values).reshape(3, 1, 1) for values in (recipe.mean, recipe.sd))
    side = len(pixels)
    with torch.no_grad():
        drawn = plain(draw_noise((0,), Architecture(), noise))[:, :, :side, :side]
        for image in (drawn, torch.from_numpy(pixels / 255).float().permute(2, 0, 1)[None]):
            net((image - mean) / sd if recipe.normalise == "mean_sd" else image)
    return float((maps[0] - maps[1]).square().mean())


def test_the_original_is_what_the_model_sees_and_the_first_loss_that_of_plain_torch(bank: Path) -> None:
    images = opened(bank)
    found = run(images)
    one, recipe = found["made"][0], images.spec.recipe
    data = (images.source.root / "000.png").read_bytes()
    expected = render(data, sniff(data, recipe, images.source.limits), recipe)
    np.testing.assert_array_equal(one.original, expected)
    assert found["items"][0]["initial_loss"] == pytest.approx(first_loss(expected, 128, recipe), rel=1e-3)


def test_an_interrupted_run_ends_bit_identical(bank: Path, tmp_path: Path) -> None:
    options, images, two = replace(QUICK, steps=6), opened(bank), replace(CPU, threads=2)
    undisturbed = run(elsewhere(images, tmp_path / "a"), options, two)
    stopped = elsewhere(images, tmp_path / "b")

    def stop(progress: Progress) -> None:
        if progress.computed:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(stopped, options, two, on_progress=stop)
    assert list(stopped.home.rglob("*.part.arrays"))
    seen: list[Progress] = []
    rest = run(stopped, options, two, on_progress=seen.append)
    assert seen[-1].done == seen[-1].total > seen[-1].computed
    assert same(rest["items"], undisturbed["items"])
    for ours, theirs in zip(rest["made"], undisturbed["made"], strict=True):
        np.testing.assert_array_equal(ours.image, theirs.image)
    assert not list(stopped.home.rglob("*.part.arrays"))


def test_a_full_disk_leaves_the_last_checkpoint_whole(
    bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, options = elsewhere(opened(bank), tmp_path / "a"), replace(QUICK, seeds=1, steps=4)
    expected = run(elsewhere(opened(bank), tmp_path / "b"), options)
    monkeypatch.setattr(runner, "SAVE_EVERY_S", 0.0)
    written, original = [0], disk.os.write

    def full(descriptor: int, data: bytes) -> int:
        written[0] += len(data)
        if written[0] > 70 << 20:  # the third checkpoint, about 31 MB each
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(descriptor, data)

    with monkeypatch.context() as patch:
        patch.setattr(disk.os, "write", full)
        with pytest.raises(MachineFault, match="No space") as fault:
            run(images, options)
    assert fault.value.exit_code == 3
    assert len(list(images.home.rglob("*.part.arrays"))) == 1
    seen: list[Progress] = []
    rest = run(images, options, on_progress=seen.append)
    assert 0 < seen[-1].computed < 4 and same(rest["items"], expected["items"])


def test_a_network_whose_loss_is_not_finite_fails_with_its_step(bank: Path, tmp_path: Path) -> None:
    images = elsewhere(opened(bank), tmp_path / "a")
    size = sum(p.numel() for p in Generator((0,), Architecture()).parameters())
    broken, zeros = np.full(size, np.inf, np.float32), np.zeros(size, np.float32)
    state = NetworkState(1, broken, zeros, zeros, np.ones(1, np.float32))
    digest = hashlib.sha256((images.source.root / "000.png").read_bytes()).hexdigest()
    _Job(images, QUICK, CPU, Hooks()).store.keep_checkpoint(digest, 0, state)
    found = run(images)
    bad, good = found["items"]
    assert bad["reason"] == "nan_loss" and "update 1 of 3" in bad["detail"] and "--lr" in bad["detail"]
    assert math.isnan(bad["loss"]) and "reason" not in good
    assert found["failures"] == {"nan_loss": 1} and found["failed"] == 0


def test_failed_images_have_reasons_and_others_go_on(tmp_path: Path) -> None:
    bank = Path(invariance_banks.build(tmp_path, 2, grey=0).path)
    path = tmp_path / "images" / "000.png"
    path.unlink()
    found = run(opened(bank), ReconstructionOptions(steps=1, seeds=1))
    assert found["failures"] == {"missing": 1} and found["failed"] == 1
    by_id = {item["image_id"]: item for item in found["items"]}
    assert by_id["000.png"]["reason"] == "missing" and by_id["001.png"]["loss"] > 0


def test_as_published_feeds_values_of_0_to_1_at_224_pixels(bank: Path, tmp_path: Path) -> None:
    images = elsewhere(opened(bank), tmp_path / "a")
    options = ReconstructionOptions(mode="as-published", steps=1, ids=("001.png",))
    found = run(images, options)
    assert (found["side"], found["noise"], found["updates"], found["seeds"]) == (224, 256, 2, 1)
    assert found["shape"] == [512, 7, 7] and len(found["curves"]["losses"][0]) == 3
    (one,) = found["made"]
    expected = first_loss(one.original, 256, Recipe(normalise="none"))
    assert found["items"][0]["initial_loss"] == pytest.approx(expected, rel=1e-3)
    assert any("not seeded" in note for note in found["notes"])
    assert any("3,000 iterations" in note for note in found["notes"])


@pytest.mark.parametrize(("uri", "ending"), [("a/b.JPG", ".jpg"), ("c.dcm", ".png"), ("d.png", ".png")])
def test_files_are_of_the_source_s_kind_as_published(uri: str, ending: str) -> None:
    assert ending_for(uri, "as-published") == ending and ending_for(uri, "default") == ".png"


def test_a_jpeg_is_pillow_s_at_its_default_quality() -> None:
    pixels = invariance_banks.picture(0)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG")
    assert encode(pixels, ".jpg") == buffer.getvalue()
    assert not np.array_equal(reopened(buffer.getvalue()), pixels)
    np.testing.assert_array_equal(reopened(encode(pixels, ".png")), pixels)


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"mode": "x"}, "mode"),
        ({"steps": 0}, "steps"),
        ({"seeds": 0}, "seeds"),
        ({"lr": math.nan}, "lr"),
        ({"images": 1, "ids": ("a",)}, "One of them"),
        ({"mode": "as-published", "seeds": 2}, "2 seeds"),
        ({"mode": "as-published", "lr": 0.1}, "0.1"),
    ],
)
def test_nonsense_is_refused(settings: dict, says: str) -> None:
    with pytest.raises(Refused, match=says):
        ReconstructionOptions(**settings)


def test_precision_and_normalisation_are_refused_where_they_do_not_work(bank: Path, tmp_path: Path) -> None:
    images = opened(bank)
    for precision in ("bf16", "fp16"):
        with pytest.raises(Refused, match=precision):
            measure(images, QUICK, replace(CPU, precision=precision))
    spec = replace(images.spec, recipe=Recipe(size=32, crop=32, normalise="histogram"))
    with pytest.raises(Refused, match="as-published"):
        measure(replace(images, spec=spec), QUICK, CPU)


def test_a_model_without_a_map_or_for_another_size_is_refused(tmp_path: Path) -> None:
    class Vectors(torch.nn.Module):
        def forward_features(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)

    with pytest.raises(ModelError, match="no spatial feature map"):
        spatial_map("timm/vectors", Vectors())(torch.zeros(1, 3, 4, 4))
    with pytest.raises(ModelError, match="no forward_features"):
        spatial_map("timm/none", torch.nn.Identity())
