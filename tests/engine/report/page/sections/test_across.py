"""Models across data sets: scaled values, means and correlations against numpy and scipy; who is left out."""

from collections.abc import Mapping

import numpy as np
import pytest
from scipy import stats

from engine.report.page.blocks import Block, DataTable, Details, Paragraph
from engine.report.page.inputs import Gap, PageInput, PageOptions, Source
from engine.report.page.sections.across import sections
from stores.backends.location import place
from stores.bank.record_index import RecordEntry
from tests.page_records import comparison, entry_of, fewshot, probe

MODELS = ("a", "b", "c", "d", "e")
PROBES = {
    "xrays": (0.91, 0.62, 0.75, 0.83, 0.70),
    "tiles": (0.55, 0.58, 0.52, 0.57, 0.59),
    "scans": (0.70, 0.80, 0.95, 0.60, 0.75),
}
DOMAINS = {"xrays": "chest", "scans": "chest", "tiles": "pathology"}


def study(entries: Mapping[str, list[RecordEntry]], **parts: object) -> PageInput:
    sources = [
        Source(name, place(f"{name}.bank"), tuple(own), DOMAINS[name]) for name, own in entries.items()
    ]
    return PageInput("study", tuple(sources), **parts)  # type: ignore[arg-type]


def probes() -> dict[str, list[RecordEntry]]:
    return {
        name: [probe(model, value) for model, value in zip(MODELS, values, strict=True)]
        for name, values in PROBES.items()
    }


def invariance(model: str, value: float, mode: str = "default") -> RecordEntry:
    return entry_of("invariance", model, {"transform": "h_flip", "mode": mode}, {"cosine": value})


def blocks(given: PageInput) -> list[Block]:
    (section,) = sections(given, PageOptions())
    return [own for one in section.blocks for own in (one.blocks if isinstance(one, Details) else (one,))]


def tables(given: PageInput) -> dict[str, DataTable]:
    return {one.id: one for one in blocks(given) if isinstance(one, DataTable)}


def column(table: DataTable, title: str) -> dict[str, float | None]:
    at = [one.title for one in table.columns].index(title)
    return {row[0].text: row[at].number for row in table.rows}


def scaled(values: tuple[float, ...]) -> np.ndarray:
    array = np.array(values)
    return (array - array.min()) / np.ptp(array)


def test_values_are_scaled_and_averaged_as_numpy_does() -> None:
    table = tables(study(probes()))["table-across-1"]
    for name, values in PROBES.items():
        np.testing.assert_allclose(list(column(table, name).values()), scaled(values), rtol=1e-12)  # type: ignore[arg-type]
    every = np.array([scaled(values) for values in PROBES.values()])
    np.testing.assert_allclose(
        list(column(table, "all 3 data sets").values()),  # type: ignore[arg-type]
        every.mean(0),
        rtol=1e-12,
    )
    chest = column(table, "domain chest")
    np.testing.assert_allclose(list(chest.values()), every[[0, 2]].mean(0), rtol=1e-12)  # type: ignore[arg-type]
    at = [one.title for one in table.columns].index("domain chest")
    assert (
        table.rows[0][at].text == f"{every[[0, 2], 0].mean():.3f} ± {every[[0, 2], 0].std(ddof=1):.3f}, n = 2"
    )
    alone = [one.title for one in table.columns].index("domain pathology")
    assert table.rows[0][alone].text.endswith("n = 1") and "±" not in table.rows[0][alone].text
    assert "over the 5 models a, b, c, d, e" in table.caption
    assert "0 is balanced accuracy 0.620, 1 is 0.910; n = 5 models" in table.columns[1].hint


def test_groups_are_means_over_their_models() -> None:
    groups = {"a": "one", "b": "one", "c": "two", "d": "one"}
    own = tables(study(probes(), groups=groups))
    table = own["table-across-groups-1"]
    values = scaled(PROBES["xrays"])
    assert column(table, "xrays")["one"] == pytest.approx(values[[0, 1, 3]].mean())
    assert (
        table.rows[0][2].text
        == f"{values[[0, 1, 3]].mean():.3f} ± {values[[0, 1, 3]].std(ddof=1):.3f}, n = 3"
    )
    every = np.mean([scaled(values) for values in PROBES.values()], axis=0)
    assert column(table, "all 3 data sets")["one"] == pytest.approx(every[[0, 1, 3]].mean())
    assert table.rows[0][-1].text.endswith(f"± {every[[0, 1, 3]].std(ddof=1):.3f}, n = 3")
    assert any("No group is given of e" in note for note in table.notes)
    assert "table-across-groups-1" not in tables(study(probes()))


def test_a_model_without_a_value_somewhere_enters_no_scale_and_is_named_with_the_reason() -> None:
    """Model a has the extreme of `xrays`: the scale there must not be over it."""
    entries = probes()
    entries["tiles"][0] = probe(
        "a", None, metrics={"test": {"mean_per_class_accuracy": None, "reason": "one class"}}
    )
    del entries["scans"][1]
    gap = Gap("scans", "b", "probe", "default", 0, "failed", "no memory")
    evaluations = {one.id: "probe" for own in entries.values() for one in own}
    given = study(entries, gaps=(gap,), evaluations=evaluations, models=(*MODELS, "f"))
    table = tables(given)["table-across-1"]
    assert [row[0].text for row in table.rows] == ["c", "d", "e"]
    np.testing.assert_allclose(
        list(column(table, "xrays").values()),  # type: ignore[arg-type]
        scaled(PROBES["xrays"][2:]),
        rtol=1e-12,
    )
    assert table.notes[0] == (
        "n = 3 of 6 models; without a (one class on tiles); b (failed on scans); "
        "f (not evaluated on xrays, tiles, scans)."
    )


def test_a_data_set_without_a_scale_enters_no_mean() -> None:
    entries = probes()
    entries["tiles"] = [probe(model, 0.5) for model in MODELS]
    table = tables(study(entries))["table-across-1"]
    assert [one.title for one in table.columns] == ["model", "xrays", "scans", "all 2 data sets"]
    assert "Data sets left out: tiles (all 5 values of the set are equal)." in table.notes


def test_no_scale_of_disjoint_models_and_no_section_of_one_data_set_or_model() -> None:
    entries = {"xrays": [probe("a", 0.5), probe("b", 0.6)], "tiles": [probe("c", 0.5), probe("d", 0.6)]}
    (text,) = [
        one.text for one in blocks(study(entries)) if isinstance(one, Paragraph) and "no scale" in one.text
    ]
    assert "n = 0 of 4 models; without a, b (not evaluated on tiles); c, d (not evaluated on xrays)" in text
    assert sections(study({"xrays": probes()["xrays"]}), PageOptions()) == ()
    assert sections(study({name: own[:1] for name, own in probes().items()}), PageOptions()) == ()


def test_modes_and_metrics_are_never_mixed() -> None:
    entries = probes()
    entries["tiles"] = [probe(model, 0.5, mode="as-published") for model in MODELS]
    own = tables(study(entries))
    assert [one.title for one in own["table-across-1"].columns][1:3] == ["xrays", "scans"]
    assert set(own) == {"table-across-1"}, "one data set of the other mode is no scale over data sets"
    entries = probes()
    test = {"test": {"mean_per_class_accuracy": None, "accuracy": 0.99}}
    entries["xrays"][0] = probe("a", None, metrics=test)
    table = tables(study(entries))["table-across-1"]
    assert table.notes[0] == "n = 4 of 5 models; without a (judged by accuracy on xrays)."


def test_marks_of_weak_models_stand_beside_scaled_values_and_ties_are_named() -> None:
    entries = probes()
    below = [
        {"metric": "mean_per_class_accuracy", "finding": "", "control": "metadata", "control_value": 0.95}
    ]
    entries["xrays"][0] = probe("a", 0.91, metrics={"below_control": below})
    pair = ("a", "b", 0.1, -0.1, 0.3, 0.4, False)
    entries["xrays"].append(comparison(entries["xrays"], PROBES["xrays"], MODELS, [pair]))
    apart = (*pair[:6], True)
    entries["tiles"].append(comparison(entries["tiles"], PROBES["tiles"], ["e"], [apart]))
    table = tables(study(entries))["table-across-1"]
    assert table.rows[0][1].text == "1.000†" and table.rows[0][1].tone == "error"
    assert any(note.startswith("No two models can be told apart on xrays:") for note in table.notes)


def test_correlations_are_those_of_scipy_within_a_mode_and_need_four_models() -> None:
    cosines = (0.2, 0.5, 0.1, 0.6, 0.4)
    entries = probes()
    shots = (0.8, 0.7, 0.6, 0.75, 0.72)
    entries["xrays"] += [fewshot(model, value, 0.01) for model, value in zip(MODELS, shots, strict=True)]
    entries["xrays"] += [invariance(model, value) for model, value in zip(MODELS[:4], cosines, strict=False)]
    entries["tiles"] += [invariance(model, value) for model, value in zip(MODELS[:3], cosines, strict=False)]
    entries["scans"] += [
        invariance(model, value, "as-published") for model, value in zip(MODELS, cosines, strict=True)
    ]
    table = tables(study(entries))["table-correlations"]
    rows = {(row[0].text, row[2].text, row[3].text): row for row in table.rows}
    x, flips = "linear probe (balanced accuracy)", "invariance: h_flip (cosine similarity)"
    assert set(rows) == {
        ("xrays", x, "2-way 5-shot (accuracy)"),
        ("xrays", flips, x),
        ("xrays", flips, "2-way 5-shot (accuracy)"),
    }
    values = {x: PROBES["xrays"], "2-way 5-shot (accuracy)": shots, flips: cosines[:4]}
    p = []
    for (_, first, second), row in rows.items():
        n = 4 if first == flips else 5
        u, v = np.array(values[first][:n]), np.array(values[second][:n])
        expected = stats.pearsonr(u, v)
        interval = expected.confidence_interval()
        assert [row[4].number, row[5].number, row[5].low, row[5].high, row[6].number] == pytest.approx(
            [n, expected.statistic, *interval, expected.pvalue]
        )
        without = [stats.pearsonr(np.delete(u, i), np.delete(v, i)).statistic for i in range(n)]
        assert (row[8].number, row[9].number) == pytest.approx((min(without), max(without)))
        assert row[8].reason == f"Without {MODELS[int(np.argmin(without))]}"
        assert row[10].text == ("all 5" if n == 5 else "a, b, c, d; without e (no invariance: h_flip)")
        p.append(expected.pvalue)
    order = np.argsort(p)
    holm = np.empty(3)
    holm[order] = np.minimum(np.maximum.accumulate(np.array(p)[order] * [3, 2, 1]), 1)
    assert [row[7].number for row in rows.values()] == pytest.approx(holm.tolist())
    assert table.notes[1] == "Pairs of evaluations with fewer than 4 models, which are left out: 1."


def test_of_several_seeds_the_smallest_enters() -> None:
    entries = probes()
    for own in entries.values():
        other = [
            entry_of("probe", one.model, {**one.record.asked, "seed": 1}, dict(one.record.metrics))
            for one in own
            if one.record
        ]
        own += other
    own = tables(study(entries))
    assert set(own) == {"table-across-1"} and "seed 0" in own["table-across-1"].caption
    assert any(
        isinstance(one, Paragraph) and "Of several seeds" in one.text for one in blocks(study(entries))
    )
