"""Table 2 of the paper: the models, from embank's catalogue."""

from benchmarks.paper.names import MODELS, TOP1, model_label
from benchmarks.paper.results_table import family
from benchmarks.paper.values import Values, published_results
from engine.models.catalog.entry import Facts
from engine.models.catalog.lookup import Entry, find
from engine.recipes import Recipe
from engine.report.page.blocks import Column, DataTable, Value

TITLE = "the models: architecture, training, input"

_NORMALISATION = {"mean_sd": "mean and sd", "none": "0-1", "histogram": "histogram equalised"}


def published() -> Values:
    """Return the values that the authors' accuracies on ImageNet are among."""
    return published_results()


def table(values: Values) -> DataTable:
    """Return the thirteen checkpoints, with the authors' ImageNet accuracies where `values` have them."""
    columns = (
        Column("model"),
        Column("trained", hint="how, and on what"),
        Column("architecture"),
        Column("weights"),
        Column("input"),
        Column("catalogue", numeric=True, group="ImageNet top-1, %", hint="of these weights"),
        Column(
            "authors",
            numeric=True,
            group="ImageNet top-1, %",
            hint="of the list that Figure A4 is drawn from",
        ),
        Column("paper"),
    )
    return DataTable(
        "paper-table-2",
        "Table 2: the checkpoints of the study, from embank's catalogue of models (`embank models show`).",
        columns,
        tuple(_row(slug, find(slug), values) for slug in MODELS),
        (
            "The cells of the paper's Table 2 are not among the published values: these are the catalogue's "
            "own facts on the same checkpoints.",
            "ImageNet top-1 is by linear evaluation, and of supervised networks their own. The authors' list "
            "has numbers of the papers that introduced the supervised architectures, not of these weights.",
        ),
    )


def _row(slug: str, entry: Entry, values: Values) -> tuple[Value, ...]:
    facts: Facts = entry.row.facts
    authors = values.get(slug, "imagenet", TOP1)
    return (
        Value(model_label(slug)),
        Value(family(slug)),
        Value(entry.architecture.removeprefix("torchvision/")),
        Value(entry.notes),
        Value(_input(entry.recipe)),
        Value("–", reason="none is published")
        if facts.top1 is None
        else Value(f"{facts.top1:g}", facts.top1),
        Value("–", reason="no value") if authors is None else Value(authors.text, authors.value),
        Value(facts.paper),
    )


def _input(recipe: Recipe) -> str:
    return f"{recipe.side} pixels, {_NORMALISATION[recipe.normalise]}"
