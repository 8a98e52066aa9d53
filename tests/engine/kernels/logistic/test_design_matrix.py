"""Products with the rows of a fit."""

import numpy as np
import pytest
import torch

from engine.kernels.logistic import design_matrix
from engine.kernels.logistic.design_matrix import Rows


@pytest.mark.parametrize("resident", [0, 1 << 30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [700, 2048, 17 * 1024 + 5])
def test_products_are_numpys(
    count: int, dtype: torch.dtype, resident: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(design_matrix, "SMALL", 0)
    rng = np.random.default_rng(count)
    features = rng.normal(size=(count + 10, 3)).astype(np.float32) + 7
    index = np.sort(rng.permutation(count + 10)[:count])
    scale, theta = np.array([1.0, 2.0, 0.5]), rng.normal(size=(2, 5, 4))
    rows = Rows.of(features, index, scale, "cpu", resident)
    x = (features[index].astype(np.float64) - features[index].mean(0, dtype=np.float64)) / scale
    expected = np.einsum("pkd,nd->pkn", theta[..., :-1], x) + theta[..., -1:]
    closeness = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-6, "atol": 1e-6}
    for _ in range(2):  # the second time with what was kept
        images = rows.images(torch.from_numpy(theta).to(dtype))
        assert [i.shape[2] for i in images] == [part.stop - part.start for part in rows.slices()]
        np.testing.assert_allclose(torch.cat(images, dim=2), expected, **closeness)
        sums = rows.gradients(images)
        assert sums.dtype == torch.float64
        np.testing.assert_allclose(sums[..., :-1], expected @ x, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(sums[..., -1], expected.sum(2), rtol=1e-4, atol=1e-3)
