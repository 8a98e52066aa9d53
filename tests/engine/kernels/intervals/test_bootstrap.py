"""Intervals against scipy, closed forms and the plain loop with scikit-learn's metrics."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from engine.kernels.episodes import Identity, Stream
from engine.kernels.intervals import bootstrap_ratio, metrics_bootstrap, over_episodes, paired
from engine.kernels.intervals.metrics_bootstrap import bootstrap_metrics
from engine.kernels.metrics import Evaluation


def test_over_episodes_is_the_normal_interval() -> None:
    values = np.random.default_rng(0).random(600)
    found = over_episodes(values)
    assert found.mean == pytest.approx(values.mean())
    assert found.ci95 == pytest.approx(1.96 * stats.sem(values), rel=1e-12)
    assert over_episodes(values, population=True).ci95 == pytest.approx(1.96 * values.std() / np.sqrt(600))


def test_paired_is_of_the_differences() -> None:
    generator = np.random.default_rng(0)
    hard = generator.random(400)
    a, b = hard + 0.02 + 0.01 * generator.random(400), hard
    found = paired(a, b)
    assert found.mean == pytest.approx((a - b).mean())
    assert found.ci95 < over_episodes(a).ci95 / 10


def test_the_bootstrap_is_as_wide_as_theory_says() -> None:
    """Patients of equal size: the mean over patients has the standard error of independent draws."""
    generator = np.random.default_rng(0)
    right = generator.binomial(1, 0.7, 400)  # a patient is right or wrong with all of 5 images
    groups, correct, asked = np.repeat(np.arange(400), 5), np.repeat(right, 5), np.ones(2000, int)
    stream = Identity(0, "", 2, 1, 1).stream("bootstrap")
    found = bootstrap_ratio(correct, asked, groups, 4000, stream)
    assert (found.groups, found.resamples) == (400, 4000)
    wanted = 2 * 1.96 * right.std() / np.sqrt(400)
    assert found.high - found.low == pytest.approx(wanted, rel=0.08)
    assert (found.low + found.high) / 2 == pytest.approx(right.mean(), abs=0.01)


def test_images_never_asked_do_not_count() -> None:
    stream = Identity(0, "", 2, 1, 1).stream("bootstrap")
    found = bootstrap_ratio(np.array([2, 1, 0]), np.array([2, 1, 0]), np.array([0, 1, 2]), 10, stream)
    assert (found.low, found.high, found.groups) == (
        1.0,
        1.0,
        2,
    )  # both are right in all that they were asked


@pytest.mark.parametrize(
    ("groups", "resamples", "said"), [([5, 5, 5], 1000, "1 patient "), ([5, 6, 7], 1, "1 resample")]
)
def test_one_patient_or_one_resample_gives_no_interval(groups: list[int], resamples: int, said: str) -> None:
    """Every resample of one patient is that patient: an interval of no width would be no certainty."""
    stream = Identity(0, "", 2, 1, 1).stream("bootstrap")
    found = bootstrap_ratio(np.array([1, 0, 1]), np.ones(3), np.array(groups), resamples, stream)
    assert np.isnan([found.low, found.high]).all()
    assert said in found.to_dict()["reason"]
    truth, p = np.array([0, 1, 0]), np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.7]])
    for interval in bootstrap_metrics(truth, p, np.array(groups), resamples=resamples).values():
        assert np.isnan([interval.low, interval.high]).all()
        assert said in interval.to_dict()["reason"]


def predictions(seed: int, n: int, classes: int, levels: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth with every class in it, and probabilities with ties."""
    rng = np.random.default_rng(seed)
    truth = np.concatenate([np.arange(classes), rng.integers(0, classes, n)])
    scores = rng.integers(0, levels, (len(truth), classes)) + np.eye(classes)[truth] + 0.25
    return truth, scores / scores.sum(axis=1, keepdims=True)


def looped(
    truth: np.ndarray, scores: np.ndarray, groups: np.ndarray, resamples: int, seed: int
) -> dict[str, list[float]]:
    """Every metric of every resample with all classes, one after another, its rows written out."""
    classes, units = scores.shape[1], np.unique(groups)
    key = hashlib.sha256(f"embank bootstrap 1 {seed}".encode()).digest()[:16]
    numbers = Stream(key).uniform(resamples, len(units))
    found: dict[str, list[float]] = {
        name: [] for name in bootstrap_metrics(truth, scores, groups, resamples=1)
    }
    for drawn in (numbers * len(units)).astype(int):
        rows = np.concatenate([np.flatnonzero(groups == units[unit]) for unit in drawn])
        y, p = truth[rows], scores[rows]
        values = Evaluation.of(y, p).headline
        found["accuracy"].append(metrics.accuracy_score(y, p.argmax(axis=1)))
        found["log_loss"].append(metrics.log_loss(y, p, labels=np.arange(classes)))
        found["calibration_error"].append(values["calibration_error"])
        if len(np.unique(y)) < classes:
            continue
        found["mean_per_class_accuracy"].append(metrics.balanced_accuracy_score(y, p.argmax(axis=1)))
        one_hot = np.eye(classes)[y][:, 1:] if classes == 2 else np.eye(classes)[y]
        given = p[:, 1:] if classes == 2 else p
        found["auroc"].append(metrics.roc_auc_score(one_hot, given, average="macro"))
        found["average_precision"].append(metrics.average_precision_score(one_hot, given, average="macro"))
    return found


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    n=st.integers(5, 40),
    classes=st.integers(2, 4),
    levels=st.integers(1, 30),
    units=st.integers(2, 60),
)
def test_the_bootstrap_of_metrics_is_the_loop(
    seed: int, n: int, classes: int, levels: int, units: int
) -> None:
    truth, scores = predictions(seed, n, classes, levels)
    groups = np.random.default_rng(seed).integers(0, units, len(truth))
    if len(np.unique(groups)) < 2:
        return
    found = bootstrap_metrics(truth, scores, groups, resamples=20, seed=seed)
    for name, values in looped(truth, scores, groups, 20, seed).items():
        each = found[name]
        assert (each.resamples, each.left_out) == (len(values), 20 - len(values))
        if values:
            low, high = np.percentile(values, [2.5, 97.5])
            assert each.low == pytest.approx(low, abs=1e-9), name
            assert each.high == pytest.approx(high, abs=1e-9), name


def test_blocks_of_resamples_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, scores = predictions(0, 100, 3, 20)
    whole = bootstrap_metrics(truth, scores, resamples=50)
    monkeypatch.setattr(metrics_bootstrap, "_BLOCK", 7 * len(truth))
    cut = bootstrap_metrics(truth, scores, resamples=50)
    for name, each in whole.items():
        assert (cut[name].low, cut[name].high) == pytest.approx((each.low, each.high), abs=1e-12)


def test_patients_with_copies_of_one_image_count_as_one() -> None:
    """Four copies of every row in a group of its own: the same resamples as of the rows themselves."""
    truth, scores = predictions(1, 60, 3, 50)
    alone = bootstrap_metrics(truth, scores, np.arange(len(truth)), resamples=200)
    copies = np.tile(np.arange(len(truth)), 4)
    grouped = bootstrap_metrics(truth[copies], scores[copies], copies, resamples=200)
    apart = bootstrap_metrics(truth[copies], scores[copies], resamples=200)
    for name, each in alone.items():
        assert grouped[name].low == pytest.approx(each.low, abs=1e-9)
        assert apart[name].high - apart[name].low < each.high - each.low


def test_the_interval_of_an_accuracy_is_as_wide_as_the_normal_one() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 2000)
    positive = np.where(rng.random(2000) < 0.8, truth, 1 - truth) * 0.6 + 0.2
    found = bootstrap_metrics(truth, np.stack([1 - positive, positive], axis=1), resamples=2000)["accuracy"]
    right = np.mean((positive > 0.5) == truth)
    wanted = 2 * 1.96 * np.sqrt(right * (1 - right) / 2000)
    assert found.high - found.low == pytest.approx(wanted, rel=0.08)


def test_unknown_groups_are_groups_of_their_own() -> None:
    truth, scores = predictions(2, 50, 2, 50)
    found = bootstrap_metrics(truth, scores, np.full(len(truth), -1), resamples=30)
    assert found == bootstrap_metrics(truth, scores, resamples=30)
    assert found["auroc"].groups == len(truth)


def test_what_is_not_defined_has_no_interval_and_a_reason() -> None:
    truth, scores = predictions(0, 30, 2, 9)
    found = bootstrap_metrics(np.zeros_like(truth), scores, resamples=30)
    assert np.isnan(found["auroc"].low)
    assert found["auroc"].to_dict()["reason"] == "the metric is not defined"
    assert found["accuracy"].resamples == 30
    assert "reason" not in found["accuracy"].to_dict()
    one = bootstrap_metrics(truth, scores, np.zeros(len(truth), int), resamples=30)["accuracy"]
    assert np.isnan(one.high)
    assert one.reason.startswith("1 patient ")
    unseen = bootstrap_metrics(
        np.append(truth, 2), np.pad(scores, ((0, 1), (0, 1))), resamples=30, unseen=[2]
    )
    assert np.isnan(unseen["log_loss"].low)
    assert unseen["auroc"].resamples > 0
