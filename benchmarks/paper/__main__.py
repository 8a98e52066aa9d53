"""Draw a table or figure of Anton et al. (J. Imaging 2022, 8, 320), as published or from a study.

    python -m benchmarks.paper                           list the pages
    python -m benchmarks.paper PAGE                      print the page's numbers
    python -m benchmarks.paper PAGE -o F.svg|png|pdf     draw it
    python -m benchmarks.paper PAGE -o F.csv|tex|md|html write its numbers
    python -m benchmarks.paper PAGE --from STUDY         the same, from our own records

A CSV file of a figure has its statistics; the points that it shows are written beside it, into F-points.csv.
Exit status: 0, or that of the error.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.paper.output import FORMATS, print_data_table, write_table
from benchmarks.paper.pages import PaperPage, page, titles
from benchmarks.paper.values import Values
from engine.errors import EmbankError, Refused
from engine.report.console import print_error, print_table, write
from stores.outputs import check_file, refuse_twice

PICTURES = (".svg", ".png", ".pdf")


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
    endings = ", ".join([*PICTURES, *FORMATS])
    parser.add_argument("-o", "--out", type=Path, help=f"a file that ends in {endings}")
    parser.add_argument("--force", action="store_true", help="replace an existing file")
    ours = parser.add_argument_group("from our own records instead of the published values")
    ours.add_argument("--from", dest="where", help="a study's folder, or a bank")
    ours.add_argument("--mode", choices=("default", "as-published"), default="default")
    ours.add_argument("--seed", type=int, help="of the evaluations; the lowest that there is by default")
    ours.add_argument(
        "--best-variants",
        action="store_true",
        help="add the paper's rows of the largest value among a model's checkpoints",
    )
    ours.add_argument("--root", type=Path, help="folder of the images, where they have moved")
    return parser.parse_args(arguments)


def _make(chosen: PaperPage, options: argparse.Namespace) -> None:
    if chosen.show is not None:
        _show(chosen, options)
        return
    values = _values(chosen, options)
    if options.out is None:
        _print(chosen, values)
    elif options.out.suffix.lower() in FORMATS:
        _write_tables(chosen, values, options.out, options.force)
    else:
        if chosen.draw is None:
            raise Refused(
                f"{options.out}",
                f"{chosen.name} is a table",
                f"choose a name that ends in {', '.join(FORMATS)}",
            )
        check_file(options.out, PICTURES, command=f"paper {chosen.name}", force=options.force)
        chosen.draw(values, options.out)
        write(f"{options.out}: {chosen.title}")


def _values(chosen: PaperPage, options: argparse.Namespace) -> Values:
    """Return the published values, or those of a study in one mode."""
    if options.where is None:
        return chosen.published()
    from benchmarks.paper.ours import values_of, with_best_variants

    values = values_of(options.where).of(options.mode, options.seed)
    return with_best_variants(values) if options.best_variants else values


def _show(chosen: PaperPage, options: argparse.Namespace) -> None:
    """Draw a figure of pictures, which only a study has."""
    from benchmarks.paper.sources import read_sources

    assert chosen.show is not None
    if options.where is None:
        raise Refused(
            f"{chosen.name} without a study",
            "It shows pictures, and no published ones are part of embank",
            "name a study's folder or a bank with --from",
        )
    if options.out is None:
        raise Refused(
            f"{chosen.name} without a file", "It shows pictures", "add `-o`, and a name that ends in .png"
        )
    check_file(options.out, PICTURES, command=f"paper {chosen.name}", force=options.force)
    chosen.show(read_sources(options.where), options.out, options.mode, options.root)
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
            check_file(path, tuple(FORMATS), force=force)
    refuse_twice(out, points)
    write_table(chosen.table(values), out)
    write(f"{out}: {chosen.title}")
    if points is not None and chosen.points is not None:
        write_table(chosen.points(values), points)
        write(f"{points}: what it shows, point by point")


if __name__ == "__main__":
    sys.exit(main())
