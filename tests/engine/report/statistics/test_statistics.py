"""Statistics of named values: numbers against numpy and scipy, and every model accounted for."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from engine.kernels.episodes import Identity
from engine.report.statistics import (
    LeftOut,
    adjusted,
    box,
    correlate,
    fit_line,
    group_interval,
    group_mean,
    means_by_domain,
    n_of,
    scale,
)

MODELS = ("a", "b", "c", "d", "e")
X = {"a": 1.0, "b": 2.0, "c": 4.0, "d": 3.0, "e": math.nan}
Y = {"e": 1.0, "d": 1.0, "c": 0.5, "b": 2.0, "a": 3.0}


def test_a_correlation_says_who_entered() -> None:
    result = correlate(X, Y, MODELS, names=("accuracy", "cosine"))
    expected = stats.pearsonr([1, 2, 4, 3], [3, 2, 0.5, 1])
    assert (result.r, result.p) == pytest.approx((expected.statistic, expected.pvalue))
    assert (result.n, result.models) == (4, ("a", "b", "c", "d"))
    assert result.left_out == (LeftOut("e", "no accuracy"),)
    for one in result.leave_one_out:
        others = [model for model in result.models if model != one.model]
        alone = stats.pearsonr([X[m] for m in others], [Y[m] for m in others])
        assert (one.r, one.p) == pytest.approx((alone.statistic, alone.pvalue), abs=1e-12)
    r = [one.r for one in result.leave_one_out]
    assert result.r_range == (min(r), max(r))
    assert result.most_influential is not None
    assert result.most_influential.model == result.models[int(np.argmax(np.abs(np.array(r) - result.r)))]


def test_models_left_out_on_purpose_are_listed_with_the_reason() -> None:
    result = correlate(X, {"a": 3.0}, MODELS, without={"c": "outlier"}, names=("accuracy", "cosine"))
    assert (result.n, result.reason) == (1, "1 point: a correlation needs three")
    assert math.isnan(result.r) and result.leave_one_out == () and result.most_influential is None
    assert math.isnan(result.r_range[0])
    assert result.left_out == (
        LeftOut("b", "no cosine"),
        LeftOut("c", "outlier"),
        LeftOut("d", "no cosine"),
        LeftOut("e", "no accuracy and no cosine"),
    )
    words = n_of(result.n, result.left_out)
    assert words == (
        "n = 1 of 5 models; without b, d (no cosine); c (outlier); e (no accuracy and no cosine)"
    )
    assert n_of(3, (), "images") == "n = 3 images"


def test_a_constant_is_named() -> None:
    result = correlate(dict.fromkeys(MODELS, 2.0), Y, MODELS, names=("accuracy", "cosine"))
    assert result.reason == "accuracy is the same for all models" and result.n == 5


@pytest.mark.parametrize(("models", "without"), [(("a", "a"), {}), (("a", "b"), {"z": "outlier"})])
def test_a_name_twice_or_unknown_is_an_error(models: tuple[str, ...], without: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="names"):
        correlate(X, Y, models, without=without)


def test_p_is_adjusted_over_defined_tests() -> None:
    family = [correlate(X, Y, MODELS), correlate(X, Y, MODELS[:2]), correlate(X, Y, MODELS[1:])]
    p = [family[0].p, family[2].p]
    low, high = sorted(p)
    steps = {low: min(1, 2 * low), high: min(1, max(high, 2 * low))}  # Holm 1979, by hand
    result = adjusted(family)
    assert (result[0].p_adjusted, result[2].p_adjusted) == pytest.approx((steps[p[0]], steps[p[1]]))
    assert math.isnan(result[1].p_adjusted) and result[0].r == family[0].r


@given(st.permutations(MODELS))
def test_the_order_of_models_does_not_matter(models: list[str]) -> None:
    assert correlate(X, Y, models).r == pytest.approx(correlate(X, Y, MODELS).r, abs=1e-14)
    assert correlate(X, Y, models).n == 4


def test_scaled_numbers_say_over_whom() -> None:
    result = scale(X, ("a", "c", "e", "z"), "accuracy")
    assert result.values == pytest.approx({"a": 0, "b": 1 / 3, "c": 1, "d": 2 / 3})
    assert (result.n, result.over, result.low, result.high) == (2, ("a", "c"), 1, 4)
    assert result.left_out == (LeftOut("e", "no accuracy"), LeftOut("z", "no accuracy"))
    none = scale(X, ("a", "e"))
    assert "needs two" in none.reason and all(math.isnan(value) for value in none.values.values())


def test_means_of_groups() -> None:
    result = group_mean(X, MODELS, name="accuracy")
    assert (result.mean, result.sd) == pytest.approx((2.5, np.std([1, 2, 4, 3], ddof=1)))
    assert (result.n, result.ddof, result.left_out) == (4, 1, (LeftOut("e", "no accuracy"),))
    assert group_mean(X, MODELS, 0).sd == pytest.approx(np.std([1, 2, 4, 3]))
    one = group_mean(X, ("a", "e"))
    assert one.mean == 1 and math.isnan(one.sd) and "needs 2" in one.reason
    none = group_mean(X, ("e",))
    assert math.isnan(none.mean) and none.reason == "no value" and none.n == 0


def test_intervals_of_means_say_who_entered() -> None:
    result = group_interval(X, MODELS, name="accuracy")
    half = 1.96 * stats.sem([1, 2, 4, 3])
    assert (result.low, result.high) == pytest.approx((2.5 - half, 2.5 + half))
    assert (result.kind, result.n, result.left_out) == ("normal", 4, (LeftOut("e", "no accuracy"),))
    stream = Identity(0, "models", 2, 1, 1).stream("bootstrap")
    drawn = group_interval(X, MODELS, resamples=400, stream=stream)
    numbers = Identity(0, "models", 2, 1, 1).stream("bootstrap").uniform(400, 4)
    means = np.array([1, 2, 4, 3])[(numbers * 4).astype(int)].mean(axis=1)
    assert (drawn.low, drawn.high) == pytest.approx(tuple(np.percentile(means, [2.5, 97.5])))
    assert (drawn.kind, drawn.models) == ("bootstrap", ("a", "b", "c", "d"))
    one = group_interval(X, ("a",), resamples=9, stream=stream)
    assert one.mean == 1 and math.isnan(one.low) and one.reason.startswith("1 model to draw from")
    with pytest.raises(ValueError, match="stream"):
        group_interval(X, MODELS, resamples=9)


def test_means_by_domain_need_every_experiment() -> None:
    experiments = {"one": {"a": 0.0, "b": 1.0}, "two": {"a": 0.5}, "three": {"a": 0.1, "b": 0.7}}
    result = means_by_domain(experiments, {"in": ("one", "two"), "out": ("three",)}, ("a", "b"))
    assert result["in"]["a"].mean == 0.25 and result["in"]["a"].n == 2
    assert result["in"]["a"].models == ("one", "two")
    assert math.isnan(result["in"]["b"].mean) and result["in"]["b"].reason == "no value in two"
    assert result["in"]["b"].left_out == (LeftOut("two", "no value"),)
    assert (result["out"]["a"].mean, result["out"]["b"].mean) == (0.1, 0.7)
    with pytest.raises(KeyError):
        means_by_domain(experiments, {"in": ("four",)}, ("a",))


def test_lines_say_who_entered() -> None:
    sigma = {"a": 0.1, "b": 0.2, "c": 0.4, "d": 0.3}
    result = fit_line(X, Y, MODELS, sigma, names=("accuracy", "distance", "spread"), without={"d": "outlier"})
    w = 1 / np.array([0.1, 0.2, 0.4])
    slope, intercept = np.polyfit([1, 2, 4], [3, 2, 0.5], 1, w=w)
    assert (result.line.slope, result.line.intercept) == pytest.approx((slope, intercept))
    assert (result.n, result.models, result.line.dof) == (3, ("a", "b", "c"), 1)
    assert result.left_out == (LeftOut("d", "outlier"), LeftOut("e", "no accuracy and no spread"))
    plain = fit_line(X, Y, MODELS)
    assert plain.line.slope == pytest.approx(stats.linregress([1, 2, 4, 3], [3, 2, 0.5, 1]).slope)


def test_boxes_say_what_entered() -> None:
    result = box(X, MODELS, "diffusion")
    assert (result.numbers.low, result.numbers.median, result.numbers.high) == (1, 2.5, 4)
    assert (result.n, result.names) == (4, ("a", "b", "c", "d"))
    assert result.left_out == (LeftOut("e", "no diffusion"),)
    assert box({}, MODELS).numbers.reason == "no value"
