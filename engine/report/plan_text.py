"""The plan of a study on the terminal: what there is to embed, to evaluate and to fetch, in 80 columns."""

from collections.abc import Iterable, Sequence

from engine.report import console
from engine.report.console import write as print
from engine.report.json_parts import members, objects
from stores.json_types import Json, JsonObject
from stores.manifest.uri_policy import plain

_STATES = ("done", "missing", "failed", "running", "impossible")


def print_plan(document: JsonObject) -> None:
    """Print a plan.

    Args:
        document: `engine.study.plan.Plan.to_dict()`.
    """
    cells, passes = objects(document["cells"]), objects(document["passes"])
    if passes:
        console.print_table(
            ["embed", "models", "images", "MB", "time"], [_pass(one) for one in passes], "To embed"
        )
    console.print_table(
        ["evaluation", "cells", "done", "to do", "lacking", "failed", "n/a", "time"],
        [_evaluation(name, own) for name, own in _by(cells, "evaluation").items()],
        "To evaluate (lacking: data or weights to fetch; n/a: the set cannot have it)",
    )
    _print_reasons("Cannot be made", [cell for cell in cells if cell["state"] == "impossible"])
    _print_reasons("Failed last time", [c for c in cells if c["state"] == "failed" and not c["lacks"]])
    _print_fetch(objects(document["to_fetch"]))
    print(total(document))
    for note in _texts(document["notes"]):
        print(f"{note}.")


def _pass(one: JsonObject) -> list[Json]:
    """Return the row of a decode pass."""
    models = one["models"]
    time = "links" if one["takes_over"] else _time(_number(one["seconds"]), bool(one["measured"]))
    count = len(models) if isinstance(models, list) else 0
    size = round(_number(one["bytes"]) / 1e6, 1)
    return [plain(str(one["dataset"])), count, one["images"] or "?", size, time]


def _evaluation(name: str, cells: Sequence[JsonObject]) -> list[Json]:
    """Return the row of an evaluation."""
    counts = {state: sum(cell["state"] == state for cell in cells) for state in _STATES}
    lacking = sum(bool(cell["lacks"]) for cell in cells)
    todo = [cell for cell in cells if cell["state"] in ("missing", "failed")]
    seconds = sum(_number(cell["seconds"]) for cell in todo)
    time = _time(seconds, all(cell["measured"] for cell in todo)) if todo else ""
    ready = sum(not cell["lacks"] for cell in todo)
    return [
        plain(name),
        len(cells),
        counts["done"],
        ready + counts["running"],
        lacking,
        counts["failed"],
        counts["impossible"],
        time,
    ]


def _print_reasons(title: str, cells: Sequence[JsonObject]) -> None:
    """List reasons, each once, with the number of cells that have it and one of them."""
    groups: dict[tuple[str, str], list[JsonObject]] = {}
    for cell in cells:
        groups.setdefault((str(cell["reason"]), str(cell["remedy"])), []).append(cell)
    if not groups:
        return
    print(f"{title}:")
    for (reason, remedy), own in groups.items():
        where = dict.fromkeys(f"{cell['dataset']} / {cell['evaluation']}" for cell in own)
        named = ", ".join(list(where)[:2]) + (f" and {len(where) - 2} more" if len(where) > 2 else "")
        print(f"  {_count(len(own), 'cell')} ({plain(named)}): {plain(reason)}. Remedy: {plain(remedy)}.")


def _print_fetch(whys: Sequence[JsonObject]) -> None:
    if not whys:
        return
    rows = [[plain(str(why["reason"])), plain(str(why["remedy"]))] for why in whys]
    console.print_table(["lacking", "remedy"], rows, "To fetch first")


def total(document: JsonObject) -> str:
    """Return a plan in a sentence or two."""
    totals = members(document["totals"])
    parts = [f"{_number(totals[state]):,.0f} {state}" for state in _STATES if totals[state]]
    seconds, size = _number(totals["seconds"]), _number(totals["bytes"])
    all_seconds, all_size = _number(totals["seconds_of_all"]), _number(totals["bytes_of_all"])
    text = f"{_count(int(_number(totals['cells'])), 'cell')}: {', '.join(parts)}."
    if totals["lacking"]:
        text += f" {_number(totals['lacking']):,.0f} wait for data or weights."
    text += f" A run takes {_time(seconds, bool(totals['measured']))} and {size / 1e6:,.0f} MB of disk"
    if totals["lacking"]:
        text += f" now, {_time(all_seconds, False)} and {all_size / 1e6:,.0f} MB with all that is lacking"
    return text + "."


def _time(seconds: float, measured: bool) -> str:
    """Return a duration; one that no record of the study supports with a tilde."""
    return f"{'' if measured else '~'}{console.duration(seconds)}"


def _count(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _by(cells: Iterable[JsonObject], key: str) -> dict[str, list[JsonObject]]:
    groups: dict[str, list[JsonObject]] = {}
    for cell in cells:
        groups.setdefault(str(cell[key]), []).append(cell)
    return groups


def _texts(value: Json) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else []


def _number(value: Json) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0
