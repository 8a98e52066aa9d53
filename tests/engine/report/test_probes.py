"""Pictures of probes: drawn, with the curves that were given."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from engine.errors import Refused
from engine.report.probes import draw_sweeps, probe_figure, sweeps_of
from stores.bank.records import RunRecord


def record(model: str, label: str = "label", **more: Any) -> RunRecord:
    """A record of a probe with these metrics."""
    asked = {"model": model, "label": label}
    return RunRecord.now("probe", asked=asked, used={}, metrics={**result(label), **more}, seconds={})


def result(label: str) -> dict[str, Any]:
    C = [0.01, 0.1, 1.0, 10.0]
    return {
        "label": label,
        "select": "accuracy",
        "best_C": 0.1,
        "val_score": 0.8,
        "test": {"accuracy": 0.75, "auroc": float("nan")},
        "sweep": {"C": C, "val_score": [0.6, 0.8, 0.7, 0.65], "converged": [True, True, True, False]},
    }


def test_curves_chosen_values_and_unconverged_fits() -> None:
    figure, axes = plt.subplots()
    draw_sweeps(axes, [*sweeps_of(record("one")), *sweeps_of(record("two"))])
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
    findings = [result(f"finding {i}") for i in range(14)] + [{"label": "none", "reason": "why"}]
    cases = {
        "plain.png": [record("one")],
        "low.png": [record("one", low_shot=low), record("two", low_shot=low)],
        "many.png": [record("one", "all", best_C=None, findings=findings)],
    }
    sizes = {}
    for name, records in cases.items():
        with Image.open(probe_figure(records, tmp_path / name)) as picture:
            picture.load()
            sizes[name] = picture.size
            assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 100
    assert sizes["low.png"][0] > sizes["plain.png"][0] and sizes["many.png"][1] > sizes["plain.png"][1]
    assert probe_figure([record("one")], tmp_path / "plain.svg").read_bytes().startswith(b"<?xml")


@pytest.mark.slow
def test_a_missing_folder_is_made_and_a_file_in_its_place_refused(tmp_path: Path) -> None:
    assert probe_figure([record("one")], tmp_path / "new" / "plot.png").is_file()
    with pytest.raises(Refused, match=r"plot\.png"):
        probe_figure([record("one")], tmp_path / "new" / "plot.png" / "plot.png")


@pytest.mark.parametrize("findings", [False, True])
def test_a_record_without_its_sweep_is_refused(findings: bool) -> None:
    more = {"findings": [result("edema"), {**result("mass"), "sweep": None}]} if findings else {"sweep": None}
    old = record("one", **more)
    with pytest.raises(Refused, match=r"probe record of one .* has no metrics") as refused:
        sweeps_of(old)
    assert "again" in refused.value.remedy and "sweep" in refused.value.found


def test_intervals_wider_than_accuracies_do_not_stretch_the_axis(tmp_path: Path) -> None:
    from engine.report.probes import _low_shots

    figure, axes = plt.subplots()
    curve = [{"shots": n, "accuracy": {"mean": 0.6, "ci95": 3.0}} for n in (1, 5)]
    _low_shots(axes, [record("one", low_shot={"curve": curve})])
    assert axes.get_ylim() == (-0.02, 1.02)
    plt.close(figure)
