"""Ours beside theirs: differences, the rule of intervals, reasons of missing cells, effects and notes."""

import math
from dataclasses import replace

import pytest

from benchmarks.paper.against import sections
from benchmarks.paper.cells import Comparison, Context, kind_of
from benchmarks.paper.names import VARIANTS, dataset_label, model_label
from benchmarks.paper.ours import ours_of
from benchmarks.paper.results_table import Place
from benchmarks.paper.values import Value as Number
from benchmarks.paper.values import published_tables
from engine.report.page.blocks import Block, DataTable, Details, Paragraph
from engine.report.page.inputs import Gap, PageInput, PageOptions, Source
from stores.backends.location import place
from stores.bank.record_index import RecordEntry
from stores.bank.records import RunRecord


def few(
    model: str, accuracy: float, ci95: float | None, mode: str = "default", n_way: int = 2
) -> RecordEntry:
    asked = {"n_way": n_way, "n_shot": 20, "n_query": 15, "episodes": 600, "mode": mode, "seed": 0}
    metrics = {"accuracy": accuracy, "ci95": ci95}
    record = RunRecord("fewshot", asked, {}, metrics, {}, "2026-01-01T00:00:00+00:00")
    return RecordEntry(f"{model}-{mode}", "records/x.json", record, None, model)


def page(*sources: tuple[str, list[RecordEntry]], gaps: tuple[Gap, ...] = (), models=()) -> PageInput:
    own = tuple(Source(name, place(f"/nowhere/{name}.bank"), tuple(entries)) for name, entries in sources)
    return PageInput("a study", own, models=models, gaps=gaps)


def blocks_of(given: PageInput) -> list[Block]:
    (section,) = sections(given, PageOptions())
    blocks: list[Block] = []
    for block in section.blocks:
        blocks += [block, *block.blocks] if isinstance(block, Details) else [block]
    return blocks


def table(blocks: list[Block], name: str) -> dict[tuple[str, str], dict[str, object]]:
    (chosen,) = [b for b in blocks if isinstance(b, DataTable) and b.id == name]
    heads = [f"{column.group} {column.title}".strip() for column in chosen.columns]
    return {(row[0].text, row[1].text): dict(zip(heads, row, strict=True)) for row in chosen.rows}


@pytest.mark.parametrize(
    "ours, theirs, inside",
    [
        ((10.0, 3.0), (15.0, 4.0), "yes"),  # 5 = root of 9 + 16
        ((10.0, 3.0), (15.01, 4.0), "no"),
        ((10.0, 3.0), (13.0, None), "yes"),
        ((10.0, None), (14.5, 4.0), "no"),
        ((10.0, None), (10.0, None), "unknown"),
        ((math.nan, None), (10.0, 1.0), "unknown"),
    ],
)
def test_the_rule_of_two_intervals(ours, theirs, inside):
    numbers = [Number("byol", "bach", "m", value, half) for value, half in (ours, theirs)]
    assert Comparison.of(*numbers).inside == inside


def test_cells_stand_beside_the_printed_ones_in_both_modes():
    # The printed cell is 83.28 +- 0.66.
    blocks = blocks_of(page(("bach", [few("byol", 0.84, 0.005), few("byol", 0.81, 0.005, "as-published")])))
    row = table(blocks, "paper-table-3-against")["BACH", "BYOL"]
    assert row["theirs"].text == "83.28 ± 0.66"
    assert row["default ours"].text == "84.00 ± 0.50"
    assert row["default n"].text == "600 episodes"
    assert row["default difference"].number == pytest.approx(84 - 83.28)
    half = math.sqrt(0.5**2 + 0.66**2)
    assert row["default difference"].high == pytest.approx(84 - 83.28 + half)
    assert row["default inside"].text == "yes"  # 0.72 <= 0.83
    assert row["as-published difference"].text == "-2.28"
    assert row["as-published inside"].text == "no"
    assert (row["default inside"].tone, row["as-published inside"].tone) == ("good", "warning")
    first = next(block for block in blocks if isinstance(block, Paragraph))
    assert "mode default: 1 of 536 cells measured, 1 equal within the intervals" in first.text


def test_all_cells_of_a_table_are_listed_and_missing_ones_say_why():
    gaps = (
        Gap("bach", "swav", "fewshot", "default", 0, "failed", "weights are gone"),
        Gap("bach", "pirl", "linear", "default", 0, "impossible", "another evaluation"),
    )
    blocks = blocks_of(
        page(("bach", [few("byol", 0.84, 0.005)]), gaps=gaps, models=("byol", "swav", "moco-v2"))
    )
    measured, rows = table(blocks, "paper-table-3-against"), table(blocks, "paper-table-3-missing")
    printed = {
        (dataset_label(cell.dataset), model_label(cell.model)): cell.text
        for cell in published_tables()
        if cell.source == "Table 3"
    }
    assert len(printed) == 80 == len(measured) + len(rows)
    assert {**measured, **rows}.keys() == printed.keys()
    assert all(row["theirs"].number == float(printed[key]) for key, row in rows.items())
    reasons = {key: row["why ours is missing default"].text for key, row in rows.items()}
    assert reasons["BACH", "SwAV"] == "failed: weights are gone"
    assert reasons["BACH", "MoCo-v2"] == "missing: no result of fewshot in mode default"
    assert reasons["BACH", "SimCLR-v1"] == "missing: no result of SimCLR-v1"
    assert reasons["CheXpert", "BYOL"] == "no data: CheXpert is not among the data sets"
    assert measured["BACH", "BYOL"]["as-published ours"].reason.startswith("missing: no result of fewshot")
    assert any(isinstance(b, Paragraph) and b.text.startswith("No cell of Table 4, ") for b in blocks)


@pytest.mark.parametrize(
    "evaluation, metric",
    [
        ("fewshot", "few_shot_2way_20shot_accuracy_pct"),
        ("linear", "linear_accuracy_pct"),
        ("probe", "linear_accuracy_pct"),
        ("rotation", "rotation_invariance_cosine"),
        ("h-flip", "hflip_invariance_cosine"),
        ("LPIPS", "lpips_alex"),
        ("saliency", "attentive_diffusion"),
    ],
)
def test_gaps_are_known_by_the_names_of_evaluations(evaluation, metric):
    dataset = "chexpert"
    gap = Gap(dataset, "byol", evaluation, "default", 0, "failed", "the disk was full")
    given = page((dataset, [few("swav", 0.5, 0.01)]), gaps=(gap,))
    context = Context.of(given, ours_of(given.sources))
    assert context.why_missing("default", "byol", Place(dataset, metric, 2)) == "failed: the disk was full"
    assert context.why_missing("as-published", "byol", Place(dataset, metric, 2)).startswith("missing")
    other = "saliency" if evaluation != "saliency" else "audit"
    elsewhere = Context.of(page(*[(dataset, [])], gaps=(replace(gap, evaluation=other),)), context.ours)
    assert elsewhere.why_missing("default", "byol", Place(dataset, metric, 2)).startswith("missing")


def test_notes_stand_beside_the_cells_that_are_doubted():
    blocks = blocks_of(page(("ichallenge-amd", [few("simclr-v1", 0.749, 0.006), few("byol", 0.7, 0.1)])))
    rows = table(blocks, "paper-table-3-against")
    row = rows["iC-AMD", "SimCLR-v1"]
    assert (
        row["note"].text and "likelier right: stored" in row["note"].reason and "74.90" in row["note"].reason
    )
    assert row["default difference"].number == pytest.approx(74.9 - 47.9)
    assert not rows["iC-AMD", "BYOL"]["note"].text


def test_checkpoints_are_held_against_stored_results_and_their_largest_against_the_table():
    entries = [few("moco-cxr-r18", 0.70, 0.01), few("moco-cxr-d121", 0.69, 0.01)]
    rows = table(blocks_of(page(("bach", entries))), "paper-table-3-against")
    assert rows["BACH", "MoCo-CXR"]["default ours"].number == pytest.approx(70)
    assert rows["BACH", "MoCo-CXR"]["theirs"].text == "69.07 ± 0.82"
    assert "largest" in rows["BACH", "MoCo-CXR"]["default ours"].reason
    assert rows["BACH", "MoCo-CXR (d121)"]["theirs"].number == pytest.approx(69.07)
    assert rows["BACH", "MoCo-CXR (d121)"]["theirs"].reason == "the authors' stored result"


def test_effects_of_the_mode_and_of_variants_are_measured_on_any_data():
    entries = [
        few("byol", 0.80, 0.01),
        few("byol", 0.83, 0.01, "as-published"),
        few("byol+same", 0.79, 0.01),
    ]
    blocks = blocks_of(page(("ichallenge-pm", entries)))
    effects = next(b for b in blocks if isinstance(b, DataTable) and b.id == "paper-table-3-effects")
    by = {row[3].text: row for row in effects.rows}
    assert by["mode"][6].number == pytest.approx(3)
    assert by["mode"][6].high == pytest.approx(3 + math.hypot(1, 1))  # nothing of single episodes: not paired
    assert by["mode"][8].text == "not paired"
    assert by["+same"][6].number == pytest.approx(1)
    notes = table(blocks, "paper-table-3-methods")
    measured = {key[0][:20]: row["measured effect"].text for key, row in notes.items()}
    assert measured["The cells were very "].startswith("as-published - default: mean +3.00")  # iC-PM's labels
    assert measured["BYOL (TensorFlow's S"].startswith("plain - +same: mean +1.00")
    assert measured["The data set's code "] == "not measured here"
    assert measured["Uncertain labels: th"].startswith("not measured here: it takes results of both modes")


def test_a_study_on_other_data_says_that_no_cell_was_measured():
    blocks = blocks_of(page(("digits", [few("resnet", 0.9, 0.01)])))
    assert isinstance(blocks[0], Paragraph)
    assert "No cell" in blocks[0].text and "digits" in blocks[0].text and "resnet" in blocks[0].text
    assert not [b for b in blocks if isinstance(b, DataTable)]


def test_parts_of_a_study_with_images_of_their_own_are_of_their_data_set():
    entries = [few("byol", 0.84, 0.005, "as-published")]
    rows = table(blocks_of(page(("bach.as-published", entries))), "paper-table-3-against")
    assert rows["BACH", "BYOL"]["as-published ours"].number == pytest.approx(84)


def test_the_section_names_no_record():
    entry = few("byol", 0.84, 0.005)
    (section,) = sections(page(("bach", [entry])), PageOptions(timings=False))
    assert entry.id not in repr(section)


def test_every_metric_has_a_kind_of_evaluation():
    kinds = {kind_of(cell.metric) for cell in published_tables()}
    assert kinds == {"fewshot", "probe", "finetune", "invariance", "multiview", "reconstruct", "saliency"}


def entry_of(cell: Number) -> RecordEntry:
    """Return a record whose number is a printed cell plus 1 (percent) or plus 0.1."""
    kind = kind_of(cell.metric)
    value = (cell.value + 1) / 100 if cell.metric.endswith("pct") else cell.value + 0.1
    asked: dict[str, object] = {"seed": 0, "mode": "default"}
    metrics: dict[str, object] = {"cosine": value, "ci95": None, "n": 100}
    if kind == "fewshot":
        n_way = 5 if "5way" in cell.metric else 2
        asked |= {"n_way": n_way, "n_shot": 20, "n_query": 15, "episodes": 600}
        metrics = {"accuracy": value, "ci95": 0.005}
    elif kind in ("probe", "finetune"):
        metrics = {"test": {"accuracy": value, "mean_per_class_accuracy": value}, "images": {"test": 9}}
    elif kind == "saliency":
        metrics = {"items": [{"attentive_diffusion": value, "stride": 1}], "mean": value}
    else:
        word = cell.metric.partition("_")[0]
        asked["transform"] = {"hflip": "h_flip", "multiview": "multi-view"}.get(word, word)
    kind = "invariance" if kind == "multiview" else kind
    return documented(kind, asked, metrics, cell.model)


def documented(kind: str, asked: dict, metrics: dict, model: str) -> RecordEntry:
    """Return an entry; a row of several checkpoints is measured by one of them."""
    record = RunRecord(kind, asked, {}, metrics, {}, "2026-01-01T00:00:00+00:00")
    return RecordEntry("x", "records/x.json", record, None, VARIANTS.get(model, (model,))[0])


def test_all_536_cells_are_compared():
    by_dataset: dict[str, list[RecordEntry]] = {}
    lpips: dict[tuple[str, str], dict[str, float]] = {}
    for cell in published_tables():
        if cell.metric.startswith("lpips"):  # three metrics of one record
            net = cell.metric.removeprefix("lpips_")
            lpips.setdefault((cell.dataset, cell.model), {})[net] = cell.value + 0.1
        else:
            by_dataset.setdefault(cell.dataset, []).append(entry_of(cell))
    for (dataset, model), distances in lpips.items():
        metrics = {"items": [{"image_id": "a", "lpips": distances}]}
        by_dataset[dataset].append(documented("reconstruct", {"steps": 3000}, metrics, model))
    blocks = blocks_of(page(*by_dataset.items()))
    assert isinstance(blocks[0], Paragraph) and "mode default: 536 of 536 cells measured" in blocks[0].text
    differences = []
    for block in blocks:
        if isinstance(block, DataTable) and block.id.endswith("-against"):
            step = 1 if block.id in ("paper-table-3-against", "paper-table-4-against") else 0.1
            heads = [f"{column.group} {column.title}".strip() for column in block.columns]
            rows = [dict(zip(heads, row, strict=True)) for row in block.rows]
            printed = [row for row in rows if row["theirs"].reason != "the authors' stored result"]
            differences += [
                row["default difference"].number / step for row in printed if row["theirs"].number
            ]
    assert len(differences) == 536
    assert differences == pytest.approx([1.0] * 536)
