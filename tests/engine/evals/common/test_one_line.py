"""Results as an interpreter shows them: one line with the numbers that their fields have."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.evals.common.one_line import counted, number, within
from engine.evals.fewshot.evaluate import Protocol, fewshot
from engine.evals.invariance.result import Invariance
from engine.evals.invariance.summary import Summary
from engine.evals.invariance.view_store import Views
from engine.evals.neighbours.knn import KnnOptions, knn
from engine.evals.neighbours.search import search
from engine.evals.probe.evaluate import ProbeOptions, probe
from tests.probe_banks import FIRST, make_probe_bank

RNG = np.random.default_rng(0)
Y = np.arange(120) % 3
X = (RNG.normal(size=(120, 6)) + 1.5 * np.eye(6)[Y]).astype(np.float32)
TEST = np.arange(120) % 4 == 0


def test_few_shot_shows_accuracy_and_interval() -> None:
    found = fewshot(X, Y, Protocol(n_way=2, n_shot=5, episodes=20))
    mean = found.per_episode.mean()
    half = 1.959964 * found.per_episode.std(ddof=1) / math.sqrt(20)
    assert repr(found) == (
        f"FewShotResult(accuracy {mean:.4f} [{mean - half:.4f}, {mean + half:.4f}], 95 % over 20 episodes; "
        "2-way 5-shot, sqeuclidean; 120 images)"
    )


def test_knn_shows_the_headline() -> None:
    found = knn(X, Y, KnnOptions(k=(3, 1)), train=~TEST, test=TEST)
    accuracy = np.mean(found.predicted[:, 0] == Y[TEST])
    assert repr(found).startswith(f"KnnResult(accuracy {accuracy:.4f}, balanced ")
    assert repr(found).endswith("at k = 3; 30 images tested, 90 voting, 3 classes)")


def test_probe_shows_numbers_intervals_and_c() -> None:
    found = probe(X, Y, train=~TEST, test=TEST, options=ProbeOptions(C=(0.1,), bootstrap=50))
    accuracy = np.mean(found.probabilities.argmax(axis=1) == Y[TEST])
    low, high = found.intervals["accuracy"].low, found.intervals["accuracy"].high
    text = repr(found)
    assert text.startswith(f"ProbeResult('label': accuracy {accuracy:.4f} [{low:.4f}, {high:.4f}], AUROC 0.")
    assert text.endswith("95 % over 30 groups; C = 0.1; 30 images tested, 3 classes)")
    bare = repr(replace(found, intervals={}))
    assert f"accuracy {accuracy:.4f}, AUROC" in bare and "95 %" not in bare
    assert "\n" not in text


def test_search_shows_the_nearest(tmp_path: Path) -> None:
    bank = make_probe_bank(tmp_path)
    found = search(bank.path, FIRST, image_id="image 3", k=2)
    first = found.found[0]
    assert repr(found) == (
        f"SearchResult('image 3': 2 neighbours, nearest {first.image_id!r} at {first.distance:.4f})"
    )


@pytest.mark.parametrize(
    ("cosine", "ci95", "says"),
    [
        (0.5, 0.25, "cosine 0.5000 [0.2500, 0.7500], 2 images"),
        (math.nan, math.nan, "cosine undefined (no interval), 2 images"),
        (0.5, math.nan, "cosine 0.5000 (no interval), 2 images"),
    ],
)
def test_invariance_shows_the_cosine(cosine: float, ci95: float, says: str) -> None:
    rows, nothing = np.arange(2), np.empty((2, 0))
    reason = "" if math.isfinite(cosine) else "few"
    summary = Summary(cosine, ci95, 1.0, 0.1, 2, 2, 0, reason=reason)
    one = Invariance(rows, rows, nothing, nothing, Views("rotation"), summary, None)
    assert repr(one) == f"Invariance(rotation: {says})"


def test_numbers_that_are_none() -> None:
    assert number(math.nan) == "undefined" and number(0.12345) == "0.1235"
    assert within(0.5, math.nan, 1.0) == "0.5000 (no interval)"
    assert (counted(1, "image"), counted(2000, "image")) == ("1 image", "2,000 images")
