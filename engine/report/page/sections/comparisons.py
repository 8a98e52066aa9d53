"""Paired comparisons: which models can be told apart, by how much, and how sure that is."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from engine.report.json_parts import members, objects
from engine.report.marks import LEGEND, MARK
from engine.report.page.blocks import Block, Chart, Column, DataTable, Details, Paragraph, Section, Value
from engine.report.page.cells import difference_cell, p_cell, score_cell, signed
from engine.report.page.comparisons import Comparison, comparisons_of
from engine.report.page.groups import MODES
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.page.numbers import SMALLER_IS_BETTER
from engine.report.page.room import fitting
from engine.report.page.svg.curves import WIDE, Dimension
from engine.report.page.svg.element import panels
from engine.report.page.svg.looks import Look
from engine.report.page.svg.rows import Dot, Row, RowsPanel, draw_rows
from engine.report.page.svg.words import clipped
from engine.report.record_values import number, text
from stores.json_types import Json, JsonObject

#: A hyphen that stands for a minus sign.
_MINUS = re.compile(r"(?<![\w.])-(?=\d)")
#: Share of the page for the tables of models and of pairs each.
_TABLED = 0.04
#: Rows of a chart, models up to which all pairs are shown, and comparisons that stand open on the page.
_ROWS, _ALL_PAIRS, _OPEN = 40, 5, 6
#: Filled, of models that can be told apart; open, of those that cannot.
_APART, _ALIKE = Look(0), Look(None, hollow=True)


@dataclass(frozen=True)
class Compared:
    """A comparison as it is drawn.

    Attributes:
        comparison: with the record.
        several_seeds: whether comparisons of other seeds are on the page.
    """

    comparison: Comparison
    several_seeds: bool = False

    @property
    def body(self) -> Mapping[str, Json]:
        """The comparison, as `embank compare --json` prints it."""
        return self.comparison.record.metrics

    @property
    def metric(self) -> str:
        """Name of the metric."""
        return self.comparison.word

    @property
    def sign(self) -> float:
        """-1 where smaller values are better, so that a positive difference always means better."""
        return -1.0 if self.comparison.metric in SMALLER_IS_BETTER else 1.0

    @property
    def title(self) -> str:
        """Data set, evaluation, task, metric and mode."""
        mode = self.comparison.mode
        words = [self.comparison.task, self.metric, MODES.get(mode, mode)]
        seed = self.comparison.record.asked.get("seed")
        named = f"seed {seed}" in self.comparison.task
        words += [f"seed {seed}"] * (self.several_seeds and seed is not None and not named)
        return f"{self.comparison.dataset}: {', '.join(word for word in words if word)}"

    @property
    def models(self) -> list[JsonObject]:
        """The models, the best first."""
        return objects(self.body["models"])

    @property
    def pairs(self) -> list[JsonObject]:
        """The pairs to show: all, or of many models those with the best one."""
        pairs = objects(self.body["pairs"]) if self.body["pairs"] else []
        best = self.models[0].get("model")
        return pairs if len(self.models) <= _ALL_PAIRS else [pair for pair in pairs if pair.get("a") == best]


def sections(page: PageInput, options: PageOptions) -> tuple[Section, ...]:
    """Return the section, or none where nothing was compared."""
    comparisons = _drawn(page)
    if not comparisons:
        return ()
    lead = Paragraph(
        "Two models are compared on the same images. A filled square says that they can be told apart "
        "after Holm's adjustment for all pairs; an open circle that they cannot. Models with a letter in "
        "common cannot be told apart."
    )
    blocks: list[Block] = [lead]
    for place, comparison in enumerate(comparisons, 1):
        own = _blocks(comparison, f"comparison-{place}", options, len(comparisons))
        closed = len(comparisons) > _OPEN and not _is_first(comparisons, place - 1)
        blocks += [Details(f"comparison-{place}-more", comparison.title, own)] if closed else own
    return (Section("comparisons", "Paired comparisons", tuple(blocks)),)


def _is_first(comparisons: list[Compared], place: int) -> bool:
    """Return whether a comparison is the first one of its data set."""
    before = {one.comparison.dataset for one in comparisons[:place]}
    return comparisons[place].comparison.dataset not in before


def _drawn(page: PageInput) -> list[Compared]:
    """Return the comparisons in the order of data sets, the default mode first."""
    places = {source.name: place for place, source in enumerate(page.sources)}
    own = [one for one in comparisons_of(page) if _drawable(one.record.metrics)]
    ordered = sorted(own, key=lambda one: (places.get(one.dataset, 0), one.mode != "default"))
    seeds = {(one.dataset, str(seed)) for one in own if (seed := one.record.asked.get("seed")) is not None}
    several = len(seeds) > len({dataset for dataset, _ in seeds})
    return [Compared(one, several) for one in ordered]


def _drawable(body: Mapping[str, Json]) -> bool:
    return (
        isinstance(body.get("models"), list) and isinstance(body.get("pairs"), list) and bool(body["models"])
    )


def _blocks(comparison: Compared, identity: str, options: PageOptions, count: int) -> tuple[Block, ...]:
    body = comparison.body
    drawings = [
        draw_rows(_standings(comparison, f"plot-{identity}-models")),
        draw_rows(_forest(comparison, f"plot-{identity}-pairs")),
    ]
    verdict = [_MINUS.sub("\u2212", sentence) for sentence in _texts(body.get("verdict"))]
    basis = [_basis(comparison), *(f"{note}." for note in _texts(body.get("notes")))]
    if any(model.get("below_control") for model in comparison.models):
        basis.append(f"{LEGEND}.")
    if len(comparison.pairs) < len(_list(body["pairs"])):
        basis.append("Of many models the pairs with the best one are shown.")
    notes = [" ".join(verdict)] * bool(verdict) + [" ".join(basis)]
    alt = " ".join(verdict) or f"Values and paired differences of {len(comparison.models)} models."
    tables = [_models_table(comparison, identity), _pairs_table(comparison, identity)]
    if any(fitting(table, options, _TABLED, count) is not table for table in tables):
        tables = []
        notes.append("To keep the page small it has no tables of these; `embank compare -o` writes them.")
    if isinstance(body.get("findings"), list) and body["findings"]:
        tables.append(fitting(_findings_table(comparison, identity), options, _TABLED, count))
    chart = Chart(identity, comparison.title, panels(drawings), alt, notes=tuple(notes))
    if not tables:
        return (chart,)
    return chart, Details(f"{identity}-numbers", "Numbers of this comparison", tuple(tables))


def _basis(comparison: Compared) -> str:
    """Return what the numbers rest on, as far as the record says."""
    body = comparison.body
    pairs = objects(body["pairs"]) if body["pairs"] else []
    tests = dict.fromkeys(text(pair.get("test")) for pair in pairs if pair.get("test"))
    images, units, resamples, count = (
        number(body.get(name)) for name in ("images", "units", "resamples", "tests")
    )
    patients = body.get("unit") == "patients"
    words = [f"On {images:,.0f} images"] if math.isfinite(images) else []
    words += [f"{'of' if words else 'On'} {units:,.0f} patients"] if patients and math.isfinite(units) else []
    over = f"Intervals: 95 % over {comparison.comparison.unit}"
    over += f", {resamples:,.0f} resamples ({body.get('interval')})" if math.isfinite(resamples) else ""
    over += ", not adjusted"
    over += f"; p by {', '.join(tests)}" if tests else ""
    over += f", adjusted by Holm's method for {count:,.0f} tests" if tests and count > 1 else ""
    return f"{' '.join(words)}. {over}." if words else f"{over}."


def _standings(comparison: Compared, identity: str) -> RowsPanel:
    models = comparison.models[:_ROWS]
    best = set(_texts(comparison.body.get("best")))
    rows = []
    for model in models:
        name = text(model.get("model"))
        mark = MARK if model.get("below_control") else ""
        value = number(model.get("value"))
        shown = f"{value:.3f}" if math.isfinite(value) else ""
        aside = " · ".join(word for word in (shown, _ranks(model), text(model.get("letters"))) if word)
        look = Look(0) if name in best else Look(None)
        dot = Dot(value, number(model.get("low")), number(model.get("high")), look)
        rows.append(Row(f"{name}{mark}", (dot,), aside, name in best))
    lower = ", lower is better" if comparison.sign < 0 else ""
    left_out = len(comparison.models) - len(models)
    note = "value, rank interval, letters" + (f"; the best {len(models)} models" if left_out else "")
    return RowsPanel(
        identity,
        "Models",
        f"{comparison.title}: {len(rows)} models with 95 % intervals, the best first.",
        tuple(rows),
        Dimension(f"{comparison.metric}{lower}", most=5),
        note=note,
    )


def _ranks(model: JsonObject) -> str:
    rank = members(model.get("rank"))
    low, high = number(rank.get("low")), number(rank.get("high"))
    if not math.isfinite(low):
        return ""
    return f"#{low:.0f}" if low == high else f"#{low:.0f}–{high:.0f}"


def _forest(comparison: Compared, identity: str) -> RowsPanel:
    pairs = comparison.pairs[:_ROWS]
    against_best = len(comparison.models) > _ALL_PAIRS
    rows = [_pair_row(comparison, pair, not against_best) for pair in pairs]
    best = clipped(text(comparison.models[0].get("model")), WIDE - 90)
    heading = f"{best} minus …" if against_best else "Differences"
    return RowsPanel(
        identity,
        heading,
        f"{comparison.title}: {len(rows)} paired differences with 95 % intervals.",
        tuple(rows),
        Dimension(f"difference in {comparison.metric} (right: first is better)", most=5),
        zero=True,
        note="filled: told apart after Holm; open: not",
    )


def _pair_row(comparison: Compared, pair: JsonObject, grouped: bool) -> Row:
    difference, low, high = _oriented(comparison, pair)
    apart = pair.get("different") is True
    p = number(pair.get("p_holm"))
    words = [signed(difference)] if math.isfinite(difference) else []
    words += [("p < 0.001" if p < 0.001 else f"p = {p:.3f}")] if math.isfinite(p) else []
    look = Look(1, dash="solid") if apart else Look(None, hollow=True)
    dot = Dot(difference, low, high, look, text(pair.get("reason")))
    under = f"{text(pair.get('a'))} minus" if grouped else ""
    return Row(text(pair.get("b")), (dot,), " · ".join(words), apart, under)


def _oriented(comparison: Compared, pair: JsonObject) -> tuple[float, float, float]:
    """Return the difference and its interval, above 0 where the first model is better."""
    sign = comparison.sign
    ends = sign * number(pair.get("low")), sign * number(pair.get("high"))
    return sign * number(pair.get("difference")), min(ends), max(ends)


def _models_table(comparison: Compared, identity: str) -> DataTable:
    best = set(_texts(comparison.body.get("best")))
    columns = (
        Column("model"),
        Column(comparison.metric, True, f"With its 95 % interval over {comparison.body.get('unit')}"),
        Column("rank", True, "Interval of the rank, 1 is the best; all intervals hold together"),
        Column("group", False, "Models with a letter in common cannot be told apart"),
        Column("below control", False, "Control that reaches a better number without the model"),
    )
    rows = []
    for model in comparison.models:
        name, rank = text(model.get("model")), members(model.get("rank"))
        ranks = _ranks(model).removeprefix("#")
        rows.append(
            (
                Value(name, strong=name in best),
                score_cell(*_scores(model)),
                Value(ranks, number(rank.get("low")) if ranks else None),
                Value(text(model.get("letters"))),
                Value(text(model.get("below_control")), tone="error" if model.get("below_control") else None),
            )
        )
    caption = f"Models: {comparison.title}. {_basis(comparison)}"
    return DataTable(f"table-{identity}-models", caption, columns, tuple(rows))


def _pairs_table(comparison: Compared, identity: str) -> DataTable:
    columns = (
        Column("model"),
        Column("against"),
        Column("difference", True, "Above 0 where the first model is better; with its 95 % interval"),
        Column("p", True, "Two-sided, of no difference"),
        Column("Holm p", True, "Adjusted for all pairs of the comparison"),
        Column("told apart"),
        Column("test"),
    )
    rows = tuple(
        (
            Value(text(pair.get("a"))),
            Value(text(pair.get("b"))),
            difference_cell(*_oriented(comparison, pair), reason=text(pair.get("reason"))),
            p_cell(number(pair.get("p"))),
            p_cell(number(pair.get("p_holm"))),
            Value("yes" if pair.get("different") is True else "no", strong=pair.get("different") is True),
            Value(text(pair.get("test"))),
        )
        for pair in comparison.pairs
    )
    caption = f"Pairs: {comparison.title}. {_basis(comparison)}"
    return DataTable(f"table-{identity}-pairs", caption, columns, rows)


def _findings_table(comparison: Compared, identity: str) -> DataTable:
    columns = (
        Column("finding or class"),
        Column("best"),
        Column(comparison.metric, True, "Of the best model, with its 95 % interval"),
        Column("not told from the best"),
    )
    rows = []
    for finding in objects(comparison.body["findings"]):
        models, best = objects(finding.get("models")), _texts(finding.get("best"))
        first = models[0] if models else {}
        value = score_cell(*_scores(first), reason=text(finding.get("reason")))
        rows.append(
            (
                Value(text(finding.get("name"))),
                Value(best[0] if best else ""),
                value,
                Value(", ".join(best[1:]) or "none"),
            )
        )
    caption = f"Findings or classes: {comparison.title}. {_basis(comparison)}"
    return DataTable(f"table-{identity}-findings", caption, columns, tuple(rows))


def _scores(model: JsonObject) -> tuple[float, float, float]:
    return number(model.get("value")), number(model.get("low")), number(model.get("high"))


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _texts(value: Json) -> list[str]:
    return [str(part) for part in value] if isinstance(value, list) else []
