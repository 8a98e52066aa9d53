"""Pictures of probes: drawn, with the curves that were given."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from engine.errors import Refused
from engine.report.probes import probe_figure, sweeps


def result(model: str, label: str = "label", **more: Any) -> dict[str, Any]:
    C = [0.01, 0.1, 1.0, 10.0]
    return {
        "model": model,
        "label": label,
        "select": "accuracy",
        "best_C": 0.1,
        "val_score": 0.8,
        "test": {"accuracy": 0.75, "auroc": float("nan")},
        "sweep": {"C": C, "val_score": [0.6, 0.8, 0.7, 0.65], "converged": [True, True, True, False]},
        **more,
    }


def test_curves_chosen_values_and_unconverged_fits() -> None:
    figure, axes = plt.subplots()
    sweeps(axes, [result("one"), result("two")])
    lines = [line.get_xydata() for line in axes.get_lines()]
    np.testing.assert_array_equal(lines[0], [[0.01, 0.6], [0.1, 0.8], [1, 0.7], [10, 0.65]])
    np.testing.assert_array_equal(lines[1], [[10, 0.65]])
    np.testing.assert_array_equal(lines[2], [[0.1, 0.8]])
    texts = [text.get_text() for text in axes.get_legend().get_texts()]
    assert texts == [
        "one: C = 0.1, test accuracy 0.750", "two: C = 0.1, test accuracy 0.750", "not converged"
    ]  # fmt: skip
    assert axes.get_ylabel() == "validation accuracy"
    plt.close(figure)


@pytest.mark.slow
def test_figures_of_every_kind(tmp_path: Path) -> None:
    mean = {"mean": 0.6, "ci95": 0.1}
    low = {"curve": [{"shots": n, "accuracy": mean} for n in (1, 5)]}
    findings = [result("", f"finding {i}") for i in range(14)] + [{"label": "none", "reason": "why"}]
    cases = {
        "plain.png": [result("one")],
        "low.png": [result("one", low_shot=low), result("two", low_shot=low)],
        "many.png": [{"model": "one", "label": "all", "best_C": None, "findings": findings}],
    }
    sizes = {}
    for name, results in cases.items():
        with Image.open(probe_figure(results, tmp_path / name)) as picture:
            picture.load()
            sizes[name] = picture.size
            assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 100
    assert sizes["low.png"][0] > sizes["plain.png"][0] and sizes["many.png"][1] > sizes["plain.png"][1]
    assert probe_figure([result("one")], tmp_path / "plain.svg").read_bytes().startswith(b"<?xml")


@pytest.mark.slow
def test_a_missing_folder_is_made_and_a_file_in_its_place_refused(tmp_path: Path) -> None:
    assert probe_figure([result("one")], tmp_path / "new" / "plot.png").is_file()
    with pytest.raises(Refused, match=r"plot\.png"):
        probe_figure([result("one")], tmp_path / "new" / "plot.png" / "plot.png")
