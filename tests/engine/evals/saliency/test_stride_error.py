"""The stated distance of a strided map from the exact one, against whole exact maps."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from engine.errors import Refused
from engine.evals.common.image_inputs import Images, open_images
from engine.evals.saliency.bank import saliency
from engine.evals.saliency.estimate import Estimate
from engine.evals.saliency.occluder import Occluder, Scores
from engine.evals.saliency.options import CPU_STRIDE, SaliencyOptions
from engine.evals.saliency.stride_error import stride_error, windows
from engine.kernels.episodes import Stream
from engine.kernels.occlusion import Squares, accumulate
from engine.models import resolve
from engine.models.forward import windowed_forward
from engine.recipes import Recipe
from engine.runtime import Runtime
from stores.bank.records import read_all
from tests.engine.models.plain import pictures

pytestmark = pytest.mark.slow

MODEL, CPU = "random/mnasnet0_5", Runtime("cpu", "fp32", 2)
KEY = bytes(range(16))


class _Means(nn.Module):
    """Means of the picture's sixteenths: cheap, and different at every place of a square."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.adaptive_avg_pool2d(x, 4).flatten(1)


def _occluder(side: int, stride: int) -> Occluder:
    spec = resolve(MODEL, recipe=Recipe(size=side, crop=side))
    occluder = Occluder(spec, CPU, Squares(side, 10, stride))
    occluder.net = windowed_forward.WindowedForward(_Means(), CPU, side)
    return occluder


def _map(occluder: Occluder, pixels: np.ndarray) -> np.ndarray:
    scores, _ = occluder.score(pixels, check=False)
    return accumulate(scores.values, occluder.squares)


@pytest.mark.parametrize(("side", "stride", "count"), [(48, 2, 4), (34, 5, 1)])
def test_the_error_is_that_of_the_whole_exact_map(side: int, stride: int, count: int) -> None:
    pixels = pictures(1, side)[0].numpy()
    exact, coarse = _occluder(side, 1), _occluder(side, stride)
    truth, map = _map(exact, pixels), _map(coarse, pixels)
    found = stride_error(coarse, pixels, map, Stream(KEY))
    chosen = windows(len(map), stride, coarse.squares.count, Stream(KEY))
    exact.close(), coarse.close()
    assert len(chosen) == count
    a, b = (np.concatenate([each[at].ravel() for at in chosen]) for each in (truth, map))
    assert found.pixels == len(a) == count * (9 if count == 1 else stride**2)
    assert found.mean_error == pytest.approx(np.abs(a - b).mean(), rel=1e-5) and found.mean_error > 0
    assert found.max_error == pytest.approx(np.abs(a - b).max(), rel=1e-5)
    assert found.mean_score == pytest.approx(a.mean(), rel=1e-5)
    assert found.other_side == pytest.approx(((a > map.mean()) != (b > map.mean())).mean(), abs=0.01)
    # A sample speaks for the map: of the same size as the error everywhere.
    whole = np.abs(truth - map)
    assert whole.mean() / 4 < found.mean_error < 4 * whole.mean() and found.max_error <= whole.max() * 1.001


def test_windows_lie_in_the_map_one_in_each_quarter() -> None:
    for seed in range(20):
        found = windows(224, 8, 900, Stream(bytes([seed]) * 16))
        assert len(found) == 4
        for at, (rows, columns) in enumerate(found):
            assert (rows.stop - rows.start, columns.stop - columns.start) == (8, 8)
            for part, along in zip((rows, columns), divmod(at, 2), strict=True):
                assert 112 * along <= part.start and part.stop <= 112 * (along + 1)
    assert windows(2, 8, 4, Stream(KEY)) == [(slice(0, 2), slice(0, 2))]


def test_timed_blocks_are_not_lost() -> None:
    occluder, pixels = _occluder(48, 1), pictures(1, 48)[0].numpy()
    whole, _ = occluder.score(pixels, check=False)
    scores = Scores.none(occluder.squares)
    seconds = occluder.seconds_a_place(pixels, scores)
    done = scores.done.copy()
    assert 0 < seconds < 1 and 8 * 4 <= done.sum() < done.size / 2
    np.testing.assert_array_equal(scores.values[done], whole.values[done])
    again, _ = occluder.score(pixels, scores, check=False)
    np.testing.assert_array_equal(again.values, whole.values)
    assert np.isnan(occluder.seconds_a_place(pixels, scores))  # nothing is left to time
    occluder.close()


# --- the command's defaults ---------------------------------------------------------------------------------


def test_the_stride_depends_on_the_device_alone() -> None:
    plain, published = SaliencyOptions(), SaliencyOptions(mode="as-published")
    assert (plain.on(cuda=False).stride, plain.on(cuda=True).stride) == (CPU_STRIDE, 1)
    assert published.on(cuda=False).stride == published.on(cuda=True).stride == 1
    assert SaliencyOptions(stride=1).on(cuda=False).stride == 1
    assert SaliencyOptions(size=3).on(cuda=False).stride == 3
    with pytest.raises(Refused, match="stride 2"):
        SaliencyOptions(mode="as-published", stride=2)


@pytest.fixture
def images(tmp_path: Path) -> Images:
    for i, picture in enumerate(pictures(2, 40)):
        Image.fromarray(picture.numpy()).save(tmp_path / f"{i}.png")
    (tmp_path / "m.csv").write_text("image_id,uri\na,0.png\nb,1.png\n")
    return open_images(tmp_path / "m.csv", MODEL, recipe=Recipe(size=6, crop=6), home=tmp_path / "out")


def test_the_default_on_the_cpu_says_its_stride_and_its_distance(images: Images) -> None:
    told: list[Estimate] = []
    found = saliency(images, SaliencyOptions(), runtime=CPU, on_estimate=told.append)
    assert found["stride"] == CPU_STRIDE and [item["stride"] for item in found["items"]] == [CPU_STRIDE] * 2
    (before,) = told
    assert (before.maps, before.places, before.stride) == (2, 2 * 4, CPU_STRIDE)
    error = found["stride_error"]
    assert error["image_id"] == found["items"][0]["image_id"] and error["mean_error"] > 0
    assert "stride 8" in found["notes"][0] and "--stride 1" in found["notes"][0]
    again = saliency(images, SaliencyOptions(), runtime=CPU, on_estimate=told.append)
    assert (again["computed"], again["stride_error"], len(told)) == (0, error, 1)
    record = read_all(images.home)[-1]
    assert record.metrics["stride_error"] == error and record.used["stride"] == CPU_STRIDE
    for path in images.home.rglob("*.stride.arrays"):
        path.unlink()  # as earlier versions left it
    unknown = saliency(images, SaliencyOptions(), runtime=CPU)["stride_error"]
    assert np.isnan(unknown["mean_error"]) and unknown["reason"] and json.dumps(unknown)


def test_a_run_that_is_stopped_while_it_measures_measures_again(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    expected = saliency(replace(images, home=images.home / "whole"), SaliencyOptions(), runtime=CPU)
    monkeypatch.setattr("engine.evals.saliency.evaluate.stride_error", stop)
    with pytest.raises(KeyboardInterrupt):
        saliency(images, SaliencyOptions(), runtime=CPU)
    monkeypatch.undo()
    assert saliency(images, SaliencyOptions(), runtime=CPU)["stride_error"] == expected["stride_error"]


def test_exact_maps_have_no_distance_and_are_pointed_out(images: Images) -> None:
    told: list[Estimate] = []
    exact = SaliencyOptions(stride=1, ids=("a",))
    found = saliency(images, exact, runtime=CPU, on_estimate=told.append)
    assert found["stride_error"] is None and found["notes"] == []
    saliency(images, SaliencyOptions(), runtime=CPU, on_estimate=told.append)
    assert [each.exact for each in told] == [0, 1]
