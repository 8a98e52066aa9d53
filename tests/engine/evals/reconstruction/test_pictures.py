"""LPIPS of reconstructions, against the package's own networks with the same drawn trunks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.evals.reconstruction.pictures import Similarity
from tests.engine.models.plain import pictures
from tests.perceptual_trunks import packages_own, saved

PIXELS = list(pictures(3, 40).numpy())


def expected(net: str, image: np.ndarray) -> float:
    a, b = (torch.from_numpy(x).permute(2, 0, 1)[None] / 127.5 - 1 for x in (PIXELS[0], image))
    with torch.no_grad():
        return float(packages_own(net)(a, b))


@pytest.mark.parametrize(
    "nets", [("squeeze",), pytest.param(("alex", "squeeze", "vgg"), marks=pytest.mark.thorough)]
)
def test_distances_are_the_package_s_and_the_mean_needs_all(nets: tuple[str, ...], tmp_path: Path) -> None:
    similarity = Similarity("cpu", 40, {net: saved(net, tmp_path) for net in nets})
    lines = similarity(PIXELS[0], PIXELS[1:])
    for image, line in zip(PIXELS[1:], lines, strict=True):
        values = [expected(net, image) for net in nets]
        assert [line[net] for net in nets] == pytest.approx(values, rel=1e-5) and min(values) > 0
        if len(nets) == 3:
            assert line["mean"] == pytest.approx(np.mean(values), rel=1e-5) and not similarity.reason
        else:
            assert np.isnan([line["alex"], line["vgg"], line["mean"]]).all()
            assert "alex, vgg, and the mean" in similarity.reason and "models fetch" in similarity.reason
    assert similarity(PIXELS[0], PIXELS[:1])[0]["squeeze"] == 0


def test_without_trunks_and_below_the_least_side_there_is_a_reason(tmp_path: Path) -> None:
    assert "supervised-vgg16" in Similarity("cpu", 224).reason
    small = Similarity("cpu", 16, {"squeeze": saved("squeeze", tmp_path)})
    assert small.reason and np.isnan(small(PIXELS[0], PIXELS[:1])[0]["squeeze"])
