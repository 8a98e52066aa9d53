"""The figure of invariances, by the texts and lines that matplotlib holds."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.errors import Refused
from engine.evals.invariance.options import LEAST_IMAGES
from engine.kernels.transforms import TRANSFORMS, find_transform
from engine.report.invariance_figure import LABELS, draw_invariances, invariance_figure
from stores.bank.records import RunRecord, read_record


def _one(name: str, n: int, mode: str = "default", reason: str = "") -> RunRecord:
    """A record as an evaluation writes it, its means by view drawn at random."""
    parameters = [list(values) for values in find_transform(name).plan(16, identity=False)]
    rng = np.random.default_rng(0)
    cosine, ci95 = rng.uniform(0.2, 0.9, len(parameters)), rng.uniform(0.01, 0.1, len(parameters))
    nan = float("nan")
    body: dict[str, Any] = {"cosine": 0.5, "ci95": 0.1, "baseline": 0.02, "n": n, "bank": "xrays.bank"}
    if reason:
        body |= {"cosine": nan, "ci95": nan, "baseline": nan, "reason": reason}
        cosine, ci95 = cosine * nan, ci95 * nan
    if n:
        body["views"] = len(parameters)
    names = list(find_transform(name).parameters)
    body["by_view"] = {"names": names, "parameters": parameters, "cosine": cosine, "ci95": ci95}
    return RunRecord.now(
        "invariance",
        asked={"model": "cost$/net", "mode": mode, "transform": name},
        used={"covariance": {"images": 1234, "regularisation": "ledoit-wolf"}},
        metrics=body,
        seconds={},
    )


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


def test_the_band_is_the_interval_of_each_view(figure: Any) -> None:
    by_view: Any = _one("rotation", 30).metrics["by_view"]
    mean, half = np.array(by_view["cosine"]), np.array(by_view["ci95"])
    x = [values[0] for values in by_view["parameters"]]
    rotation = figure.axes[1]
    np.testing.assert_array_equal(rotation.lines[0].get_xydata(), np.column_stack([x, mean]))
    band = {tuple(point) for point in rotation.collections[0].get_paths()[0].vertices}
    assert {*zip(x, mean - half, strict=True), *zip(x, mean + half, strict=True)} <= band


def test_a_lone_curve_fills_the_width() -> None:
    import matplotlib.pyplot as plt

    lone = draw_invariances([_one("rotation", 30)])
    assert len(lone.axes) == 2 and "all transforms" not in lone.axes[0].get_title("left")
    plt.close(lone)


def test_a_record_read_back_gives_the_same_figure(tmp_path: Path) -> None:
    record = _one("rotation", 30)
    again = read_record(record.write(tmp_path))
    figures = [invariance_figure([one], tmp_path / f"{at}.svg") for at, one in enumerate((record, again))]
    assert figures[0].read_bytes() == figures[1].read_bytes()
    assert b"<svg" in figures[0].read_bytes()


@pytest.mark.parametrize("name", ["by_view", "ci95"])
def test_a_record_without_the_intervals_of_views_is_refused(name: str, tmp_path: Path) -> None:
    record = _one("rotation", 30)
    metrics = dict(record.metrics)
    if name == "by_view":
        del metrics["by_view"]
    else:
        metrics["by_view"] = {k: v for k, v in dict(metrics["by_view"]).items() if k != name}  # type: ignore[arg-type]
    with pytest.raises(Refused, match=r"no metrics\.by_view") as refused:
        invariance_figure([replace(record, metrics=metrics)], tmp_path / "a.png")
    assert "again" in refused.value.remedy and record.created in refused.value.found
    assert list(tmp_path.iterdir()) == []
