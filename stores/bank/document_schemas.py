"""Schemas of sealed documents. An intact document of another form counts as damaged."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from stores.backends.location import Place
from stores.bank import documents
from stores.bank.keys import DTYPES, FEATURE_VERSIONS, SCHEMA_VERSION, check_schema
from stores.bank.layout import COLUMNS, MANIFEST, SIDE, VOCABULARIES

Test = Callable[[Any], bool]

#: Kinds of numbers that an array file may hold.
NUMBERS = ("float16", "float32", "float64", "int64", "uint8")

_DIGEST = re.compile(r"[0-9a-f]{64}")
_PATH = re.compile(r"(?!.*\.\.)[A-Za-z0-9_.][A-Za-z0-9._-]*(/[A-Za-z0-9_.][A-Za-z0-9._-]*)*")


def check(body: dict[str, Any], form: Test, path: Place) -> dict[str, Any]:
    """Return a body if it is of a form.

    Raises:
        BankError: another schema version. BrokenDocument: another form.
    """
    versions = FEATURE_VERSIONS if form in (KEY, SEAL, MARKER) else (SCHEMA_VERSION,)
    check_schema(body.get("schema"), path, versions)
    if not form(body):
        raise documents.BrokenDocument(
            f"{path} is damaged",
            "A bank's document holds what others of its kind hold",
            "run `embank bank repair` on the bank",
        )
    return body


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _digest(value: Any) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _path(value: Any) -> bool:
    """Return whether a value is a relative path that stays in the bank."""
    return isinstance(value, str) and _PATH.fullmatch(value) is not None


def _integer(least: int, most: int = 1 << 53) -> Test:
    return lambda value: type(value) is int and least <= value <= most


def _members(tests: Mapping[str, Test], optional: Mapping[str, Test] | None = None) -> Test:
    """Return a test for an object with these members, perhaps some of the optional ones, and no others."""
    every = {**tests, **(optional or {})}

    def test(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and tests.keys() <= value.keys() <= every.keys()
            and all(every[name](inner) for name, inner in value.items())
        )

    return test


def _all(test: Test, name: Test) -> Test:
    """Return a test for an object whose members all pass a test."""
    return lambda value: (
        isinstance(value, dict) and all(name(key) and test(inner) for key, inner in value.items())
    )


def _list(test: Test) -> Test:
    return lambda value: isinstance(value, list) and all(map(test, value))


def _mapping(value: Any) -> bool:
    return isinstance(value, dict)


def _both(first: Test, second: Test) -> Test:
    return lambda value: first(value) and second(value)


_SCHEMA = _integer(0)
#: More images, and values an embedding, than any bank has; a larger number is an attack on its reader.
_ROWS, _DIM = _integer(1, 1 << 32), _integer(1, 1 << 24)
_PROMISES = _all(_members({"size": _integer(0), "sha256": _digest}), _path)
_TABLES = _all(
    _members({"size": _integer(0), "sha256": _digest, "rows": _integer(0)}),
    lambda name: isinstance(name, str) and re.fullmatch(r"[a-z0-9_]{0,40}", name) is not None,
)
_COLUMN_FILES = (*(f"{column}.npy" for column in COLUMNS), VOCABULARIES)

RUN = _members(
    {
        "schema": _SCHEMA,
        "rows": _ROWS,
        "chunk_rows": _integer(1, 1 << 20),
        "image_digest": _digest,
        "manifest_digest": _digest,
        "files": _members(
            dict.fromkeys([MANIFEST, *(f"{SIDE}/columns/{name}" for name in _COLUMN_FILES)], _digest)
        ),
    }
)

_KEY_TEXTS = ("model", "weights", "architecture", "recipe", "precision", "decoder", "layer", "images")
KEY = _members(
    {
        "schema": _SCHEMA,
        "key": _members(
            {**dict.fromkeys(_KEY_TEXTS, _text), "dtype": lambda value: value in DTYPES, "schema": _SCHEMA}
        ),
        "digest": _digest,
        "dim": _DIM,
        "rows": _ROWS,
        "chunk_rows": _integer(1, 1 << 20),
    },
    {"image_set": _digest},
)

SEAL = _both(
    _members(
        {
            "schema": _SCHEMA,
            "feature": _digest,
            "name": _text,
            "rows": _ROWS,
            "ok": _integer(0),
            "failed": _integer(0),
            "files": _PROMISES,
            "definition": KEY,
            "manifest_digest": _digest,
        },
        {"pending": _integer(1)},
    ),
    lambda body: (
        body["rows"] == body["ok"] + body["failed"] + body.get("pending", 0) == body["definition"]["rows"]
        and body["schema"] == body["definition"]["schema"]
    ),
)

MARKER = _both(
    _members(
        {
            "schema": _SCHEMA,
            "feature": _digest,
            "chunk": _integer(0),
            "start": _integer(0),
            "stop": _integer(1),
            "files": _PROMISES,
            "failures": _list(
                _members(
                    {"row": _integer(0), "code": _text, "detail": _text},
                    {"pending": lambda value: value is True},
                )
            ),
        }
    ),
    lambda body: all(body["start"] <= failure["row"] < body["stop"] for failure in body["failures"]),
)

VOCABULARY = _members(
    {"schema": _SCHEMA, "columns": _members(dict.fromkeys(COLUMNS, _list(_text)))},
)

_ISSUE = _members(
    {
        **dict.fromkeys(("code", "severity", "sentence", "rule", "remedy", "subject"), _text),
        "value": lambda value: value is None or isinstance(value, int | float | str),
    }
)

RECORD = _members(
    {
        "schema": _SCHEMA,
        "kind": _text,
        "created": _text,
        **dict.fromkeys(("asked", "used", "metrics", "seconds"), _mapping),
    },
    {
        **dict.fromkeys(("versions", "failures", "convergence"), _mapping),
        "predictions": _TABLES,
        "validity": _list(_ISSUE),
    },
)

ARRAYS = _members(
    {
        "key": _mapping,
        "arrays": _all(
            _members(
                {"dtype": lambda value: value in NUMBERS, "shape": _list(_integer(0)), "sha256": _digest}
            ),
            _text,
        ),
    }
)
