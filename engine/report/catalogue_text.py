"""What `embank models`, `embank datasets` and `embank bench` print."""

from typing import Any

from engine.report import console
from engine.report.console import write as print


def print_converted(report: dict[str, Any]) -> None:
    source = report["source"]
    print(
        f"{report['model']}: {report['tensors']} tensors in {report['file']}, "
        f"SHA-256 {report['sha256'][:12]}, from {source['file']} "
        f"({source['size']:,} bytes, SHA-256 {source['sha256'][:12]})"
    )


def print_models(rows: list[dict[str, Any]]) -> None:
    """Print the rows of the catalogue of models."""
    columns = ("slug", "variants", "weights", "present", "notes")
    console.print_table(columns, [[row[column] for column in columns] for row in rows])


def print_model(facts: dict[str, Any]) -> None:
    """Print all that is known of a model."""
    for field, value in facts.items():
        if not isinstance(value, dict):
            print(f"{field:16} {'' if value is None else value}")
            continue
        print(field)
        for name, inner in value.items():
            _print_member(name, inner)


def _print_member(name: str, value: object, indent: str = "  ") -> None:
    """Print a member of an object, and below it its own members if it is one itself."""
    if not isinstance(value, dict):
        print(f"{indent}{name:14} {value}")
        return
    print(f"{indent}{name}")
    for inner, of_inner in value.items():
        _print_member(inner, of_inner, indent + "  ")


def print_datasets(rows: list[dict[str, Any]]) -> None:
    """Print the data sets of the catalogue."""
    console.print_table(
        ["name", "images", "classes", "modes", "title"],
        [
            [
                facts["name"],
                facts["images"] or "yours",
                len(facts["classes"].keys() - {""}) or "yours",
                ", ".join(facts["modes"]),
                facts["title"],
            ]
            for facts in rows
        ],
    )


def print_dataset(page: str) -> None:
    """Print a page of the catalogue of data sets."""
    print(*page.splitlines(), sep="\n")


def print_benchmarks(subjects: dict[str, str]) -> None:
    """Print the names of the benchmarks."""
    console.print_table(["NAME", "what it measures"], list(subjects.items()))
