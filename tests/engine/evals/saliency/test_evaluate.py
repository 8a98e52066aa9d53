"""Saliency from files to maps, against the study's loop in plain torch."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

from engine.errors import Refused
from engine.evals.common.image_inputs import Images, open_images
from engine.evals.saliency.bank import saliency
from engine.evals.saliency.evaluate import Progress, SaliencyMap
from engine.evals.saliency.fill import parse_fill
from engine.evals.saliency.occluder import Occluder, Scores
from engine.evals.saliency.options import SaliencyOptions
from engine.kernels.occlusion import Squares, accumulate
from engine.models import resolve
from engine.models.backbones import architectures
from engine.models.forward import windowed_forward
from engine.recipes import Recipe
from engine.runtime import Runtime
from stores.bank.records import read_all
from tests.engine.models.plain import pictures, saved, trained
from tests.oracles import occlusion_loop

pytestmark = pytest.mark.slow

ARCHITECTURE = "torchvision/mnasnet0_5"  # small, with BatchNorm
CPU = Runtime("cpu", "fp32", 2)
INNER, SIDE = 16, 34  # 16 + 2 * 9
RECIPE = Recipe(size=INNER, crop=INNER)
COARSE = SaliencyOptions(stride=5, images=2)
MEAN, SD = torch.tensor(RECIPE.mean), torch.tensor(RECIPE.sd)


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return trained(architectures.build_seeded(ARCHITECTURE, 0), 64)


@pytest.fixture(scope="module")
def weights(module: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(module, tmp_path_factory.mktemp("weights"))


def _folder(root: Path, count: int = 3) -> Path:
    """PNGs of 70 x 60 pixels, and a manifest of them."""
    root.mkdir()
    for i, picture in enumerate(pictures(count, 70)):
        Image.fromarray(picture.numpy()[:60]).save(root / f"{i}.png")
    lines = ["image_id,uri,group", *(f"image-{i},{i}.png,patient-{i}" for i in range(count))]
    (root / "m.csv").write_text("\n".join(lines) + "\n")
    return root / "m.csv"


def _open(path: Path, weights: Path, home: Path, **more: object) -> Images:
    given = {"weights": weights, "recipe": RECIPE, "home": home, **more}
    return open_images(path, ARCHITECTURE, **given)


@pytest.fixture
def images(tmp_path: Path, weights: Path) -> Images:
    return _open(_folder(tmp_path / "images"), weights, tmp_path / "out")


def _run(images: Images, options: SaliencyOptions = COARSE, runtime: Runtime = CPU, **more: object) -> dict:
    maps: list[SaliencyMap] = []
    report = saliency(images, options, runtime=runtime, on_map=maps.append, **more)
    return report | {"maps": {one.image_id: one for one in maps}}


def _image(images: Images, row: int, side: int = SIDE) -> tuple[np.ndarray, torch.Tensor]:
    """What torchvision's own transforms make of a file: bytes, and normalised."""
    picture = Image.open(images.source.root / images.source.uris[row])
    crop = transforms.Compose(
        [transforms.Resize(side, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(side)]
    )(picture)
    x = transforms.Normalize(RECIPE.mean, RECIPE.sd)(transforms.ToTensor()(crop))[None]
    return np.asarray(crop), x


def _expected(module: nn.Module, x: torch.Tensor, stride: int, fill: torch.Tensor) -> np.ndarray:
    scores = occlusion_loop.scores(module, x, 10, stride, fill)
    return occlusion_loop.map_of(scores, SIDE, 10, stride)


@pytest.mark.parametrize("fill", ["0", "mean", "40,90,200"])
def test_maps_equal_the_study_s_loop(images: Images, module: nn.Module, fill: str) -> None:
    found = _run(images, SaliencyOptions(stride=5, ids=("image-1",), fill=fill))
    pixels, x = _image(images, 1)
    colours = {"0": torch.zeros(3), "mean": x.mean(dim=(0, 2, 3))}
    colour = colours.get(fill, (torch.tensor([40.0, 90, 200]) / 255 - MEAN) / SD)
    expected = _expected(module, x, 5, colour)
    one = found["maps"]["image-1"]
    np.testing.assert_allclose(one.map, expected, rtol=2e-4, atol=1e-6)
    np.testing.assert_array_equal(one.pixels, pixels[9:25, 9:25])
    assert one.diffusion == pytest.approx((expected > expected.mean()).mean(), abs=3 / INNER**2)
    item = found["items"][0]
    assert (item["image_id"], item["attentive_diffusion"]) == ("image-1", one.diffusion)
    assert item["error"]["places"] == 16 and item["error"]["max_error"] < 1e-6


def test_every_block_and_the_last_column_are_scored(images: Images, module: nn.Module) -> None:
    spec = resolve(ARCHITECTURE, weights=images.spec.weights_path, recipe=RECIPE)
    squares = Squares(SIDE, 10, 3)  # 9 places: blocks of 2, and one of 1
    occluder = Occluder(spec, CPU, squares)
    pixels, x = _image(images, 0)
    scores, _ = occluder.score(pixels)
    occluder.close()
    assert scores.done.all()
    expected = occlusion_loop.scores(module, x, 10, 3, torch.zeros(3))
    np.testing.assert_allclose(scores.values, expected, rtol=1e-3, atol=1e-6)


def test_batch_norm_in_train_mode_equals_the_loop(images: Images, module: nn.Module) -> None:
    occluder = Occluder(images.spec, CPU, Squares(SIDE, 10, 10), per_image_norm=True)
    pixels, x = _image(images, 0)
    scores, error = occluder.score(pixels)
    occluder.close()
    expected = occlusion_loop.scores(copy.deepcopy(module).train(), x, 10, 10, torch.zeros(3))
    frozen = occlusion_loop.scores(module, x, 10, 10, torch.zeros(3))
    np.testing.assert_allclose(scores.values, expected, rtol=1e-3, atol=1e-5)
    assert np.abs(expected - frozen).max() > 0.01
    assert error is not None and error.max_error < 1e-4


def test_as_published_is_stride_1_on_one_image(tmp_path: Path, weights: Path, module: nn.Module) -> None:
    small = Recipe(size=6, crop=6)  # 24 pixels: 15 places an axis
    images = _open(_folder(tmp_path / "images"), weights, tmp_path / "out", recipe=small)
    found = _run(images, SaliencyOptions(mode="as-published", ids=("image-2",)))
    assert (found["places"], found["stride"], found["size"], found["images"]) == (15**2, 1, 10, 1)
    _, x = _image(images, 2, 24)
    scores = occlusion_loop.scores(module, x, 10, 1, torch.zeros(3))
    expected = occlusion_loop.map_of(scores, 24, 10, 1)
    np.testing.assert_allclose(found["maps"]["image-2"].map, expected, rtol=2e-4)
    assert math.isnan(found["sd"]) and "reason" in found["interval"]
    assert found["notes"]


def _constant(value: float, folder: Path) -> Path:
    """A network that answers `value` in every feature, whatever it sees."""
    module = architectures.build_seeded(ARCHITECTURE, 0)
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.weight.data.zero_()
    module.layers[-2].bias.data.fill_(value)  # the last BatchNorm's
    return saved(module, folder)


def test_a_constant_model_gives_a_zero_map_and_diffusion_0(tmp_path: Path) -> None:
    images = _open(_folder(tmp_path / "images"), _constant(0.3, tmp_path), tmp_path / "out")
    found = _run(images)
    assert all((one.map == 0).all() for one in found["maps"].values())
    assert [item["attentive_diffusion"] for item in found["items"]] == [0, 0]
    assert found["mean"] == 0 and found["failed"] == 0


def test_a_zero_feature_is_undefined_with_a_reason(tmp_path: Path) -> None:
    images = _open(_folder(tmp_path / "images"), _constant(0.0, tmp_path), tmp_path / "out")
    found = _run(images)
    assert all(math.isnan(item["attentive_diffusion"]) for item in found["items"])
    assert {item["reason"] for item in found["items"]} == {"zero_feature"}
    assert found["failures"] == {"zero_feature": 2} and math.isnan(found["mean"])


class _OnePixel(nn.Module):
    """Reads the pixel at row 17, column 15 and nothing else."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x[:, :, 17, 15]


def test_a_one_pixel_model_gives_the_pyramid(images: Images) -> None:
    occluder = Occluder(images.spec, CPU, Squares(SIDE, 10, 1))
    occluder.net = windowed_forward.WindowedForward(_OnePixel(), CPU, SIDE)
    occluder._exact = windowed_forward.WindowedForward(_OnePixel(), CPU, SIDE, whole=True)
    scores, _ = occluder.score(_image(images, 0)[0])
    occluder.close()
    found = accumulate(scores.values, occluder.squares)
    ramp = np.array([*range(1, 11), *range(9, 0, -1)]) / 10
    expected = np.zeros((SIDE, SIDE))
    expected[17 - 9 : 17 + 10, 15 - 9 : 15 + 10] = np.outer(ramp, ramp)
    np.testing.assert_allclose(found, expected[9:25, 9:25], atol=1e-12)


# --- keeping and resuming ---------------------------------------------------------------------------------


def test_finished_maps_are_not_computed_again(images: Images) -> None:
    first = _run(images)
    again = _run(images)
    assert (first["computed"], again["computed"]) == (2, 0)
    assert again["items"] == first["items"]
    other = _run(images, SaliencyOptions(stride=5, images=2, fill="mean"))
    assert other["computed"] == 2 and other["key"] != first["key"]
    more = _run(images, SaliencyOptions(stride=5, images=3))
    assert more["computed"] == 1  # the smaller draw is the start of the larger
    records = [record for record in read_all(images.home) if record.kind == "saliency"]
    assert len(records) == 4
    assert records[0].metrics["items"][0]["attentive_diffusion"] == first["items"][0]["attentive_diffusion"]


def test_a_damaged_map_is_made_again(images: Images) -> None:
    first = _run(images)
    path = images.home / first["items"][0]["map"]
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(bytes(data))
    again = _run(images)
    assert again["computed"] == 1 and again["items"] == first["items"]


def test_another_file_under_the_same_id_gets_its_own_map(images: Images) -> None:
    options = SaliencyOptions(stride=5, ids=("image-0",))
    first = _run(images, options)
    (images.source.root / "1.png").replace(images.source.root / "0.png")
    again = _run(images, options)
    assert again["computed"] == 1
    assert again["items"][0]["attentive_diffusion"] != first["items"][0]["attentive_diffusion"]


def test_interrupted_maps_go_on_and_end_the_same(images: Images, tmp_path: Path, weights: Path) -> None:
    whole = _run(_open(images.source.root / "m.csv", weights, tmp_path / "whole"))
    seen: list[Progress] = []

    def stop(progress: Progress) -> None:
        seen.append(progress)
        if progress.done > 30:  # within the second image of 25 places
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _run(images, on_progress=stop)
    assert len(list(images.home.rglob("*.part.arrays"))) == 1
    seen.clear()
    rest = _run(images, on_progress=seen.append)
    assert rest["computed"] == 1
    assert 0 < seen[-1].computed <= 50 - 30
    assert seen[-1].done == seen[-1].total == 50
    assert not list(images.home.rglob("*.part.arrays"))
    for image_id, one in whole["maps"].items():
        np.testing.assert_array_equal(rest["maps"][image_id].map, one.map)


def test_number_of_threads_changes_no_bit(images: Images) -> None:
    pixels, _ = _image(images, 0)
    found = []
    for threads in (1, 3):
        occluder = Occluder(images.spec, Runtime("cpu", "fp32", threads), Squares(SIDE, 10, 5))
        found.append(occluder.score(pixels)[0].values)
        occluder.close()
    np.testing.assert_array_equal(*found)


def test_scores_that_are_there_are_kept(images: Images) -> None:
    squares = Squares(SIDE, 10, 5)
    given = Scores.none(squares)
    given.values[:4], given.done[:4] = 7.0, True
    occluder = Occluder(images.spec, CPU, squares)
    found, _ = occluder.score(_image(images, 0)[0], given)
    occluder.close()
    assert (found.values[:4] == 7).all() and (found.values[4:] < 7).all() and found.done.all()


# --- bad input --------------------------------------------------------------------------------------------


def test_bad_images_cost_their_own_row(tmp_path: Path, weights: Path) -> None:
    path = _folder(tmp_path / "images")
    Image.new("RGB", (9, 40)).save(path.parent / "0.png")
    whole = (path.parent / "1.png").read_bytes()
    (path.parent / "1.png").write_bytes(whole[: len(whole) // 2])
    found = _run(_open(path, weights, tmp_path / "out"), SaliencyOptions(stride=5, images=3))
    assert found["failures"] == {"too_small": 1, "truncated": 1} and found["failed"] == 2
    known = [i["attentive_diffusion"] for i in found["items"] if "reason" not in i]
    assert len(known) == 1 and found["mean"] == known[0]
    assert math.isnan(found["sd"])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"ids": ("nobody",)}, "nobody"),
        ({"images": 4}, "There are 3"),
        ({"size": 0}, "size = 0"),
        ({"stride": 11}, "stride 11"),
        ({"fill": "1,2"}, "fill"),
        ({"fill": "1,2,256"}, "fill"),
        ({"mode": "published"}, "mode"),
        ({"batch_norm": "train"}, "default"),
        ({"mode": "as-published", "stride": 2}, "stride 2"),
        ({"mode": "as-published", "images": 2}, "2 images"),
        ({"ids": ("image-0",), "images": 1}, "One of them"),
    ],
)
def test_requests_that_make_no_sense_are_refused(images: Images, settings: dict, says: str) -> None:
    with pytest.raises(Refused, match=says):
        _run(images, SaliencyOptions(**settings))
    assert not (images.home / "records").exists()


def test_as_published_refuses_reduced_precision(images: Images) -> None:
    with pytest.raises(Refused, match="float32"):
        _run(images, SaliencyOptions(mode="as-published"), Runtime("cpu", "bf16", 1))


def test_a_colour_has_no_value_under_histogram_normalisation(images: Images) -> None:
    histogram = Recipe(size=INNER, crop=INNER, normalise="histogram")
    spec = resolve(ARCHITECTURE, weights=images.spec.weights_path, recipe=histogram)
    with pytest.raises(Refused, match="histogram"):
        Occluder(spec, CPU, Squares(SIDE, 10, 5), fill="1,2,3")
    assert parse_fill("1, 2,3") == (1, 2, 3)


def test_bf16_states_its_error(images: Images) -> None:
    exact = _run(images)
    found = _run(images, runtime=Runtime("cpu", "bf16", 2))
    assert found["key"] != exact["key"] and found["precision"] == "bf16"
    for one, truth in zip(found["items"], exact["items"], strict=True):
        error = one["error"]
        assert error["max_error"] > 100 * truth["error"]["max_error"]
        # The sample's error is of the size of the whole map's.
        a, b = (each["maps"][one["image_id"]].map for each in (found, exact))
        assert np.abs(a - b).max() < 3 * error["max_error"]
        assert error["sd_score"] > 0 and error["mean_score"] > 0


def test_interval_is_over_patients(tmp_path: Path, weights: Path) -> None:
    path = _folder(tmp_path / "images")
    path.write_text(path.read_text().replace("patient-1", "patient-0"))
    found = _run(_open(path, weights, tmp_path / "out"), SaliencyOptions(stride=5, images=3))
    values = [item["attentive_diffusion"] for item in found["items"]]
    assert found["mean"] == pytest.approx(np.mean(values))
    assert found["sd"] == pytest.approx(np.std(values, ddof=1))
    between = found["interval"]
    assert between["groups"] == 2 and min(values) <= between["low"] <= between["high"] <= max(values)


@pytest.mark.gpu
def test_cuda_equals_the_cpu(images: Images, tmp_path: Path, weights: Path) -> None:
    here = _run(images)
    there = _open(images.source.root / "m.csv", weights, tmp_path / "there")
    found = _run(there, runtime=Runtime("cuda:0", "fp32", 2))
    for image_id, one in here["maps"].items():
        np.testing.assert_allclose(found["maps"][image_id].map, one.map, rtol=1e-3, atol=1e-6)


def test_record_says_what_was_used(images: Images) -> None:
    _run(images)
    record = read_all(images.home)[-1]
    assert record.used["network"]["pieces"] > 5
    assert record.used["weights"] == images.spec.weights_sha256
    assert record.asked["stride"] == 5 and record.seconds["total"] > 0
    assert json.dumps(record.metrics)
