"""The approximate index and its recall, against scikit-learn's exact search."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from engine.evals.neighbours import approximate
from engine.kernels.faiss_library import why_not
from engine.kernels.vectors import Vectors

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "works")


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_recall_is_the_share_of_exact_neighbours_found(distance: str) -> None:
    x = np.random.default_rng(0).normal(0.3, 1, (1500, 12)).astype(np.float32)
    built = approximate.build("ivf", Vectors(x), distance)
    lists = built.settings["lists"]
    assert lists > 20
    oracle = NearestNeighbors(n_neighbors=6, metric=distance, algorithm="brute").fit(x.astype(np.float64))
    sample = np.arange(0, 1500, 7)[:200]
    truth = oracle.kneighbors(x[sample].astype(np.float64), return_distance=False)[:, 1:]
    recalls = []
    for visited in (1, 4, lists):
        built.index.nprobe = visited
        found = built.nearest(Vectors(x[sample]), 6).rows
        expected = np.mean([len(set(t) & set(f)) for t, f in zip(truth, found, strict=True)]) / 5
        recall, n = approximate.recall(built, Vectors(x), 5, "array", "cpu")
        assert n == 200
        assert recall == pytest.approx(expected)
        recalls.append(recall)
    assert recalls == sorted(recalls)
    assert recalls[0] < 0.9
    assert recalls[-1] == 1
