"""Records as one tidy table: a row for each number and text that was measured.

Members of objects make a dotted path (`test.accuracy`); members of lists are told apart by the column `item`:
the image, class, label, k or C that they belong to, else their position.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeGuard

from stores.bank.record_index import RecordEntry, text_of
from stores.bank.records import RunRecord
from stores.json_types import Json, JsonObject
from stores.manifest.uri_policy import plain
from stores.table_files import write_table

ENDINGS = (".csv", ".parquet", ".json")
#: Parts of a record that hold results.
PARTS = ("metrics", "failures", "convergence", "seconds")
#: Column -> Arrow type.
COLUMNS: Mapping[str, str] = {
    **dict.fromkeys(("record", "created", "kind", "model", "feature", "part", "metric", "item"), "string"),
    **dict.fromkeys(("value", "low", "high"), "float64"),
    **dict.fromkeys(("text", "reason", "mode"), "string"),
    **dict.fromkeys(("n_way", "n_shot", "k"), "int64"),
    **dict.fromkeys(("label", "transform", "split"), "string"),
    "seed": "int64",
    "settings": "string",
}
#: Members by which the objects of a list are told apart, and what stands before the value.
_NAMING = {
    **dict.fromkeys(("image_id", "label", "class", "stratum", "model", "name"), ""),
    "k": "k=",
    "shots": "shots=",
    "row": "row=",
}
#: Values whose interval is the member `ci95` beside them.
_SYMMETRIC = ("accuracy", "cosine", "mean", "difference")
_JOIN = " | "
#: Largest whole number that a float64 keeps.
_EXACT = 1 << 53


@dataclass(frozen=True)
class Leaf:
    """One value of a record.

    Attributes:
        metric: dotted path.
        item: which member of the lists on the path, outermost first; empty without lists.
        value: number, text, bool or None.
        low, high: its interval, where the record has one.
        reason: why it is None, or what it leaves out, where the record says so.
        settings: of the settings `k` and `label`, those that the item decides.
    """

    metric: str
    item: str
    value: Json
    low: float | None = None
    high: float | None = None
    reason: str | None = None
    settings: Mapping[str, Json] | None = None


@dataclass(frozen=True)
class _Scope:
    """Properties of a value that follow from the objects around it."""

    path: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    reason: str | None = None
    classes: tuple[str, ...] = ()
    settings: Mapping[str, Json] | None = None

    def within(self, name: str) -> "_Scope":
        return replace(self, path=(*self.path, name))

    def inside(self, item: str) -> "_Scope":
        return replace(self, items=(*self.items, item))

    def leaf(
        self,
        value: Json,
        *,
        low: float | None = None,
        high: float | None = None,
        reason: str | None = None,
    ) -> Leaf:
        metric, item = ".".join(self.path), _JOIN.join(self.items)
        return Leaf(metric, item, value, low, high, reason, self.settings)


def leaves(body: Mapping[str, Json]) -> Iterator[Leaf]:
    """Go through all values of a part of a record, in its order."""
    return _object(body, _Scope())


def _object(body: Mapping[str, Json], scope: _Scope) -> Iterator[Leaf]:
    classes = body.get("classes")
    if isinstance(classes, list) and all(isinstance(name, str) for name in classes):
        scope = replace(scope, classes=tuple(map(text_of, classes)))
    scope = replace(scope, reason=text_of(body.get("reason")) or scope.reason)
    for name, value in body.items():
        inner = scope.within(name)
        if isinstance(value, Mapping):
            yield from _object(value, inner)
        elif isinstance(value, list):
            yield from _list(value, inner, _labels(body, name, value, scope))
        else:
            reason = text_of(body.get(f"{name}_reason")) or (scope.reason if value is None else None)
            low, high = interval(body, name)
            yield inner.leaf(value, low=low, high=high, reason=reason)


def _list(values: Sequence[Json], scope: _Scope, labels: Sequence[str]) -> Iterator[Leaf]:
    objects = [value for value in values if isinstance(value, Mapping)]
    if values and len(objects) == len(values):
        yield from _objects(objects, scope)
        return
    for value, label in zip(values, labels, strict=True):
        inner = scope.inside(label)
        if isinstance(value, Mapping):
            yield from _object(value, inner)
        elif isinstance(value, list):
            classes = scope.path[-1] == "confusion_matrix" and len(value) == len(scope.classes)
            yield from _list(value, inner, scope.classes if classes else _positions(value))
        else:
            yield inner.leaf(value, reason=scope.reason if value is None else None)


def _objects(values: Sequence[Mapping[str, Json]], scope: _Scope) -> Iterator[Leaf]:
    key = next((key for key in _NAMING if _names_all(values, key)), None)
    for position, value in enumerate(values):
        inner, members = scope.inside(str(position)), value
        if key is not None:
            inner = scope.inside(f"{_NAMING[key]}{value[key]}")
            members = {name: member for name, member in value.items() if name != key}
        own = {name: value[name] for name in ("k", "label") if name in value}
        yield from _object(members, replace(inner, settings={**(scope.settings or {}), **own}))


def _names_all(values: Sequence[Mapping[str, Json]], key: str) -> bool:
    """Return whether a member tells the objects apart."""
    names = [value.get(key) for value in values]
    plain = all(isinstance(name, str | int) and not isinstance(name, bool) for name in names)
    return plain and len(set(map(str, names))) == len(names)


def _positions(values: Sequence[Json]) -> list[str]:
    return [str(position) for position in range(len(values))]


def _labels(body: Mapping[str, Json], name: str, values: Sequence[Json], scope: _Scope) -> Sequence[str]:
    """Return the labels of the members of a list in an object."""
    labels: Sequence[str] = ()
    strengths, parameters, names = body.get("C"), body.get("parameters"), body.get("names")
    if name == "confusion_matrix":
        labels = scope.classes
    elif isinstance(strengths, list):
        labels = [f"C={C}" for C in strengths]
    elif isinstance(parameters, list) and isinstance(names, list):
        labels = [_parameters(names, values_of) for values_of in parameters]
    if len(labels) == len(values) == len(set(labels)):
        return labels
    return _positions(values)


def _parameters(names: Sequence[Json], values: Json) -> str:
    if not isinstance(values, list) or len(values) != len(names):
        return str(values)
    return ", ".join(f"{name}={value}" for name, value in zip(names, values, strict=True))


def interval(body: Mapping[str, Json], name: str) -> tuple[float | None, float | None]:
    """Return the interval that an object holds of one of its numbers, (None, None) where it holds none."""
    value = body.get(name)
    if not _is_number(value):
        return None, None
    half = body.get(f"{name}_ci95", body.get("ci95") if name in _SYMMETRIC else None)
    if _is_number(half):
        return value - half, value + half
    inside = body.get("intervals")
    bounds = inside.get(name) if isinstance(inside, Mapping) else None
    if name == "mean" and bounds is None:
        bounds = body.get("interval")
    low, high = (bounds.get("low"), bounds.get("high")) if isinstance(bounds, Mapping) else (None, None)
    return (low, high) if _is_number(low) and _is_number(high) else (None, None)


def _is_number(value: Json) -> TypeGuard[int | float]:
    return isinstance(value, float) or (type(value) is int and abs(value) <= _EXACT)


def rows(entry: RecordEntry) -> Iterator[JsonObject]:
    """Go through the rows of one record that can be read: `COLUMNS` -> cell, None where it is empty."""
    record = entry.record
    assert record is not None
    common = {
        "record": entry.id,
        "created": record.created,
        "kind": record.kind,
        "model": entry.model,
        "feature": entry.feature,
        **settings_of(record),
    }
    for part in PARTS:
        for leaf in leaves(getattr(record, part)):
            number = _is_number(leaf.value)
            own = {
                "part": part,
                "metric": leaf.metric,
                "item": leaf.item,
                "value": leaf.value if number else None,
                "low": leaf.low,
                "high": leaf.high,
                "text": None if number or leaf.value is None else _as_text(leaf.value),
                "reason": leaf.reason,
            }
            yield _typed({**common, **own, **(leaf.settings or {})})


def _as_text(value: Json) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _typed(row: Mapping[str, Json]) -> JsonObject:
    """Return the cells in the order of `COLUMNS`, each of its column's type or None; text is printable."""
    cells: JsonObject = {}
    for name, kind in COLUMNS.items():
        cell = row.get(name)
        if kind == "string":
            cells[name] = plain(cell) if isinstance(cell, str) and cell else None
        elif kind == "int64":
            cells[name] = cell if type(cell) is int and -(1 << 63) <= cell < 1 << 63 else None
        else:
            cells[name] = cell
    return cells


def settings_of(record: RunRecord) -> JsonObject:
    """Return the settings that have columns of their own, and all settings as JSON."""
    import json

    settings, splits = record.asked, record.asked.get("splits")
    splits = splits if isinstance(splits, Mapping) else {}
    held_out = "holdout" if splits.get("holdout") else splits.get("test")
    names = ("mode", "n_way", "n_shot", "label", "transform", "seed")
    return {
        **{name: settings.get(name) for name in names},
        "k": settings["k"] if type(settings.get("k")) is int else record.metrics.get("k"),
        "split": settings.get("split") or settings.get("test_split") or held_out,
        "settings": json.dumps(settings, sort_keys=True),
    }


def write_records(entries: Sequence[RecordEntry], out: Path) -> int:
    """Write the records that can be read as a table, whole or not at all; return its number of rows.

    Args:
        out: ends in one of `ENDINGS`; missing folders are made.

    Raises:
        Refused: the folder is not writable. MachineFault: the disk is full or fails.
    """
    table = [row for entry in entries if entry.record is not None for row in rows(entry)]
    columns = {name: [row[name] for row in table] for name in COLUMNS}
    write_table(columns, out, digits=None, types=COLUMNS)
    return len(table)
