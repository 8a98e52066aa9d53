"""What is undefined has a reason, order and letters follow the tests; simulations keep the promises."""

import math

import numpy as np
import pytest

from benchmarks.simulations import comparison
from engine.evals.comparison.answers import Panel
from engine.evals.comparison.measures import measure
from engine.evals.comparison.options import Options
from engine.evals.comparison.pairs import Models, parts_of
from engine.evals.comparison.result import Comparison, Part, Setting
from engine.evals.comparison.tasks import Task


def part(
    metric: str,
    truth: list[int],
    scores: np.ndarray,
    units: list[int] | None = None,
    options: Options | None = None,
) -> Part:
    """Compare models by the scores [M, n] of class 1."""
    own = np.arange(len(truth)) if units is None else np.array(units)
    panel = Panel((), (), own, int(own.max()) + 1, units is not None, ())
    codes = np.array(truth)
    both = np.stack([1 - scores, scores], axis=2)
    task = Task("", np.arange(len(codes)), codes, ("0", "1"), both.argmax(axis=2) == codes, both)
    names = tuple("ABCDEFG"[: len(scores)])
    models = Models(names, names, names)
    return parts_of(
        models, panel, [measure([task], metric, panel)], options or Options(resamples=200), metric
    )[0]


def scores_of(models: int, images: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((models, images))


@pytest.mark.parametrize("metric", ["auroc", "average_precision", "mean_per_class_accuracy"])
def test_one_class_has_no_ranking(metric: str) -> None:
    found = part(metric, [1] * 8, scores_of(2, 8))
    assert math.isnan(found.pairs[0].difference) and "class" in found.reason
    assert found.best == () and not found.pairs[0].different
    assert math.isnan(found.pairs[0].p_holm) and found.standings[0].letters == ""
    setting = Setting("probe", metric, "label", 8, 8, "images", 200, 0, "percentile", 0.05, 0)
    result = Comparison(setting, (found,))
    assert "undefined for every model" in result.verdict[0] and "class" in result.verdict[0]
    assert result.to_dict()["models"][0]["rank"] is None  # type: ignore[index, call-overload]


@pytest.mark.parametrize("metric", comparison.METRICS)
def test_one_patient_gives_no_interval_and_no_p(metric: str) -> None:
    found = part(metric, [0, 1] * 6, scores_of(2, 12), [0] * 12)
    (pair,) = found.pairs
    assert math.isfinite(pair.difference) and math.isnan(pair.low)
    assert "1 patient" in pair.reason
    assert metric == "accuracy" or math.isnan(pair.p)
    assert len(found.best) == 2


@pytest.mark.parametrize("metric", comparison.METRICS)
def test_equal_models_have_no_p_and_cannot_be_told_apart(metric: str) -> None:
    scores = scores_of(1, 40).repeat(2, axis=0)
    found = part(metric, [0, 1] * 20, scores, list(np.repeat(np.arange(10), 4)))
    (pair,) = found.pairs
    assert pair.difference == 0 and math.isnan(pair.p) and pair.reason
    assert found.best == ("A", "B") and [s.letters for s in found.standings] == ["a", "a"]


def test_the_order_is_that_of_the_metric_and_letters_and_ranks_follow_the_tests() -> None:
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 400)
    noise = random.normal(size=(3, 400)) * 0.3
    signal = np.array([[2.0], [0.3], [2.05]]) * (truth - 0.5)
    scores = 1 / (1 + np.exp(-2 * (signal + noise + random.normal(size=400) * 0.5)))
    for metric in comparison.METRICS:
        found = part(metric, truth.tolist(), scores)
        assert {s.model for s in found.standings[:2]} == {"A", "C"} == set(found.best), metric
        assert [s.letters for s in found.standings] == ["a", "a", "b"]
        assert [(s.rank_low, s.rank_high) for s in found.standings] == [(1, 2), (1, 2), (3, 3)]
        values = [s.value for s in found.standings]
        assert values == sorted(values, reverse=metric != "log_loss")
        pair = found.pair("B", found.best[0])
        assert pair.different and pair.b == "B" and (pair.difference < 0) == (metric == "log_loss")
        assert pair.low <= pair.difference <= pair.high


def test_bca_intervals_differ_and_need_every_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    truth, scores = [0, 1] * 15, scores_of(2, 30)
    plain = part("auroc", truth, scores).pairs[0]
    corrected = part("auroc", truth, scores, options=Options(resamples=200, bca=True)).pairs[0]
    assert corrected.p == plain.p and (corrected.low, corrected.high) != (plain.low, plain.high)
    lone = part("auroc", [1] + [0] * 29, scores, options=Options(resamples=200, bca=True)).pairs[0]
    assert math.isnan(lone.low) and "without one of the patients" in lone.reason


@pytest.mark.slow
def test_simulations_in_small() -> None:
    """Wide bounds, five standard errors of the share: `docs/measurements.md` has the large ones."""
    nulls = comparison.false_positives(80, 60, 100)
    for metric in comparison.METRICS:
        assert nulls[metric] <= 0.05 + 5 * math.sqrt(0.05 * 0.95 / 80), metric
    assert comparison.family_wise(60, 60, 4, 100)["auroc"] <= 0.05 + 5 * math.sqrt(0.05 * 0.95 / 60)
    for what, share in comparison.coverage(25, 60, 200).items():
        assert share >= 0.95 - 5 * math.sqrt(0.05 * 0.95 / 25), what


@pytest.mark.thorough
def test_simulations() -> None:
    nulls = comparison.false_positives(600, 100, 500, seed=1)
    for metric in comparison.METRICS:
        assert 0.02 <= nulls[metric] <= 0.08, metric
    assert nulls["auroc as images"] > nulls["auroc"]
    for what, share in comparison.coverage(300, 100, 500, seed=1).items():
        assert 0.92 <= share <= 0.98, what
    for what, share in comparison.family_wise(300, 100, 5, 300, seed=1).items():
        assert share <= 0.08, what
