"""Records as people read them: the result of one in a line, a list of all, one in full."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeGuard

from engine.errors import Refused
from engine.report.marks import LEGEND, MARK, mark
from stores.backends.location import Place, place
from stores.bank import predictions
from stores.bank.predictions import broken_tables
from stores.bank.record_index import RecordEntry
from stores.bank.record_table import Leaf, leaves
from stores.bank.records import RunRecord
from stores.json_types import Json, JsonObject

#: Kind -> metrics; the first that a record has is its result.
_RESULTS: Mapping[str, tuple[str, ...]] = {
    "fewshot": ("accuracy",),
    "knn": ("test.accuracy",),
    "probe": ("test.accuracy", "test.auroc"),
    "finetune": ("test.accuracy", "test.auroc"),
    "invariance": ("cosine",),
    "saliency": ("mean",),
    "reconstruct": ("lpips.mean", "loss.mean"),
    "embed": ("ok",),
    "audit": ("pairs",),
    "relabel": ("named",),
    "compare": (),
}
#: Nested objects that tables leave out; `--json` has them.
_DETAILS = ("intervals", "refit", "stages", "error", "sweep", "reliability")
#: Number of values of a list, and of rows of a table, that are shown.
_VALUES, _ROWS = 8, 20
#: Part of a record -> its title.
_SECTIONS = (
    ("asked", "asked"),
    ("used", "used"),
    ("metrics", "found"),
    ("failures", "failures"),
    ("convergence", "convergence"),
    ("seconds", "seconds"),
)
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Result:
    """The main number of a record.

    Attributes:
        metric: its dotted path among the record's metrics; empty if there is none.
        value, low, high: the number and its 95 % interval; None if undefined or absent.
        reason: why it is undefined.
        text: the result in a few words.
    """

    metric: str
    value: float | None
    low: float | None
    high: float | None
    reason: str | None
    text: str


def result_of(record: RunRecord) -> Result:
    """Return the result of a record of any kind."""
    plain = {leaf.metric: leaf for leaf in leaves(record.metrics) if not leaf.item}
    numbers = {name: leaf for name, leaf in plain.items() if _is_number(leaf.value)}
    names = _RESULTS.get(record.kind, tuple(numbers))
    several = record.asked.get("multi_label") if record.kind == "probe" else record.asked.get("findings")
    if record.kind in ("probe", "finetune") and several:
        names = ("test.auroc",)
    name = next((name for name in names if name in numbers), next((n for n in names if n in plain), ""))
    leaf = plain.get(name)
    text = _DESCRIBE.get(record.kind, _describe)(record, numbers, leaf)
    if leaf is None:
        return Result("", None, None, None, None, text)
    value = leaf.value if _is_number(leaf.value) else None
    return Result(name, value, leaf.low, leaf.high, leaf.reason, text)


def _is_number(value: Json) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


Numbers = Mapping[str, Leaf]


def _describe(record: RunRecord, numbers: Numbers, leaf: Leaf | None) -> str:
    return "" if leaf is None else f"{leaf.metric.replace('.', ' ')} {_with_interval(leaf)}"


def _with_interval(leaf: Leaf, sign: str = "") -> str:
    """Format a number, with a sign after it, and its interval; or the reason why it is undefined."""
    if not _is_number(leaf.value):
        return f"undefined: {leaf.reason}" if leaf.reason else "undefined"
    text = f"{leaf.value:,}" if isinstance(leaf.value, int) else f"{leaf.value:.3f}"
    text += sign
    if leaf.low is None or leaf.high is None:
        return text
    return f"{text} ({leaf.low:.3f}-{leaf.high:.3f})"


def _symmetric(leaf: Leaf, sign: str = "") -> str:
    if not _is_number(leaf.value) or leaf.high is None:
        return _with_interval(leaf, sign)
    return f"{leaf.value:.3f}{sign} ± {leaf.high - leaf.value:.3f}"


def _sign(record: RunRecord, leaf: Leaf) -> str:
    """Return the mark of a number that is below a control."""
    return mark(record.metrics, leaf.metric.removeprefix("test."))


def _fewshot(record: RunRecord, numbers: Numbers, leaf: Leaf | None) -> str:
    task = f"{record.asked.get('n_way')}-way {record.asked.get('n_shot')}-shot"
    return f"{task} accuracy {_symmetric(leaf, _sign(record, leaf))}" if leaf else task


def _knn(record: RunRecord, numbers: Numbers, leaf: Leaf | None) -> str:
    alone = ", leave one out" if record.asked.get("leave_one_out") else ""
    if leaf is None:
        return ""
    return f"accuracy {_with_interval(leaf, _sign(record, leaf))} at k = {record.metrics.get('k')}{alone}"


def _probe(record: RunRecord, numbers: Numbers, leaf: Leaf | None) -> str:
    if leaf is None:
        return ""
    label = str(record.asked.get("label", ""))
    metric = "AUROC" if leaf.metric.endswith("auroc") else "accuracy"
    return f"{label}: test {metric} {_with_interval(leaf, _sign(record, leaf))}"


def _invariance(record: RunRecord, numbers: Numbers, leaf: Leaf | None) -> str:
    transform = str(record.asked.get("transform", ""))
    return f"{transform}: cosine {_symmetric(leaf)}" if leaf else transform


def _saliency(record: RunRecord, numbers: Numbers, leaf: Leaf | None) -> str:
    return f"attentive diffusion {_with_interval(leaf)}" if leaf else ""


def _finetune(record: RunRecord, numbers: Numbers, leaf: Leaf | None) -> str:
    steps = numbers.get("steps")
    return _probe(record, numbers, leaf) + (f" after {_with_interval(steps)} steps" if leaf and steps else "")


def _reconstruct(record: RunRecord, numbers: Numbers, leaf: Leaf | None) -> str:
    if leaf is None:
        return ""
    name = "LPIPS" if leaf.metric.startswith("lpips") else "loss of features"
    return f"{name} {_with_interval(leaf)}"


def _embed(record: RunRecord, numbers: Numbers, leaf: Leaf | None) -> str:
    counts = {name: numbers[name] for name in ("failed", "pending") if name in numbers}
    more = "".join(f", {_with_interval(count)} {name}" for name, count in counts.items() if count.value)
    rows = f" of {_with_interval(numbers['rows'])}" if "rows" in numbers else ""
    return f"{_with_interval(leaf)}{rows} images ok{more}" if leaf else ""


def _audit(record: RunRecord, numbers: Numbers, leaf: Leaf | None) -> str:
    across = numbers.get("across_splits")
    text = f", {_with_interval(across)} across splits" if across else ""
    return f"{_with_interval(leaf)} pairs{text}" if leaf else ""


def _relabel(record: RunRecord, numbers: Numbers, leaf: Leaf | None) -> str:
    rows = f" of {_with_interval(numbers['rows'])}" if "rows" in numbers else ""
    return f"{_with_interval(leaf)}{rows} images named" if leaf else ""


def _search(record: RunRecord, numbers: Numbers, leaf: Leaf | None) -> str:
    query, rows = record.asked.get("query"), record.metrics.get("rows")
    image = query.get("image_id") or query.get("file") if isinstance(query, Mapping) else None
    return f"{len(rows) if isinstance(rows, list) else 0} neighbours" + (f" of {image}" if image else "")


def _compare(record: RunRecord, numbers: Numbers, leaf: Leaf | None) -> str:
    best, metric = record.metrics.get("best"), str(record.asked.get("metric", "")).replace("_", " ")
    names = ", ".join(map(str, best)) if isinstance(best, list) else ""
    return f"{record.asked.get('evaluation')}, {metric}: best {names or 'undefined'}"


#: Kind -> function that describes the result.
_DESCRIBE: Mapping[str, Callable[[RunRecord, Numbers, Leaf | None], str]] = {
    "fewshot": _fewshot,
    "knn": _knn,
    "probe": _probe,
    "invariance": _invariance,
    "saliency": _saliency,
    "finetune": _finetune,
    "reconstruct": _reconstruct,
    "embed": _embed,
    "audit": _audit,
    "relabel": _relabel,
    "search": _search,
    "compare": _compare,
}


def to_dict(entry: RecordEntry) -> JsonObject:
    """Return `{record, file, created, kind, model, feature}` and the `Result` of a readable record."""
    record = entry.record
    assert record is not None
    return {
        "record": entry.id,
        "file": entry.path,
        "created": record.created,
        "kind": record.kind,
        "model": entry.model,
        "feature": entry.feature or None,
        **asdict(result_of(record)),
    }


def full_dict(entry: RecordEntry, bank: Place | str) -> JsonObject:
    """Return what `to_dict` does, all parts of the record, and what is wrong with its predictions."""
    assert entry.record is not None
    damaged: list[Json] = [
        {"path": table.path, "reason": problem}
        for table, problem in broken_tables(place(bank), entry.record, entry.name)
    ]
    body = {**to_dict(entry), **entry.record.to_dict()}
    return {**body, "damaged_predictions": damaged} if entry.record.predictions else body


def unreadable(entries: Sequence[RecordEntry]) -> list[dict[str, str]]:
    """Return `{record, path, reason, remedy}` of each record that cannot be read."""
    return [
        {"record": entry.id, "path": entry.path, "reason": entry.error.found, "remedy": entry.error.remedy}
        for entry in entries
        if entry.error is not None
    ]


def print_list(entries: Sequence[RecordEntry]) -> None:
    """Print a table with a row for each record, unreadable ones included."""
    from engine.report import console

    rows: list[list[str]] = []
    below = False
    for entry in entries:
        if entry.record is None:
            rows.append([entry.id, "", "unreadable", "", entry.path])
            continue
        record = entry.record
        rows.append([entry.id, _minute(record.created), record.kind, entry.model, result_of(record).text])
        below = below or MARK in rows[-1][-1]
    console.print_table(["record", "created (UTC)", "kind", "model", "result"], rows)
    if below:
        console.write(f"{LEGEND}; `embank records show` names it.")


def _minute(created: str) -> str:
    return created[:16].replace("T", " ")


def export_predictions(
    bank: Place | str,
    record: str | None,
    table: str | None,
    out: Path,
    *,
    filters: Sequence[str | None],
    as_json: bool,
) -> None:
    """Write the predictions of a record, and say so.

    Args:
        record, table, out: as for `stores.bank.predictions.export_predictions`.
        filters: of records, which do not go with one record.
        as_json: what is said.

    Raises:
        Refused: a table of no record, a filter, or as there.
    """
    from engine.report import console

    if record is None:
        raise Refused(
            f"--table {table} without --predictions",
            "It names a table of one record's predictions",
            "name the record with --predictions",
        )
    if any(word is not None for word in filters):
        raise Refused(
            "--predictions with --kind or --model", "It names one record", "leave the other options out"
        )
    written = predictions.export_predictions(bank, record, out, table)
    if as_json:
        console.print_json({"bank": bank, "file": out, **written})
    else:
        console.write(f"{out}: {written['rows']} rows of record {written['record']} ({written['kind']})")


def print_record(entry: RecordEntry, bank: Place | str, drawn: Mapping[str, Path] | None = None) -> None:
    """Print a whole record, but only the beginning of long lists.

    Args:
        drawn: what was drawn of it, e.g. `figure` -> its file.
    """
    from engine.report import console

    record = entry.record
    assert record is not None
    console.write(f"{entry.id}: {record.kind}{f' of {entry.model}' * bool(entry.model)}, {record.created}")
    if record.validity:
        from engine.report.validity_text import print_validity

        print_validity([{"model": entry.model, "validity": list(record.validity)}])
    if text := result_of(record).text:
        _print_wrapped(text)
    for part, title in _SECTIONS:
        body = getattr(record, part)
        if body:
            console.write()
            console.write(title)
            _print_section(body)
    _print_tables(entry, bank)
    console.write()
    if record.versions:
        _print_wrapped(
            "versions: " + ", ".join(f"{name} {_value(version)}" for name, version in record.versions.items())
        )
        console.write()
    _print_wrapped(f"`embank records show --json` prints every value; the file is {entry.path}")
    for what, path in (drawn or {}).items():
        console.write(f"{path}: {what} of record {entry.id}")


def _print_tables(entry: RecordEntry, bank: Place | str) -> None:
    """List the predictions beside a record, and say whether they match its digests."""
    from engine.report import console

    assert entry.record is not None
    tables = predictions.tables_of(entry.record, entry.name)
    if not tables:
        return
    console.write()
    console.write("predictions")
    for table in tables:
        problem = table.problem(place(bank))
        state = f"; {problem}: `embank bank verify` says what to do" if problem else ""
        _print_wrapped(f"  {table.name or 'images'}: {table.rows:,} rows in {table.path}{state}")


def _print_wrapped(text: str) -> None:
    from engine.report import console, tables
    from stores.manifest.uri_policy import plain

    for line in tables.wrapped(plain(text), console.width()):
        console.write(line)


def _print_section(body: Mapping[str, Json]) -> None:
    from engine.report import console

    for name, text in _lines(body):
        _print_wrapped(f"  {name}: {text}")
    for name, objects in _lists(body):
        columns, rows = _table(objects)
        more = f", the first {_ROWS} of {len(objects):,}" if len(objects) > _ROWS else ""
        console.print_table(columns, rows, title=f"  {name}{more}")


def _lines(body: Mapping[str, Json], path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (dotted path, text) of everything but lists of objects."""
    for name, value in body.items():
        if isinstance(value, Mapping):
            if name != "intervals":  # shown with the values that they belong to
                yield from _lines(value, f"{path}{name}.")
        elif not _is_table(value):
            yield f"{path}{name}", _text(body, name)


def _text(body: Mapping[str, Json], name: str) -> str:
    from stores.bank.record_table import interval

    value = body[name]
    if isinstance(value, list):
        shown = ", ".join(_value(item) for item in value[:_VALUES]) or "none"
        return shown + (f", ... ({len(value):,} in all)" if len(value) > _VALUES else "")
    low, high = interval(body, name)
    return _value(value) + (f" ({low:.6g} to {high:.6g})" if low is not None else "")


def _value(value: Json) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return f"[{', '.join(map(_value, value))}]"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = "-" if value is None else str(value)
    return text[:12] if _DIGEST.fullmatch(text) else text or "(empty)"


def _is_table(value: Json) -> TypeGuard[list[Mapping[str, Json]]]:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _lists(body: Mapping[str, Json], path: str = "") -> Iterator[tuple[str, list[Mapping[str, Json]]]]:
    """Yield (dotted path, objects) of every list of objects that is not inside another list."""
    for name, value in body.items():
        if isinstance(value, Mapping):
            yield from _lists(value, f"{path}{name}.")
        elif _is_table(value):
            yield f"{path}{name}", value


def _table(objects: Sequence[Mapping[str, Json]]) -> tuple[list[str], list[list[Json]]]:
    """Return columns and rows of a list of objects, without the lists and details in them."""
    flat = [dict(_cells(item)) for item in objects[:_ROWS]]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    leading = [name for name in ("image_id", "label", "class", "model", "k", "shots") if name in columns]
    columns = list(dict.fromkeys([*leading, *columns]))
    return columns, [[row.get(name, "") for name in columns] for row in flat]


def _cells(body: Mapping[str, Json], path: str = "") -> Iterator[tuple[str, Json]]:
    for name, value in body.items():
        if isinstance(value, Mapping):
            if name not in _DETAILS:
                yield from _cells(value, f"{path}{name}.")
        elif not isinstance(value, list):
            yield (
                f"{path}{name}",
                "-" if value is None else _value(value) if isinstance(value, bool) else value,
            )
