"""Statistics of grey images against numpy's own functions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels.image_statistics import image_statistics


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1), st.integers(1, 256))
def test_statistics_are_numpys(height: int, width: int, seed: int, levels: int) -> None:
    grey = np.random.default_rng(seed).integers(0, levels, (height, width), np.uint8)
    values = image_statistics(grey)
    bins = np.histogram(grey, 32, (0, 256))[0] / grey.size
    assert values[:2].tolist() == [height, width]
    assert values[2:4] == pytest.approx([grey.mean(), grey.astype(np.float64).std()], abs=1e-9)
    assert values[4:] == pytest.approx(bins, abs=1e-12)
