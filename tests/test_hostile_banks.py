"""Banks from elsewhere: special files, links, absurd documents and control characters end in a refusal.

What is sealed is sealed anew by the attacker, so that the readers behind the digests are met.
"""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks.faults.flips import build
from engine.recipes import load_recipe
from stores.backends import files
from stores.bank import documents, integrity
from stores.bank.export import export
from stores.bank.keys import ChunkResult, Failure
from stores.bank.layout import SIDE
from stores.bank.reader import Bank
from stores.bank.records import read_all
from stores.bank.writer import FeatureWriter, open_or_create
from stores.errors import EmbankError, PathRefused
from stores.maintenance.verify import verify
from stores.manifest.manifest import Manifest
from tests.command import Ran, embank
from tests.stores.banks import make_bank, make_key, make_manifest

pytestmark = pytest.mark.slow

#: Seconds for a command that has imported what it needs; a busy machine takes its time.
#: Seconds after which a command waits for ever, however much else this machine does; and of its own work.
PATIENCE, WORK = 120, 20
ESCAPE = "\x1b[31m\x07"
REVERSE = "\u202egnp.exe"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bank with every kind of file."""
    return build(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def bank(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "bank")
    shutil.copytree(whole, tmp_path / "outside" / "bank")
    return tmp_path / "bank"


@contextmanager
def at_once() -> Iterator[None]:
    """The body must not wait: an alarm ends it with an error that nobody catches."""

    class Late(BaseException):
        pass

    def ring(*_: object) -> None:
        raise Late

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(PATIENCE)
    begun = time.process_time()
    try:
        yield
        assert time.process_time() - begun < WORK
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def commands(bank: Path) -> dict[str, list[Any]]:
    """Every cheap command that reads a bank."""
    beside = bank.parent
    # A name of another feature of this bank than the one that is tampered with.
    model = "torchvision/resnet18"
    return {
        "ls": ["bank", "ls", bank],
        "show": ["bank", "show", bank, "--failures"],
        "verify": ["bank", "verify", bank],
        "export": ["bank", "export", bank, "-o", beside / "export", "--overwrite"],
        "relabel": ["bank", "relabel", bank, beside / "labels.parquet", "-o", beside / "relabelled"],
        "audit": ["bank", "audit", bank, "--model", model, "-o", beside / "pairs.csv", "--device", "cpu"],
        "knn": ["knn", bank, "--model", model, "--leave-one-out", "--device", "cpu"],
        "fewshot": ["fewshot", bank, "--model", model, "--n-way", "2", "--n-shot", "1", "--n-query", "1",
                    "--episodes", "2", "--device", "cpu"],
        "probe": ["probe", bank, "--model", model, "--values", "2", "--bootstrap", "0", "--holdout",
                  "--train-split", "test", "--test-split", "none", "--device", "cpu"],
        "search": ["search", bank, "--model", model, "--id", "image 00001", "--device", "cpu"],
    }  # fmt: skip


def every_command(bank: Path) -> dict[str, Ran]:
    """What the commands say; each must end by itself, with an exit code of ours and no traceback."""
    if not (bank.parent / "labels.parquet").exists():
        shutil.copy(bank.parent / "outside" / "bank" / "manifest.parquet", bank.parent / "labels.parquet")
    said = {}
    for name, words in commands(bank).items():
        with at_once():
            said[name] = ran = embank(*words)
        assert ran.code in (0, 1, 2), (name, ran)
        assert "Traceback" not in ran.err
        assert ran.code != 1 or name == "verify", (name, ran)
        shutil.rmtree(bank.parent / "relabelled", ignore_errors=True)
    return said


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


FEATURE = "torchvision-resnet18"


def feature(bank: Path) -> str:
    return next(path.name for path in bank.iterdir() if path.name.startswith(FEATURE))


def places(bank: Path) -> list[str]:
    """Each kind of file that a bank has."""
    name = feature(bank)
    other = next(path.name for path in bank.iterdir() if path.name.startswith("other-model"))
    record = next((bank / "records").iterdir()).name
    side = f"{SIDE}/{name}"
    found = [
        "embank.json", "manifest.parquet", "zarr.json", f"{SIDE}/columns/label.npy",
        f"{SIDE}/columns/columns.json", f"{side}/key.json", f"{side}/seal.json",
        f"{side}/lock", f"{side}/commit.lock", f"{side}/markers/000001.json",
        f"{SIDE}/{other}/provenance.json", f"{SIDE}/{other}/certificate.json", f"records/{record}",
        f"{name}/zarr.json", f"{name}/norm/zarr.json",
        f"{name}/embedding/c/1/0", f"{name}/norm/c/1", f"{name}/status/c/0", f"{SIDE}/lock",
    ]  # fmt: skip
    return [relative for relative in found if (bank / relative).exists()]


def fifo(path: Path, outside: Path) -> None:
    os.mkfifo(path)


def zeros(path: Path, outside: Path) -> None:
    path.symlink_to("/dev/zero")


def full(path: Path, outside: Path) -> None:
    path.symlink_to("/dev/full")


def link(path: Path, outside: Path) -> None:
    path.symlink_to(outside)


def loop(path: Path, outside: Path) -> None:
    path.symlink_to(path.name)


def folder(path: Path, outside: Path) -> None:
    path.mkdir()


def sparse(path: Path, outside: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


ATTACKS = [fifo, zeros, full, link, loop, folder, sparse]
#: What evaluations do not read, or only as a cache.
UNREAD = ("lock", "commit.lock", "stamps.json", "zarr.json", "provenance.json", "certificate.json")


@pytest.mark.parametrize("attack", ATTACKS)
def test_special_files_and_links(attack: Callable[[Path, Path], None], bank: Path) -> None:
    outside = bank.parent / "outside"
    shutil.copy(bank / "manifest.parquet", bank.parent / "labels.parquet")
    for relative in places(bank):
        path = bank / relative
        kept = path.rename(bank.parent / "kept")
        attack(path, outside / "bank" / relative)
        before = state(outside)
        said = every_command(bank)
        assert state(outside) == before, relative
        if path.name not in UNREAD:
            refused = [name for name, ran in said.items() if ran.code == 2]
            assert refused or said["verify"].code == 1, relative
        if attack is link and path.name not in ("lock", "commit.lock", "stamps.json"):
            assert said["verify"].code == 2 and "is a link" in said["verify"].err, relative
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        kept.rename(path)
    assert embank("bank", "verify", bank).code == 0


@pytest.mark.parametrize("deep", [False, True])
def test_folders_that_are_links(deep: bool, bank: Path) -> None:
    """Nothing behind the link is read, written or removed, not by `bank repair` either."""
    outside, name = bank.parent / "outside", feature(bank)
    shallow = [
        name,
        SIDE,
        f"{SIDE}/{name}",
        f"{SIDE}/columns",
        f"{SIDE}/tmp",
        f"{SIDE}/quarantine",
        "records",
    ]
    inside = [f"{name}/norm", f"{name}/norm/c", f"{name}/embedding/c", f"{name}/embedding/c/1",
              f"{SIDE}/{name}/markers"]  # fmt: skip
    for relative in inside if deep else shallow:
        path = bank / relative
        if not path.exists():
            continue
        kept = path.rename(bank.parent / "kept")
        path.symlink_to(outside / "bank" / relative)
        before = state(outside)
        said = every_command(bank)
        said["repair"] = embank("bank", "repair", bank, "--device", "cpu")
        assert state(outside) == before, relative
        for command in ("verify", "repair", "knn"):
            assert said[command].code == 2 and "is a link" in said[command].err, (relative, command)
        path.unlink()
        kept.rename(path)
    assert embank("bank", "verify", bank).code == 0


def test_a_link_to_the_whole_bank_and_hard_links_are_fine(bank: Path) -> None:
    (bank.parent / "way").symlink_to(bank, target_is_directory=True)
    for path in list(bank.rglob("*")):
        if path.is_file():
            os.link(path, bank.parent / "other-name")
            (bank.parent / "other-name").unlink()
    os.link(bank / "embank.json", bank.parent / "hard")
    said = every_command(bank.parent / "way")
    assert {name: ran.code for name, ran in said.items() if ran.code} == {}, said


def test_the_remedy_for_a_link_works(bank: Path) -> None:
    path = bank / feature(bank) / "norm" / "c" / "1"
    whole = path.rename(bank.parent / "kept")
    path.symlink_to(whole)
    ran = embank("bank", "verify", bank)
    assert ran.code == 2 and "put what it leads to in its place" in ran.err
    path.unlink()
    shutil.copy(whole, path)
    assert embank("bank", "verify", bank).code == 0


# ---- documents that the attacker has sealed


def sealed(path: Path, body: dict[str, Any]) -> None:
    path.write_bytes(documents.encode(body))


def consistent(bank: Path, rows: int, chunk_rows: int = 1 << 20) -> None:
    """All documents of a bank agree on a count of rows that no file has."""
    name = feature(bank)
    run = documents.read(bank / "embank.json")
    sealed(bank / "embank.json", {**run, "rows": rows, "chunk_rows": chunk_rows})
    key = {**documents.read(bank / SIDE / name / "key.json"), "rows": rows, "chunk_rows": chunk_rows}
    sealed(bank / SIDE / name / "key.json", key)
    seal = documents.read(bank / SIDE / name / "seal.json")
    promises = {**seal["files"], f"{SIDE}/{name}/key.json": integrity.promise_of(documents.encode(key))}
    body = {**seal, "rows": rows, "ok": rows - seal["failed"], "definition": key, "files": promises}
    sealed(bank / SIDE / name / "seal.json", body)


@pytest.mark.parametrize("rows", [1 << 32, 1 << 50, (1 << 53) + 1, 10**30])
@pytest.mark.parametrize("unsealed", [False, True])
def test_absurd_counts(rows: int, unsealed: bool, bank: Path) -> None:
    shutil.copy(bank / "manifest.parquet", bank.parent / "labels.parquet")
    consistent(bank, rows, 1)
    if unsealed:
        (bank / SIDE / feature(bank) / "seal.json").unlink()
    peak = peak_of(lambda: every_command(bank))
    said = every_command(bank)
    assert said["knn"].code == said["export"].code == said["relabel"].code == said["search"].code == 2
    assert peak < 300 << 20
    with at_once(), pytest.raises(EmbankError):
        open_or_create(bank, Manifest.read(bank.parent / "labels.parquet", allow_outside=True))


def peak_of(work: Callable[[], object]) -> int:
    """The most bytes that Python and NumPy held in the meantime."""
    import tracemalloc

    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def mutations() -> Iterator[tuple[str, Callable[[Any], Any]]]:
    for value in (-1, 0, True, False, 1.0, 1e308, None, "1", [], {}, [[]], 1 << 62):
        yield repr(value), lambda _, value=value: value
    yield "nested", lambda _: json.loads("[" * 400 + "]" * 400)
    yield "surrogate", lambda _: "\ud800"
    yield "climbing", lambda _: "../../../../etc/passwd"


@pytest.mark.parametrize("stride", [2, pytest.param(1, marks=pytest.mark.thorough)])
def test_each_value_of_each_document(bank: Path, stride: int) -> None:
    """Every member of every sealed document: replaced, dropped, joined by a stranger; then sealed anew.

    At a stride of 2, each of the 15 mutations meets another member than the one before.
    """
    name = feature(bank)
    record = next((bank / "records").iterdir())
    for path in (bank / "embank.json", *(bank / SIDE / name / f"{each}.json" for each in ("key", "seal")),
                 bank / SIDE / name / "markers" / "000001.json", bank / SIDE / "columns" / "columns.json",
                 record):  # fmt: skip
        body = documents.read(path)
        whole = path.read_bytes()
        tampered = [{k: v for k, v in body.items() if k != member} for member in body]
        tampered += [{**body, "stranger": 1}, {**body, "../../x": "y"}]
        changed = [{**body, member: change(body[member])} for member in body for _, change in mutations()]
        tampered += changed[::stride]
        for other in tampered:
            if other == body:
                continue
            sealed(path, other)
            for reader in (
                verify, read_all, lambda path: Bank.open(path).list(),
                lambda path: Bank.open(path).manifest(),
                lambda path: Bank.open(path).features("torchvision/resnet18").array.sum(),
                lambda path: Bank.open(path).column("label"),
                lambda path: Bank.open(path).describe(name, failures=True),
            ):  # fmt: skip
                with at_once(), suppress(EmbankError):
                    reader(bank)
        path.write_bytes(whole)
    with at_once():
        assert verify(bank).ok


def test_documents_that_are_large_or_deep(bank: Path) -> None:
    for data in (
        b"[" * 5_000_000,
        b'{"a":' * 1_000_000,
        b"{" + b" " * (300 << 20),
        b'{"a":' + b"9" * 10_000_000 + b"}",
    ):
        (bank / "embank.json").write_bytes(data)
        with at_once(), pytest.raises(EmbankError):
            Bank.open(bank)


@pytest.mark.parametrize("change", [
    {}, {"recipe": 5}, {"recipe": {"size": []}}, {"options": {}},
    {"options": {"limits": {}, "allow_outside": 1}},
    {"options": {"limits": {"max_pixels": "1", "max_bytes": 2}, "allow_outside": False}},
    {"runtime": {"device": 5}}, {"model": "\0"}, {"root": "\0"}, {"weights_path": "/dev/zero"},
    {"weights_path": 7},
])  # fmt: skip
def test_provenance_that_says_nothing(change: dict[str, Any], bank: Path, tmp_path: Path) -> None:
    name = feature(bank)
    honest = {
        "model": "random/resnet18", "weights_path": None, "recipe": {}, "root": str(tmp_path),
        "decoder": "reference",
        "options": {"limits": {"max_pixels": 1, "max_bytes": 1}, "allow_outside": False},
        "runtime": {"device": "cpu", "precision": "fp32", "threads": 1, "seed": 0, "compile": False},
    }  # fmt: skip
    sealed(bank / SIDE / name / "provenance.json", {**honest, **change} if change else {})
    Image.new("RGB", (9, 9)).save(tmp_path / "q.png")
    model = ["--model", "torchvision/resnet18"]
    for words in (
        ["search", bank, *model, "--image", tmp_path / "q.png", "--device", "cpu"],
        ["search", bank, *model, "--id", "image 00001", "-o", tmp_path / "s.png"],
        ["saliency", bank, *model, "--device", "cpu"],
    ):
        with at_once():
            ran = embank(*words)
        # A sheet of the bank's own pictures needs no recipe.
        assert ran.code == 2 or ("-o" in words and "recipe" in change), (words, ran)
        assert "Traceback" not in ran.err


def test_an_array_file_of_other_content(bank: Path) -> None:
    from stores.bank import array_cache

    array_cache.write(bank, "x/y.arrays", {"a": 1}, {"v": np.arange(3.0)})
    path = bank / SIDE / "x" / "y.arrays"
    data = path.read_bytes()
    end = data.index(b"\n") + 1
    head = documents.decode(data[:end], path)
    about = head["arrays"]["v"]
    for other in (
        {}, {"key": head["key"]}, {**head, "arrays": []}, {**head, "arrays": {"v": {}}},
        *({**head, "arrays": {"v": {**about, **change}}} for change in (
            {"dtype": "O"}, {"dtype": "object"}, {"dtype": 5}, {"shape": [-3]}, {"shape": [1 << 62, 1 << 62]},
            {"shape": "x"}, {"shape": [True]}, {"sha256": 5},
        )),
    ):  # fmt: skip
        path.write_bytes(documents.encode(other) + data[end:])
        with at_once(), pytest.raises(documents.BrokenDocument):
            array_cache.read(bank, "x/y.arrays", {"a": 1})


# ---- what is printed


def coloured(
    tmp_path: Path, escape: str = ESCAPE, reverse: str = REVERSE, line: str = "\u2028\x9b31m"
) -> Path:
    """A bank whose names, labels and reasons a terminal would act on; its attacker passes by our checks."""
    manifest = make_manifest(tmp_path, 60)
    table = manifest.table
    names = {
        "image_id": [f"=id{escape}{reverse}{row}" for row in range(60)],
        "label": [(f"@sick{escape}", f"-well{reverse}")[row % 2] for row in range(60)],
        "split": [("train", "test")[row // 2 % 2] for row in range(60)],
        "group": [f"+{row}{line}" for row in range(60)],
    }
    import pyarrow as pa

    columns = {name: pa.chunked_array([pa.array(names.get(name, table[name].to_pylist()), pa.large_string())])
               for name in table.column_names}  # fmt: skip
    hostile = Manifest(pa.table(columns), manifest.root)
    bank = open_or_create(tmp_path / "bank", hostile, chunk_rows=64)
    key = make_key(bank.image_digest, model=f"evil{ESCAPE}\nforged line{REVERSE}\ud800")
    values = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    values[2] = values[0]
    bad = np.arange(60) == 7
    failure = Failure(7, f"corrupt{ESCAPE}", f"line\nforged\r{ESCAPE}{REVERSE}")
    with FeatureWriter(bank, key, 8) as writer:
        writer.commit(ChunkResult(0, values, ~bad, (failure,)))
        writer.write_provenance({"host": f"x{ESCAPE}{REVERSE}", "\x1b]0;title\x07": 1})
        writer.seal()
    return tmp_path / "bank"


UNSAFE = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def test_nothing_printed_acts_on_a_terminal(tmp_path: Path) -> None:
    bank = coloured(tmp_path)
    (name,) = [each.name for each in Bank.open(bank).list()]
    words = [
        ["bank", "ls", bank], ["bank", "show", bank, "--failures"], ["bank", "verify", bank],
        ["bank", "audit", bank, "--model", name, "-o", tmp_path / "pairs.csv", "--device", "cpu"],
        ["knn", bank, "--model", name, "--device", "cpu"],
        ["fewshot", bank, "--model", name, "--n-way", "2", "--n-shot", "1", "--n-query", "1",
         "--episodes", "2"],
        ["probe", bank, "--model", name, "--values", "2", "--bootstrap", "0", "--device", "cpu"],
        ["search", bank, "--model", name, "--id", f"=id{ESCAPE}{REVERSE}3", "--device", "cpu"],
        ["search", bank, "--model", name, "--id", "none", "--device", "cpu"],
        ["knn", bank, "--model", "none"],
    ]  # fmt: skip
    for each in words:
        for more in ([], ["--json"]):
            ran = embank(*each, *more)
            assert "Traceback" not in ran.err and ran.code in (0, 2), (each, ran)
            assert not UNSAFE.search(ran.out) and not UNSAFE.search(ran.err), (each, more, ran)
            assert not re.search(r"^forged", ran.out + ran.err, re.MULTILINE), (each, more)
            if more and ran.code == 0:
                json.loads(ran.out)
    shown = embank("bank", "show", bank, "--failures").out
    assert r"\x1b[31m" in shown and r"\u202e" in shown, "shown escaped, not lost"


# ---- exported tables


def test_exported_cells_are_no_formulas(tmp_path: Path) -> None:
    bank = coloured(tmp_path, "", "", "")
    (info,) = Bank.open(bank).list()
    words = ["bank", "audit", bank, "--model", info.name, "--threshold", "0.001", "--device", "cpu"]
    assert embank(*words, "-o", tmp_path / "pairs.csv").code == 0
    export(Bank.open(bank).features(info.name), tmp_path / "export")
    for path, numbers in ((tmp_path / "pairs.csv", 3), (tmp_path / "export" / "failures.csv", 1)):
        with path.open(newline="", encoding="utf-8") as file:
            header, *rows = csv.reader(file)
        assert rows
        numeric = [i for i, name in enumerate(header) if name in ("similarity", "row_a", "row_b", "row")]
        assert len(numeric) == numbers
        for row in rows:
            for i, cell in enumerate(row):
                if i in numeric:
                    float(cell)
                else:
                    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")), (path.name, header[i], cell)


# ---- recipes, manifests and tables


def special(path: Path, kind: str) -> Path:
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(f"/dev/{kind}")
    return path


KINDS = ["fifo", "zero", "full", "null", "folder"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json", ""])
def test_manifests_and_tables_that_are_no_files(kind: str, suffix: str, tmp_path: Path, whole: Path) -> None:
    path = special(tmp_path / f"m{suffix}", kind)
    for words in (
        ["manifest", "check", path],
        ["manifest", "table", path, "-o", tmp_path / "o.parquet"],
        ["bank", "relabel", whole, path, "-o", tmp_path / "new"],
        ["embed", path, "--model", "random/resnet18", "--bank", tmp_path / "bank", "--device", "cpu"],
    ):
        with at_once():
            ran = embank(*words)
        assert ran.code == 2 and "Traceback" not in ran.err, (words, ran)
    assert not (tmp_path / "bank").exists() and not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_recipes_that_are_no_files(kind: str, tmp_path: Path) -> None:
    path = special(tmp_path / "r.json", kind)
    with at_once(), pytest.raises(EmbankError):
        load_recipe(path)


@pytest.mark.parametrize("text", [
    "[" * 900_000, '{"mean": [1e999, 0, 0]}', '{"sd": [1' + "0" * 400 + ", 1, 1]}", '{"size": true}',
    " " * 2_000_000 + "{}", '{"resize": []}', '{"mean": {}}',
])  # fmt: skip
def test_recipes_of_hostile_content(text: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(text)
    with at_once(), pytest.raises(EmbankError):
        load_recipe(tmp_path / "r.json")


@pytest.mark.parametrize("kind", KINDS)
def test_label_tables_that_are_no_files(kind: str, tmp_path: Path) -> None:
    from engine.datasets import _tables

    path = special(tmp_path / "labels.csv", kind)
    with at_once(), pytest.raises(EmbankError):
        _tables.read(path, ("a",))


def test_parquet_that_states_more_rows_than_it_can_hold(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # 40 million equal cells are little more than 100 kB: a run of one word.
    block = pa.table({"uri": pa.DictionaryArray.from_arrays(pa.array(np.zeros(1 << 20, np.int8)), ["a.png"])})
    with pq.ParquetWriter(tmp_path / "m.parquet", block.schema) as writer:
        for _ in range(40):
            writer.write_table(block)
    assert (tmp_path / "m.parquet").stat().st_size < 200_000
    with at_once():
        ran = embank("manifest", "check", tmp_path / "m.parquet")
    assert ran.code == 2 and "states 41943040 rows" in ran.err


def test_hostile_banks_end_from_the_shell_at_once(bank: Path) -> None:
    """In a process of its own, imports and all."""
    (bank / "embank.json").unlink()
    os.mkfifo(bank / "embank.json")
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", "import cli; cli.main()", "bank", "ls", str(bank)],
        capture_output=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 2 and b"FIFO" in done.stderr and time.monotonic() - begun < PATIENCE


def test_plain_files_are_opened_and_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    assert files.read(tmp_path / "a") == b"1"
    (tmp_path / "b").symlink_to("a")
    os.mkfifo(tmp_path / "c")
    for name in "bc":
        with at_once(), pytest.raises(PathRefused):
            files.read(tmp_path / name)
        with at_once(), pytest.raises(PathRefused):
            files.digest(tmp_path / name)
    with pytest.raises(PathRefused):
        files.copy(tmp_path / "b", tmp_path / "d", tmp_path / "t")
    assert make_bank(tmp_path / "bank").rows == 150
