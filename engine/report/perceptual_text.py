"""What `embank perceptual` prints."""

from collections.abc import Sequence

from engine.report import console
from engine.report.console import write as print
from engine.report.json_parts import members, objects
from stores.json_types import Json, JsonObject

#: Pairs that are listed, at most, besides those that failed.
_LISTED = 50


def print_perceptual(r: JsonObject) -> None:
    """Print a line for each pair, the mean of each net, and what a reader must know."""
    pairs, nets = objects(r["pairs"]), [*_texts(r["nets"]), "mean"]
    failed = [pair for pair in pairs if pair["reason"]]
    listed = pairs[:_LISTED] + [pair for pair in pairs[_LISTED:] if pair["reason"]]
    two = any(_stem(pair["a"] or pair["b"]) != _stem(pair["b"] or pair["a"]) for pair in pairs)
    rows = [_row(pair, nets, two, bool(failed)) for pair in listed]
    counted = f"{len(pairs):,} pair{'s' * (len(pairs) != 1)}"
    total = [f"mean of {len(pairs) - len(failed):,}", *([""] * two), *_numbers(r["mean"], nets)]
    names = ["A", "B"] if two else ["pair"]
    console.print_table(
        [*names, *nets, *(["reason"] if failed else [])],
        [*rows, [*total, *([""] if failed else [])]],
        title="LPIPS",
    )
    if len(listed) < len(pairs):
        print(f"{len(pairs) - len(listed):,} more pairs: -o FILE.csv or --json has them all")
    print(
        f"{counted}, {len(failed):,} failed; {_size(r['side'])}",
        f"heads of lpips 0.1; {r['device']}, {r['seconds']:.1f} s",
        *_texts(r["notes"]),
        sep="\n",
    )


def _row(pair: JsonObject, nets: Sequence[str], two: bool, reasons: bool) -> list[object]:
    names = [pair["a"] or "-", pair["b"] or "-"] if two else [pair["a"] or pair["b"]]
    return [*names, *_numbers(pair["lpips"], nets), *([pair["reason"]] if reasons else [])]


def _size(side: Json) -> str:
    if side is None:
        return "images at their own size"
    return f"short side scaled to {side} pixels (bicubic), centre {side} x {side}"


def _stem(path: Json) -> str:
    return str(path).rpartition(".")[0]


def _numbers(values: Json, nets: Sequence[str]) -> list[object]:
    """Return the distances in the order of the columns; empty cells for those undefined."""
    by_net = members(values)
    return [value if (value := by_net[net]) == value else "" for net in nets]


def _texts(values: Json) -> list[str]:
    return [str(value) for value in values] if isinstance(values, list) else []
