"""Occlusion maps against the plain loop, and the cases whose answer is known."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import Refused
from engine.kernels.occlusion import Squares, accumulate, attentive_diffusion, occlude, relative_change


def loop(scores: np.ndarray, squares: Squares) -> np.ndarray:
    """The study's accumulation, written plainly: add to the covered pixels, divide by how often, cut."""
    total, count = np.zeros((squares.side,) * 2), np.zeros((squares.side,) * 2)
    for i in range(len(scores)):
        for j in range(len(scores)):
            y, x = i * squares.stride, j * squares.stride
            total[y : y + squares.size, x : x + squares.size] += scores[i, j]
            count[y : y + squares.size, x : x + squares.size] += 1
    cut = squares.size - 1
    inside = slice(cut, squares.side - cut)
    assert count[inside, inside].min() > 0
    return total[inside, inside] / count[inside, inside]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_box_filter_equals_the_plain_loop(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 6))
    stride = data.draw(st.integers(1, size))
    squares = Squares(2 * (size - 1) + data.draw(st.integers(1, 12)), size, stride)
    seed = data.draw(st.integers(0, 999))
    scores = np.random.default_rng(seed).exponential(size=(squares.per_axis,) * 2)
    np.testing.assert_allclose(accumulate(scores, squares), loop(scores, squares), rtol=1e-13)


def test_the_study_s_numbers() -> None:
    squares = Squares()
    assert (squares.per_axis, squares.count, squares.inner) == (233, 54_289, 224)
    scores = np.random.default_rng(0).exponential(size=(233, 233))
    # Every kept pixel is covered by 100 squares: rows and columns from 0 to 9 places before it.
    found = accumulate(scores, squares)
    assert found.shape == (224, 224)
    for y, x in [(0, 0), (223, 223), (100, 7)]:
        assert found[y, x] == pytest.approx(scores[y : y + 10, x : x + 10].sum() / 100, rel=1e-13)


def test_a_model_that_reads_one_pixel_gives_a_pyramid_of_19_x_19() -> None:
    squares = Squares()
    y, x = 120, 90
    scores = np.zeros((233, 233))
    scores[y - 9 : y + 1, x - 9 : x + 1] = 1  # the squares that cover the pixel
    found = accumulate(scores, squares)
    ramp = np.array([*range(1, 11), *range(9, 0, -1)]) / 10
    expected = np.zeros((224, 224))
    expected[y - 18 : y + 1, x - 18 : x + 1] = np.outer(ramp, ramp)  # cut by 9: pixel 120 is row 111
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    assert attentive_diffusion(found) == pytest.approx(
        (np.outer(ramp, ramp) > np.outer(ramp, ramp).sum() / 224**2).sum() / 224**2
    )


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 49, 3e-7])
def test_a_constant_map_has_no_pixel_above_its_mean(value: float) -> None:
    squares = Squares(30, 4, 1)
    scores = np.full((squares.per_axis,) * 2, value)
    assert attentive_diffusion(accumulate(scores, squares)) == 0
    assert attentive_diffusion(np.full((7, 7), value)) == 0


def test_diffusion_counts_strictly_above_the_mean() -> None:
    assert attentive_diffusion(np.array([[0.0, 1.0], [2.0, 3.0]])) == 0.5
    assert attentive_diffusion(np.array([[0.0, 1.0, 2.0]])) == pytest.approx(1 / 3)
    assert math.isnan(attentive_diffusion(np.array([[0.0, np.nan]])))


@pytest.mark.parametrize(("side", "size", "stride"), [(242, 0, 1), (242, 10, 0), (242, 10, 11), (18, 10, 1)])
def test_numbers_that_leave_no_map_are_refused(side: int, size: int, stride: int) -> None:
    with pytest.raises(Refused):
        Squares(side, size, stride)


def test_scores_of_another_grid_are_an_error() -> None:
    with pytest.raises(ValueError, match="233"):
        accumulate(np.zeros((232, 233)), Squares())


def test_occluded_copies_equal_slicing() -> None:
    image = torch.randn(1, 3, 9, 11, generator=torch.Generator().manual_seed(0))
    fill = torch.tensor([0.5, -1.0, 2.0])
    found = occlude(image, range(0, 6, 2), range(3, 8, 3), 4, fill)
    expected = []
    for y in (0, 2, 4):
        for x in (3, 6):
            copy = image[0].clone()
            copy[:, y : y + 4, x : x + 4] = fill[:, None, None]
            expected.append(copy)
    assert torch.equal(found, torch.stack(expected))


def test_relative_change_is_the_norm_of_the_difference_over_the_norm() -> None:
    rng = np.random.default_rng(0)
    feature, others = rng.normal(size=8).astype(np.float32), rng.normal(size=(5, 8)).astype(np.float32)
    wide = feature.astype(np.float64)
    expected = np.linalg.norm(others - wide, axis=1) / np.linalg.norm(wide)
    found = relative_change(torch.from_numpy(others), torch.from_numpy(feature))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)
    assert torch.isnan(relative_change(torch.from_numpy(others), torch.zeros(8))).all()


@pytest.mark.gpu
def test_occluded_copies_are_the_same_on_cuda() -> None:
    image = torch.randn(1, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    fill = torch.tensor([0.5, -1.0, 2.0])
    there = occlude(image.cuda(), range(5), range(0, 10, 3), 4, fill.cuda())
    assert torch.equal(there.cpu(), occlude(image, range(5), range(0, 10, 3), 4, fill))
