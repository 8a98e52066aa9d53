"""The table of images repeats the reported means, whatever was drawn twice or is undefined."""

import io
from typing import Any

import numpy as np
import pandas as pd
import pytest

from engine.evals.invariance import result as module
from engine.evals.invariance.options import InvarianceOptions, Sample
from engine.evals.invariance.result import Invariance, InvarianceResult, Setting
from engine.evals.invariance.statistics import Statistics
from engine.evals.invariance.summary import Summary, summarise
from engine.evals.invariance.view_store import Views
from engine.kernels.whitening import Regularisation, Whitener
from stores.parquet import Texts

IDS = Texts.of(f"image {row}" for row in range(9))


def _setting(rows: np.ndarray) -> Setting:
    options = InvarianceOptions(("rotation",), mode="as-published")
    whitener = Whitener(np.zeros(2), np.eye(2), "ledoit-wolf", 0.1, 1.0, 5)
    statistics = Statistics(whitener, Regularisation(), "", (), 0.0)
    return Setting("model", "feature", "bank", options, Sample(rows, rows), statistics, None, "pixels")


def _rotation(rows: np.ndarray, cosine: np.ndarray, summary: Summary) -> Invariance:
    angles = tuple((90.0 * (view + 1),) for view in range(cosine.shape[1]))
    return Invariance(
        rows, rows.astype(np.int64), cosine, 2 * cosine, Views("rotation", angles), summary, _setting(rows)
    )


def _frames(result: Any) -> dict[str, pd.DataFrame]:
    tables = result.predictions().tables
    return {name: pd.read_parquet(io.BytesIO(t.to_parquet(lambda: IDS))) for name, t in tables.items()}


def test_images_drawn_twice_are_one_row_that_counts_twice() -> None:
    rows = np.array([7, 2, 7, 4])
    of_row = {7: (0.5, 0.25), 2: (1.0, np.nan), 4: (-0.5, 0.75)}
    cosine = np.array([of_row[row] for row in rows.tolist()])
    summary = summarise(cosine, np.ones((4, 2)), rows.astype(np.int64), published=True)
    frames = _frames(_rotation(rows, cosine, summary))
    images, views = frames["images"], frames["views"]
    assert images["row"].tolist() == [2, 4, 7] and images["drawn"].tolist() == [1, 1, 2]
    assert images["image_id"].tolist() == ["image 2", "image 4", "image 7"]
    assert images["cosine"].tolist() == [1.0, 0.125, 0.375]
    by_view = [
        np.average(column[known], weights=images["drawn"][known])
        for column in (images["cosine.0"], images["cosine.1"])
        for known in [column.notna()]
    ]
    assert np.mean(by_view) == pytest.approx(summary.cosine, rel=1e-12)
    assert views["cosine"].tolist() == pytest.approx(by_view, rel=1e-12)
    assert views["degrees"].tolist() == [90.0, 180.0]


def test_many_views_leave_only_their_means(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_VIEWS", 1)
    rows = np.arange(3)
    one = _rotation(rows, np.full((3, 2), 0.5), Summary(0.5, 0.1, 1.0, 0.1, 3, 3, 0))
    frames = _frames(one)
    assert "cosine.0" not in frames["images"] and frames["images"]["cosine"].tolist() == [0.5] * 3
    assert len(frames["views"]) == 2


def test_several_transforms_share_a_table_and_one_without_images_has_none() -> None:
    first = _rotation(np.array([1, 3]), np.array([[0.1, 0.3], [0.5, 0.7]]), Summary.empty("few"))
    none = _rotation(np.empty(0, np.intp), np.empty((0, 2)), Summary.empty("grey"))
    assert none.predictions() is None and np.isnan(none.report["cosine"])
    (frame,) = _frames(InvarianceResult((first,))).values()
    assert frame["cosine.rotation"].tolist() == pytest.approx([0.2, 0.6])
    result = InvarianceResult((none,))
    assert result.predictions() is None and result.metrics()["rotation.cosine"].reason == "grey"


def test_the_interval_of_each_view_is_that_of_its_own_images() -> None:
    """Images of different patients: 1.96 standard errors of the mean, from the definition."""
    rows = np.arange(12)
    cosine = np.random.default_rng(0).uniform(-1, 1, (12, 3))
    cosine[:5, 1] = np.nan  # undefined for five images
    cosine[1:, 2] = np.nan  # one image gives no interval
    result = _rotation(rows, cosine, summarise(cosine, np.ones((12, 3)), rows))
    errors = [np.std(view, ddof=1) / np.sqrt(len(view)) for view in (cosine[:, 0], cosine[5:, 1])]
    assert result.curve_ci95[:2] == pytest.approx(1.96 * np.array(errors), rel=1e-12)
    assert np.isnan(result.curve_ci95[2]) and np.isfinite(result.curve).all()
    few = _rotation(rows, cosine, Summary.empty("too few"))
    assert np.isnan(few.curve_ci95).all()
