"""How often covariance, whitening and multi-view invariance wait for the device.

Moments: once, for whether they are finite. A factor: once (`components`: once, for the eigenvalues). Cosines
and distances: once. A multi-view evaluation does each for two halves, with a baseline of two waits, and waits
for the end of the upload. Nothing grows with images, views or dimensions but what torch's own decompositions
wait for.
"""

from collections.abc import Callable

import numpy as np
import pytest

from engine.evals.common.compute import Compute
from engine.evals.common.features import Features
from engine.evals.invariance.multiview import MultiViewResult, evaluate
from engine.evals.invariance.options import MultiViewOptions
from engine.kernels.covariance import moments
from engine.kernels.whitening import Regularisation, fit_whitener
from engine.kernels.whitening_place import whitening_on
from tests.pretended.streams import Device

PLACE = "cuda:0"
#: torch waits in them by itself.
DECOMPOSITIONS = {"_linalg_eigh"}


def _waits(device: Device, work: Callable[[], object]) -> int:
    """Waits of the program's own; all copies are of page-locked memory."""
    before = len(device.ledger.entries)
    work()
    entries = device.ledger.entries[before:]
    assert all(entry.pinned for entry in entries if entry.kind != "wait")
    assert "copy" not in {entry.cause for entry in entries if entry.kind == "wait"}
    return sum(entry.kind == "wait" and entry.cause not in DECOMPOSITIONS for entry in entries)


@pytest.mark.parametrize("how", ["ledoit-wolf", "ridge=0.1", "none", "components=3"])
def test_a_factor_and_cosines_take_three_waits(how: str, device: Device) -> None:
    for n, k, d in ((60, 2, 5), (400, 9, 12)):
        x = np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)
        views = x[:4, None] + np.random.default_rng(1).normal(size=(4, k, d)).astype(np.float32)

        def work(x: np.ndarray = x, views: np.ndarray = views) -> None:
            found = fit_whitener(moments(x, device=PLACE), Regularisation.parse(how))
            whitening_on(PLACE, found).agreement(x[:4], views)

        assert _waits(device, work) == 3


def test_multi_view_does_not_wait_more_for_more(device: Device) -> None:
    counts = []
    for n, d in ((40, 4), (240, 9)):
        x = np.random.default_rng(0).normal(size=(n, d)).astype(np.float16)
        studies, names = np.arange(n) // 2, np.array(["frontal", "lateral"])[np.arange(n) % 2]
        features = Features.from_arrays(x, None, studies=studies, groups=studies // 2, views=names)
        here = evaluate(features, MultiViewOptions(), Compute())
        found: list[MultiViewResult] = []

        def work(features: Features = features, found: list[MultiViewResult] = found) -> None:
            found.append(evaluate(features, MultiViewOptions(), Compute(PLACE)))

        counts.append(_waits(device, work))
        np.testing.assert_allclose(found[0].cosine, here.cosine, atol=1e-9)
        assert found[0].summary.baseline.mean == pytest.approx(here.summary.baseline.mean, abs=1e-6)
    assert counts[0] == counts[1] <= 11
