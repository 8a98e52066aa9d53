"""Pictures of probes, drawn from records: what they show is what the records say."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image
from scipy import stats

from engine.errors import Refused
from engine.report.probe_plots.confusion import draw_confusion
from engine.report.probe_plots.curves import draw_curves
from engine.report.probe_plots.draw import draw_probes
from engine.report.probe_plots.fits import answers_of, fits_of
from engine.report.probe_plots.low_shot import draw_low_shot
from engine.report.probe_plots.reliability import draw_reliability
from engine.report.probe_plots.strata import draw_strata
from stores.bank.reader import Bank
from stores.bank.record_index import read_index
from tests.command import embank
from tests.probe_banks import FIRST, SECOND, make_probe_bank


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """A bank with three records: classes, findings, and a label of two classes with strata."""
    bank = make_probe_bank(tmp_path_factory.mktemp("plots"), views=True)
    usual = ("--values", 2, "--device", "cpu", "--bootstrap", 20, "--model", FIRST)
    assert embank("probe", bank.path, *usual).code == 0
    assert (
        embank("probe", bank.path, *usual, "--multi-label", "--label", "edema", "--label", "oedema").code == 0
    )
    assert embank("probe", bank.path, *usual, "--label", "oedema", "--strata", "view").code == 0
    return bank


def test_reliability_diagrams_show_the_bins_of_the_record(bank: Bank) -> None:
    records = [entry.record for entry in read_index(bank.path) if entry.record]
    figure = draw_reliability(fits_of(records, "calibration.bins", "again"))
    assert len(figure.axes) == 6  # four fits on two rows of three
    bins = records[0].metrics["calibration"]["bins"]["before"]
    line = figure.axes[0].get_lines()[1]
    filled = np.array(bins["count"]) > 0
    np.testing.assert_allclose(line.get_xdata(), np.array(bins["probability"], float)[filled])
    np.testing.assert_allclose(line.get_ydata(), np.array(bins["frequency"], float)[filled])
    assert figure.axes[1].get_xlabel() == "probability of positive"
    plt.close(figure)


def test_curves_are_drawn_from_the_predictions(bank: Bank) -> None:
    entries = read_index(bank.path)
    answers = [answers_of(entry.record, str(bank.path), entry) for entry in entries if entry.record]
    assert [[own.name or own.label for own in of_one] for of_one in answers] == [
        ["apple", "pear", "zebra"], ["edema", "oedema"], ["oedema"]
    ]  # fmt: skip
    for of_one, entry in zip(answers, entries, strict=True):
        figure = draw_curves([of_one])
        roc = figure.subfigs[0].axes[0]
        assert len(roc.get_lines()) == len(of_one) + 1 and len(roc.collections) == len(of_one)
        areas = [np.trapezoid(line.get_ydata(), line.get_xdata()) for line in roc.get_lines()[:-1]]
        metrics = entry.record.metrics if entry.record else {}
        bodies = metrics.get("findings", [metrics])
        expected = [body["test"]["auroc"] for body in bodies]
        if len(bodies[0]["classes"]) > 2:
            expected = [own["auroc"] for own in bodies[0]["test"]["per_class"]]
        np.testing.assert_allclose(areas, expected)
        plt.close(figure)


def test_confusion_matrices_and_strata_are_those_of_the_record(bank: Bank) -> None:
    records = [entry.record for entry in read_index(bank.path) if entry.record]
    figure = draw_confusion(fits_of(records[:1], "test.confusion_matrix", "again"))
    texts = [text.get_text().split("\n")[0] for text in figure.axes[0].texts]
    assert texts == [str(n) for row in records[0].metrics["test"]["confusion_matrix"] for n in row]
    plt.close(figure)
    figure = draw_strata(fits_of(records, "strata", "again"))
    names = [text.get_text().split(" (")[0] for text in figure.axes[0].get_yticklabels()]
    assert names == [own["stratum"] for own in records[2].metrics["strata"][0]["strata"]]
    drawn = {
        float(x) for line in figure.axes[0].get_lines() if line.get_marker() == "o" for x in line.get_xdata()
    }
    assert drawn == {own["accuracy"] for own in records[2].metrics["strata"][0]["strata"]}
    plt.close(figure)


def test_low_shot_curves_are_those_of_the_records(tmp_path: Path) -> None:
    bank = make_probe_bank(tmp_path)
    words = ("--values", 2, "--device", "cpu", "--bootstrap", 0, "--low-shot", "1,4", "--seeds", 3)
    models, out = ("--model", FIRST, "--model", SECOND), tmp_path / "curves.png"
    ran = embank("probe", bank.path, *words, *models, "--plot", "low-shot", "-o", out)
    assert ran.code == 0 and "low-shot curves" in ran.out, ran.err
    entries = read_index(bank.path)
    again = embank(
        "records", "show", bank.path, entries[1].id, "--plot", "low-shot", "-o", tmp_path / "one.svg"
    )
    assert again.code == 0, again.err
    records = [entry.record for entry in entries if entry.record]
    figure = draw_low_shot(fits_of(records, "low_shot.curve", "again"))
    for axes, metric in zip(figure.axes, ("accuracy", "auroc"), strict=True):
        for bars, record in zip(axes.containers, records, strict=True):
            line, _, (spans,) = bars
            for x, y, span, point in zip(
                line.get_xdata(), line.get_ydata(), spans.get_segments(),
                record.metrics["low_shot"]["curve"], strict=True,
            ):  # fmt: skip
                values = point[metric]["values"]
                half = stats.t.ppf(0.975, 2) * stats.sem(values)
                assert x == pytest.approx(point["shots"], rel=0.05) and y == pytest.approx(np.mean(values))
                np.testing.assert_allclose(span[:, 1], [np.mean(values) - half, np.mean(values) + half])
        assert axes.get_xscale() == "log"
        at_all = [line.get_ydata()[0] for line in axes.get_lines() if len(line.get_xdata()) == 1]
        assert at_all == [record.metrics["test"][metric] for record in records]
    plt.close(figure)


@pytest.mark.slow
def test_pictures_by_the_command_and_again_from_the_record(bank: Bank, tmp_path: Path) -> None:
    usual = ("--values", 2, "--device", "cpu", "--bootstrap", 20, "--label", "oedema", "--strata", "view")
    models = ("--model", FIRST, "--model", SECOND)
    ran = embank("probe", bank.path, *usual, *models, "--plot", "curves", "-o", tmp_path / "both.png")
    assert ran.code == 0 and "ROC" in ran.out, ran.err
    record = read_index(bank.path)[2].id
    for kind in ("selection", "curves", "reliability", "confusion", "strata"):
        out = tmp_path / f"{kind}.png"
        again = embank("records", "show", bank.path, record, "--plot", kind, "-o", out)
        assert again.code == 0, again.err
        with Image.open(out) as picture:
            assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 20


def test_what_cannot_be_drawn_is_refused(bank: Bank, tmp_path: Path) -> None:
    entry, out = read_index(bank.path)[0], tmp_path / "x.png"
    assert entry.record is not None
    with pytest.raises(Refused, match="no record has") as refused:
        draw_probes([entry.record], out, "strata", str(bank.path), entry)
    assert "--strata" in refused.value.remedy
    with pytest.raises(Refused, match="without predictions"):
        draw_probes([entry.record], out, "curves", str(bank.path))
    with pytest.raises(Refused, match="25 fits"):
        fits_of([entry.record] * 25, "calibration.bins", "again")
    for words in (
        ("probe", bank.path, "--model", FIRST, "--plot", "strata", "-o", out),
        ("probe", bank.path, "--model", FIRST, "--plot", "curves"),
        ("records", "show", bank.path, entry.id, "--plot", "strata", "-o", out),
        ("probe", bank.path, "--model", FIRST, "--plot", "low-shot", "-o", out),
        ("records", "show", bank.path, entry.id, "--plot", "low-shot", "-o", out),
        ("records", "show", bank.path, entry.id, "--plot", "forest", "-o", out),
        ("records", "show", bank.path, entry.id, "--plot", "curves"),
    ):
        ran = embank(*words)
        assert ran.code == 2 and "remedy" in ran.err
    assert not out.exists()
