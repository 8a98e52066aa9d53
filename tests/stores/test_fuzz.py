"""Readers fed with anything: an error of ours, or the right value; no other exception, no wrong row.

What is sealed is mutated and sealed anew, so that the mutation reaches the reader behind the digest.
"""

import io
import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.faults.banks import quick_folder
from benchmarks.faults.flips import build
from benchmarks.faults.io import evaluated
from stores.bank import documents
from stores.bank.reader import Bank
from stores.bank.records import read_all
from stores.bank.writer import open_or_create
from stores.errors import EmbankError
from stores.maintenance.verify import quarantine, verify
from stores.manifest.manifest import Manifest
from tests.corpus.tables import GROUPS
from tests.stores.banks import make_manifest

pytestmark = pytest.mark.slow

ROWS = 150
FUZZ = settings(deadline=None, suppress_health_check=list(HealthCheck))
#: What takes a value's place; paths among them, in case one is opened.
OTHERS: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**40, 10**30, 0.5, "", "x", "../../../etc/passwd", "/dev/zero", "\0",
    [], [0], {}, {"a": 1},
)  # fmt: skip
#: Names of members that nobody expects.
STRANGERS = ("stranger", "../../../../../../etc/passwd", "/etc/passwd", "a//b", "", "\0", "c/c/c/9")
_DROP = object()


class Shared:
    """A sealed bank that is damaged and restored, and what its features hold."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.every = {
            file.relative_to(path).as_posix(): file.read_bytes()
            for file in sorted(path.rglob("*"))
            if file.is_file() and "lock" not in file.name
        }
        self.features = [name for name in self.every if name.endswith("/zarr.json") and name.count("/") == 1]
        self.features = [name.partition("/")[0] for name in self.features]
        self.truth = {name: evaluated(path, name) for name in self.features}

    def restore(self) -> None:
        for name, data in self.every.items():
            if not (self.path / name).is_file() or (self.path / name).read_bytes() != data:
                (self.path / name).write_bytes(data)


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    with quick_folder() as folder:
        yield Shared(build(folder))


def read_everything(shared: Shared, *, same: bool = True) -> None:
    """All readers of a bank; whatever can be read of a feature must be what it was, if `same`."""
    path = shared.path
    for reader in (
        verify,
        read_all,
        lambda path: Bank.open(path).list(),
        lambda path: Bank.open(path).manifest(),
    ):
        with suppress(EmbankError):
            reader(path)
    for name in shared.features:
        with suppress(EmbankError):
            found = evaluated(path, name)
            assert found == shared.truth[name] or not same
        with suppress(EmbankError):
            Bank.open(path).describe(name, failures=True)
        with suppress(EmbankError):
            Bank.open(path).provenance(name)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths to all values in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*path, key))


def mutated(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    """A copy with another value at a path, or without it."""
    if not path:
        return other
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1 and other is _DROP:
        del copy[path[0]]
    else:
        copy[path[0]] = other if len(path) == 1 else mutated(value[path[0]], path[1:], other)
    return copy


@st.composite
def mutations(draw: st.DrawFn, body: dict[str, Any]) -> dict[str, Any]:
    """A JSON object with one or two of its values replaced, dropped, or joined by strangers."""
    for _ in range(draw(st.integers(1, 2))):
        where = draw(st.sampled_from([path for path in places(body) if path] or [("new",)]))
        other = draw(st.sampled_from([*OTHERS, _DROP]))
        if isinstance(where[-1], str) and draw(st.integers(0, 4)) == 0:
            where = (*where[:-1], draw(st.sampled_from(STRANGERS)))
        if where[-1] in _at(body, where[:-1]) or other is not _DROP:
            body = mutated(body, where, other)
    return body


def _at(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        value = value[key]
    return value if isinstance(value, dict) else range(len(value))


def kinds(shared: Shared) -> dict[str, list[str]]:
    """The sealed documents of a bank by their names."""
    found: dict[str, list[str]] = {}
    for name in shared.every:
        if name.endswith(".json") and not name.endswith("zarr.json"):
            kind = "marker" if "/markers/" in name else "record" if name.startswith("records/") else name
            found.setdefault(kind.rpartition("/")[2], []).append(name)
    return found


@given(st.data())
@settings(FUZZ, max_examples=70)
def test_sealed_documents_of_other_content(shared: Shared, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(kinds(shared))))
    name = data.draw(st.sampled_from(kinds(shared)[kind]))
    body = documents.decode(shared.every[name], Path(name))
    try:
        (shared.path / name).write_bytes(documents.encode(data.draw(mutations(body))))
        read_everything(shared)
    finally:
        shared.restore()


@given(st.data())
@settings(FUZZ, max_examples=30)
def test_sealed_documents_of_other_content_are_mended_or_refused(shared: Shared, data: st.DataObject) -> None:
    """Repair and resume meet them as well, on a copy."""
    name = data.draw(
        st.sampled_from([each for each in shared.every if each.endswith(".json") and ".embank" in each])
    )
    body = documents.decode(shared.every[name], Path(name))
    with quick_folder() as folder:
        copy = Path(shutil.copytree(shared.path, folder / "bank"))
        (copy / name).write_bytes(documents.encode(data.draw(mutations(body))))
        with suppress(EmbankError):
            quarantine(copy, verify(copy))
        with suppress(EmbankError):
            open_or_create(copy, make_manifest(folder, ROWS))


@given(st.data())
@settings(FUZZ, max_examples=50)
def test_files_of_any_bytes(shared: Shared, data: st.DataObject) -> None:
    """Not sealed anew: noise, or a piece changed, in any file."""
    name = data.draw(st.sampled_from(sorted(shared.every)))
    whole = shared.every[name]
    if data.draw(st.booleans()):
        spoilt = data.draw(st.binary(max_size=200))
    else:
        at = data.draw(st.integers(0, len(whole)))
        spoilt = whole[:at] + data.draw(st.binary(max_size=20)) + whole[at + data.draw(st.integers(0, 30)) :]
    try:
        (shared.path / name).write_bytes(spoilt)
        with suppress(EmbankError):
            assert spoilt == whole or not verify(shared.path).ok
        read_everything(shared)
    finally:
        shared.restore()


def promise_anew(shared: Shared, name: str, data: bytes) -> None:
    """Put a file in a bank, and its digest in the run document."""
    body = documents.decode(shared.every["embank.json"], Path("embank.json"))
    from stores.bank.integrity import promise_of

    body["files"][name] = promise_of(data)["sha256"]
    (shared.path / name).write_bytes(data)
    (shared.path / "embank.json").write_bytes(documents.encode(body))


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


COLUMNS = st.sampled_from(
    [
        npy(np.zeros(ROWS, "<i4")),
        npy(np.zeros(ROWS - 1, "<i4")),
        npy(np.zeros((ROWS, 2), "<i4")),
        npy(np.zeros(ROWS, "<f8")),
        npy(np.zeros(ROWS, ">i4")),
        npy(np.full(ROWS, 99, "<i4")),
        npy(np.full(ROWS, -2, "<i4")),
        npy(np.array([{"code": "object"}] * ROWS, object)),
        npy(np.zeros(ROWS, "<i4"))[:-3],
        b"\x93NUMPY\x01\x00v\x00{'descr': '<i4', 'fortran_order': False, 'shape': (99999999999,), }",
        b"\x93NUMPY\x01\x00\xff\xff{",
        b"PK\x03\x04",
        b"",
    ]
) | st.binary(max_size=300)


@given(COLUMNS)
@settings(FUZZ, max_examples=40)
def test_columns_of_any_bytes(shared: Shared, data: bytes) -> None:
    name = ".embank/columns/label.npy"
    try:
        promise_anew(shared, name, data)
        with suppress(EmbankError):
            codes, names = Bank.open(shared.path).column("label")
            assert codes.dtype == np.int32 and codes.shape == (ROWS,)
            assert codes.min() >= -1 and codes.max() < len(names)
        read_everything(shared, same=False)
    finally:
        shared.restore()


@given(st.data())
@settings(FUZZ, max_examples=30)
def test_vocabularies_of_other_content(shared: Shared, data: st.DataObject) -> None:
    name = ".embank/columns/columns.json"
    body = documents.decode(shared.every[name], Path(name))
    try:
        promise_anew(shared, name, documents.encode(data.draw(mutations(body))))
        with suppress(EmbankError):
            codes, names = Bank.open(shared.path).column("label")
            assert all(isinstance(each, str) for each in names) and codes.max() < len(names)
        read_everything(shared, same=False)
    finally:
        shared.restore()


# ---- manifests

CELLS = st.text(st.characters(codec="utf-8"), max_size=12)
TABLES = [case.data for cases in GROUPS.values() for case in cases]


def read_manifest(folder: Path, data: bytes, suffix: str) -> None:
    path = folder / f"m{suffix}"
    path.write_bytes(data)
    with suppress(EmbankError):
        manifest = Manifest.read(path)
        assert len(set(manifest.image_ids)) == len(manifest) > 0
        assert all(
            isinstance(cell, str) for name in manifest.table.column_names for cell in manifest.column(name)
        )
        assert not any(uri.startswith("/") or ".." in uri.split("/") or "\0" in uri for uri in manifest.uris)
        manifest.codes("label")
        again = Manifest.read(_rewritten(manifest, folder))
        assert again.digest == manifest.digest


def _rewritten(manifest: Manifest, folder: Path) -> Path:
    manifest.write(folder / "again.parquet")
    return folder / "again.parquet"


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with quick_folder() as found:
        yield found


@given(
    st.binary(max_size=300) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass"))
)
@settings(FUZZ, max_examples=150)
def test_csv_of_any_bytes(folder: Path, data: bytes) -> None:
    read_manifest(folder, data, ".csv")


@given(st.sampled_from(TABLES), st.data())
@settings(FUZZ, max_examples=200)
def test_csv_of_the_corpus_spoilt(folder: Path, table: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(table)))
    noise = data.draw(
        st.sampled_from([b"\0", b'"', b"\r", b"\n", b",", b"\xff", b"../", b"\xef\xbb\xbf"])
        | st.binary(max_size=9)
    )
    read_manifest(folder, table[:at] + noise + table[at + data.draw(st.integers(0, 9)) :], ".csv")


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=5))
@settings(FUZZ, max_examples=100)
def test_csv_of_any_cells(folder: Path, rows: list[tuple[str, str, str]]) -> None:
    import csv

    text = io.StringIO(newline="")
    csv.writer(text).writerows([("image_id", "uri", "label"), *rows])
    read_manifest(folder, text.getvalue().encode(), ".csv")


@given(st.data())
@settings(FUZZ, max_examples=150)
def test_parquet_spoilt(folder: Path, data: st.DataObject) -> None:
    make_manifest(folder, 5).write(folder / "whole.parquet")
    whole = (folder / "whole.parquet").read_bytes()
    at = data.draw(st.integers(0, len(whole)))
    noise = data.draw(st.binary(max_size=9))
    read_manifest(folder, whole[:at] + noise + whole[at + data.draw(st.integers(0, 9)) :], ".parquet")


@given(st.data())
@settings(FUZZ, max_examples=40)
def test_parquet_of_any_types(folder: Path, data: st.DataObject) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: list[Any] = [
        ["a", "b"], [1, 2], [0.5, None], [b"a", b"\xff"], [[1], [2]], [{"a": 1}, None], [None, None],
        [True, False], ["..", "/a"], ["a", "a"], [2**63 - 1, -1],
    ]  # fmt: skip
    names = ("image_id", "uri", "label", "sha256", "split")
    table = pa.table({name: pa.array(data.draw(st.sampled_from(columns))) for name in names})
    pq.write_table(table, folder / "typed.parquet")
    read_manifest(folder, (folder / "typed.parquet").read_bytes(), ".parquet")


def test_the_fuzz_sees_a_reader_that_stumbles(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    from stores.bank import seal

    monkeypatch.setattr(seal.documents, "decode", lambda data, path: json.loads(data))
    name = next(each for each in shared.every if each.endswith("seal.json"))
    try:
        (shared.path / name).write_bytes(b"[]")
        with pytest.raises(Exception) as caught:
            read_everything(shared)
        assert not isinstance(caught.value, EmbankError)
    finally:
        shared.restore()
