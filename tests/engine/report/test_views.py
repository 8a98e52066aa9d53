"""The figure of invariances, by the texts and lines that matplotlib holds."""

from typing import Any

import numpy as np
import pytest

from engine.evals.invariance.options import LEAST_IMAGES, InvarianceOptions, Sample
from engine.evals.invariance.result import Invariance, Setting
from engine.evals.invariance.statistics import Statistics
from engine.evals.invariance.summary import Baseline, Summary
from engine.evals.invariance.view_store import Views
from engine.kernels.transforms import TRANSFORMS, find_transform
from engine.kernels.whitening import Regularisation, Whitener
from engine.report.views import LABELS, draw_invariances


def _one(name: str, n: int, mode: str = "default", reason: str = "") -> Invariance:
    views = Views(name, tuple(find_transform(name).plan(16, identity=False)))
    cosine = np.random.default_rng(0).uniform(0.2, 0.9, (n, views.count))
    whitener = Whitener(np.zeros(2), np.eye(2), "ledoit-wolf", 0.1, 1.0, 1234)
    rows = np.arange(n)
    setting = Setting(
        "cost$/net", "feature", "xrays.bank", InvarianceOptions((name,), mode=mode), Sample(rows, rows),
        Statistics(whitener, Regularisation(), "", (), 0.0), 1.0, "pixels",
    )  # fmt: skip
    summary = Summary(0.5, 0.1, 1.0, 0.1, n, n, 0, Baseline(0.02, 0.01, 9), reason)
    return Invariance(rows, rows.astype(np.int64), cosine, cosine, views, summary, setting)


@pytest.fixture
def figure() -> Any:
    import matplotlib.pyplot as plt

    few = _one("contrast", LEAST_IMAGES - 1, reason="few")
    grey = _one("hue", 0, reason="grey")
    drawn = draw_invariances([_one("rotation", 30), few, grey, _one("h_flip", 30)])
    yield drawn
    plt.close(drawn)


def test_what_rests_on_few_images_is_drawn_without_a_number(figure: Any) -> None:
    bars, rotation, contrast, hue = figure.axes
    assert len(bars.patches) == 2  # rotation and h_flip
    texts = [text.get_text() for text in bars.texts]
    assert texts == ["undefined: rests on 9 images", "undefined: all images are grey"]
    assert [len(axes.lines) for axes in (rotation, contrast, hue)] == [2, 0, 0]
    assert [text.get_text() for axes in (contrast, hue) for text in axes.texts] == texts


def test_every_panel_has_its_letter_and_labels_and_no_title_says_default(figure: Any) -> None:
    titles = [axes.get_title("left") for axes in figure.axes]
    assert [title[:3] for title in titles] == ["(a)", "(b)", "(c)", "(d)"]
    assert [title[4:] for title in titles[1:]] == ["rotation", "contrast", "hue"]
    assert all(axes.get_xlabel() for axes in figure.axes)
    assert [axes.get_ylabel() for axes in figure.axes[1:]] == ["mean cosine"] * 3
    assert figure.axes[1].get_xlabel() == "rotation, degrees counter-clockwise"
    assert next(label.get_text() for label in figure.axes[0].get_yticklabels()) == "rotation (n = 30)"
    title = figure.get_suptitle()
    for words in (r"cost\$/net", "xrays.bank", "1,234 images", "ledoit-wolf"):
        assert words in title
    assert "default" not in " ".join([title, *titles])


def test_as_published_is_said_in_the_title() -> None:
    import matplotlib.pyplot as plt

    figure = draw_invariances([_one("h_flip", 30, "as-published")])
    assert "as the study's code" in figure.get_suptitle()
    plt.close(figure)


def test_every_curve_has_a_label_with_its_unit() -> None:
    single = [each for each in TRANSFORMS.values() if len(each.parameters) == 1 and each.views != 2]
    assert {each.parameters[0] for each in single} == set(LABELS)
