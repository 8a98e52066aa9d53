"""`embank bench`: throughput. The benchmarks use the engine, which knows them only by name."""

import importlib
import sys
from typing import Annotated

import typer

from stores.errors import Refused

#: Arguments after the name are passed to the benchmark.
SETTINGS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}

Benchmark = Annotated[str, typer.Argument(metavar="NAME", help="A script of benchmarks/speed.")]


def bench(context: typer.Context, name: Benchmark = "") -> None:
    """Measure throughput side by side with common alternatives. Without a name it lists the benchmarks.

    `bench NAME --help` lists the options of one.
    """
    subjects = importlib.import_module("benchmarks.speed").subjects()
    if name in ("-h", "--help"):
        typer.echo(context.get_help())
    if name in ("", "-h", "--help"):
        from engine.report.catalogue_text import print_benchmarks

        print_benchmarks(subjects)
        return
    if name not in subjects:
        raise Refused(
            f"benchmark {name!r}",
            f"It is one of {', '.join(subjects)}",
            "name one of these; `embank bench` says what each measures",
        )
    sys.argv[0] = f"embank bench {name}"  # as its help calls it
    importlib.import_module(f"benchmarks.speed.{name}").main(context.args)
