"""`embank datasets`: the catalogue of data sets."""

from dataclasses import asdict

import typer

from engine.commands.declaring import command
from engine.commands.options import DatasetName, Json
from engine.commands.showing import show

app = typer.Typer(help="The catalogue of data sets.", no_args_is_help=True)


@command(app, "list")
def datasets_list(json: Json = False) -> None:
    """List the data sets that `manifest build` knows."""
    from engine import datasets
    from engine.report.catalogue_text import print_datasets

    rows = [asdict(datasets.load(name).facts) for name in datasets.available()]
    show(rows, json, lambda: print_datasets(rows))


@command(app, "show")
def datasets_show(name: DatasetName, json: Json = False) -> None:
    """Show where to download a data set, its layout, licence, counts, label rule, options and known traps."""
    from engine import datasets
    from engine.report.catalogue_text import print_dataset

    facts = datasets.load(name).facts
    show(asdict(facts), json, lambda: print_dataset(datasets.page(facts)))
