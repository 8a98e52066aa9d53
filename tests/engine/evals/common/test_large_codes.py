"""Patients and classes that are numbers of nineteen digits: results are those of small numbers."""

import numpy as np
import pytest

from engine.evals.common.compute import Compute
from engine.evals.common.features import Features
from engine.evals.fewshot.evaluate import Protocol, fewshot
from engine.evals.neighbours import audit
from engine.evals.neighbours.knn import KnnOptions, knn
from engine.evals.probe.evaluate import probe
from engine.evals.probe.options import ProbeOptions
from engine.kernels.intervals.cluster_robust import mean_interval

COUNT = 120
GROUPS = np.random.default_rng(0).permutation(np.arange(COUNT) // 3)
LABELS = GROUPS % 3
MATRIX = (np.random.default_rng(1).normal(size=(COUNT, 6)) + LABELS[:, None]).astype(np.float32)


def _large(codes: np.ndarray) -> np.ndarray:
    """Codes of the same order near 2**62, every fifth row without one."""
    return np.where(np.arange(COUNT) % 5, 2**62 + 1_000_003 * codes, -(2**62))


def _small(codes: np.ndarray) -> np.ndarray:
    return np.where(np.arange(COUNT) % 5, codes, -1)


@pytest.mark.parametrize("bootstrap", [0, 50])
def test_fewshot(bootstrap: int) -> None:
    protocol = Protocol(n_way=3, n_shot=2, n_query=3, episodes=20)
    small, large = (
        fewshot(MATRIX, of(LABELS), protocol, groups=of(GROUPS), bootstrap=bootstrap)
        for of in (_small, _large)
    )
    assert small.protocol.group_disjoint and large.protocol.group_disjoint
    assert large.episodes_digest == small.episodes_digest
    assert large.classes == tuple(2**62 + 1_000_003 * c for c in (0, 1, 2))
    for name in ("per_episode", "per_patient", "confusion"):
        np.testing.assert_array_equal(getattr(large, name), getattr(small, name))
    assert (large.bootstrap, large.patients) == (small.bootstrap, small.patients)


def test_knn() -> None:
    small, large = (knn(MATRIX, of(LABELS), KnnOptions(k=(3,)), groups=of(GROUPS)) for of in (_small, _large))
    np.testing.assert_array_equal(large.neighbours.rows, small.neighbours.rows)
    np.testing.assert_array_equal(large.predicted, 2**62 + 1_000_003 * small.predicted)
    assert large.by_k == small.by_k


def test_probe() -> None:
    val, test = GROUPS < 9, GROUPS > 27
    options = ProbeOptions(C=(0.1, 1.0), bootstrap=20)
    small, large = (
        probe(MATRIX, of(LABELS), train=~val & ~test, val=val, test=test, groups=of(GROUPS), options=options)
        for of in (_small, _large)
    )
    assert (large.test.headline, large.intervals) == (small.test.headline, small.intervals)


def test_audit() -> None:
    doubled = np.concatenate([MATRIX, MATRIX])
    reports = [
        audit.evaluate(
            Features.from_arrays(
                doubled, None, groups=np.tile(of(GROUPS), 2), splits=np.repeat([0, 2**62], COUNT)
            ),
            audit.AuditOptions(0.999, 10),
            Compute(),
        ).to_dict()
        for of in (_small, _large)
    ]
    assert reports[0] == reports[1] and reports[0]["pairs"] >= COUNT


def test_intervals() -> None:
    values = np.random.default_rng(2).normal(size=COUNT)
    small, large = GROUPS, 2**62 + 1_000_003 * GROUPS
    assert mean_interval(values, large) == mean_interval(values, small)
