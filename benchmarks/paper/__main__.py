"""Draw a table or figure of Anton et al. (J. Imaging 2022, 8, 320) from published values.

    python -m benchmarks.paper                           list the pages
    python -m benchmarks.paper PAGE                      print the page's numbers
    python -m benchmarks.paper PAGE -o F.svg|png|pdf     draw it
    python -m benchmarks.paper PAGE -o F.csv             write its numbers

A CSV file of a figure has its statistics; the points that it shows are written beside it, into F-points.csv.
Exit status: 0, or that of the error.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.paper.output import print_data_table, write_csv
from benchmarks.paper.pages import PaperPage, page, titles
from benchmarks.paper.values import Values
from engine.errors import EmbankError, Refused
from engine.report.console import print_error, print_table, write
from stores.outputs import check_file, refuse_twice

PICTURES = (".svg", ".png", ".pdf")
TABLE = ".csv"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    options = _parse(arguments)
    try:
        if not options.page:
            print_table(("page", "shows"), list(titles().items()))
            return 0
        _make(page(options.page), options)
    except EmbankError as error:
        print_error(error)
        return error.exit_code
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    text = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        "python -m benchmarks.paper",
        description=text[0],
        epilog=text[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("page", nargs="?", default="", help="its name; without one the pages are listed")
    parser.add_argument(
        "-o", "--out", type=Path, help=f"a file that ends in {', '.join(PICTURES)} or {TABLE}"
    )
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    return parser.parse_args(arguments)


def _make(chosen: PaperPage, options: argparse.Namespace) -> None:
    values = chosen.published()
    if options.out is None:
        _print(chosen, values)
    elif options.out.suffix.lower() == TABLE:
        _write_tables(chosen, values, options.out, options.force)
    else:
        if chosen.draw is None:
            raise Refused(
                f"{options.out}", f"{chosen.name} is a table", f"choose a name that ends in {TABLE}"
            )
        check_file(options.out, PICTURES, command=f"paper {chosen.name}", force=options.force)
        chosen.draw(values, options.out)
        write(f"{options.out}: {chosen.title}")


def _print(chosen: PaperPage, values: Values) -> None:
    if chosen.table is None:
        raise Refused(
            f"{chosen.name} without a file", "It shows pictures", "add `-o`, and a name that ends in .png"
        )
    print_data_table(chosen.table(values))


def _write_tables(chosen: PaperPage, values: Values, out: Path, force: bool) -> None:
    if chosen.table is None:
        raise Refused(f"{out}", f"{chosen.name} shows pictures", "choose a name that ends in .png")
    points = out.with_name(f"{out.stem}-points{out.suffix}") if chosen.points is not None else None
    for path in (out, points):
        if path is not None:
            check_file(path, (TABLE,), force=force)
    refuse_twice(out, points)
    write_csv(chosen.table(values), out)
    write(f"{out}: {chosen.title}")
    if points is not None and chosen.points is not None:
        write_csv(chosen.points(values), points)
        write(f"{points}: what it shows, point by point")


if __name__ == "__main__":
    sys.exit(main())
