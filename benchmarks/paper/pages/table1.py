"""Table 1 of the paper: the data sets, from the adapters' facts and as printed."""

import csv

from benchmarks.paper.names import DATASETS, dataset_label
from benchmarks.paper.values import PUBLISHED, Values
from engine.datasets import load
from engine.report.page.blocks import Column, DataTable, Value

TITLE = "the data sets: images, classes, domain"

_TYPES = {"cxr": "chest X-ray", "histology": "histology", "fundus": "fundus"}


def table(values: Values) -> DataTable:
    """Return the data sets; no value of a model stands in this table.

    Images and classes are those of embank's adapters in mode `default`, and those that the paper prints.
    """
    with (PUBLISHED / "table1_datasets.csv").open(encoding="utf-8", newline="") as file:
        printed = {row["dataset"]: row for row in csv.DictReader(file)}
    columns = (
        Column("data set"),
        Column("images of"),
        Column("domain", hint="in: chest X-rays, as the domain-specific models were trained on"),
        Column("images", numeric=True, group="adapter"),
        Column("classes", numeric=True, group="adapter", hint="of the label that is learned"),
        Column("images", numeric=True, group="paper"),
        Column("classes", numeric=True, group="paper"),
        Column("licence"),
    )
    return DataTable(
        "paper-table-1",
        "Table 1: the data sets of the study, by embank's adapters and as the paper counts them.",
        columns,
        tuple(_row(name, printed[name]) for name in DATASETS),
        (
            "The paper counts findings as classes of CheXpert and ChestX-ray14; one finding of CheXpert is "
            "learned, and seven classes of ChestX-ray14 images that show a single finding. Of EyePACS it "
            "counts the official training part.",
        ),
    )


def _row(name: str, printed: dict[str, str]) -> tuple[Value, ...]:
    facts = load(name).facts
    return (
        Value(dataset_label(name)),
        Value(_TYPES[printed["type"]]),
        Value(printed["domain"]),
        _count(facts.images),
        _count(sum(bool(name) for name in facts.classes)),
        _count(int(printed["n_images"])),
        _count(int(printed["n_classes"])),
        Value(facts.licence),
    )


def _count(number: int) -> Value:
    return Value(f"{number:,}", float(number)) if number else Value("–", reason="not known")
