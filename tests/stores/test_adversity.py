"""Clocks that jump, disks that vanish or cannot be written, two coordinators, other schema versions."""

import errno
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.faults.io import embed, evaluated
from stores.bank import documents
from stores.bank.export import export
from stores.bank.reader import Bank
from stores.bank.records import RunRecord, read_all
from stores.bank.writer import FeatureWriter, open_or_create
from stores.errors import BankError, EmbankError, MachineFault, Refused
from stores.maintenance.verify import quarantine, verify
from tests.stores.banks import Os, content, fill, flip, make_bank, make_key, make_manifest, nothing, patched

ROWS, DIM, CHUNK = 80, 4, 32
DAY_NS = 86_400 * 10**9


@pytest.fixture
def bank(quick_path: Path) -> Bank:
    with patched(Os(nothing)):
        return make_bank(quick_path / "bank", ROWS, DIM, CHUNK)


# ---- clocks


def age(bank: Bank, days: float) -> None:
    """Give every file another time of change, as if the clock had been wrong when it was written."""
    for path in bank.path.rglob("*"):
        if path.is_file():
            state = path.stat()
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + int(days * DAY_NS)))


@pytest.mark.parametrize("days", [-10_000, -1, 1, 10_000])
def test_files_of_another_time_are_read_and_their_damage_is_found(bank: Bank, days: float) -> None:
    truth = evaluated(bank.path)
    age(bank, days)
    for _ in range(2):
        assert verify(bank).ok
        assert evaluated(bank.path) == truth
    path = next(bank.path.glob("*/embedding/c/1/0"))
    written = path.stat().st_mtime_ns
    flip(path)
    os.utime(path, ns=(written, written))  # nothing shows in the time of change
    with pytest.raises(BankError, match="Chunk 1 of"):
        evaluated(bank.path)
    assert [each.chunk for each in verify(bank).damaged] == [1]


@pytest.mark.parametrize("seal_day", [-400, 400])
@pytest.mark.parametrize("read_day", [-400, 0, 400])
def test_a_clock_that_jumps_between_seal_and_use_hides_nothing(
    quick_path: Path, monkeypatch: pytest.MonkeyPatch, seal_day: int, read_day: int
) -> None:
    """Whatever the clock said when stamps were made, they hold for the very file only."""
    real = time.time_ns

    def at(day: int) -> None:
        monkeypatch.setattr(time, "time_ns", lambda: real() + day * DAY_NS)

    at(seal_day)
    with patched(Os(nothing)):
        bank = make_bank(quick_path / "bank", ROWS, DIM, CHUNK)
    assert verify(bank).ok
    truth = evaluated(bank.path)
    at(read_day)
    assert evaluated(bank.path) == truth
    for pattern in ("*/embedding/c/0/0", ".embank/*/markers/000002.json", "*/status/zarr.json"):
        path = next(bank.path.glob(pattern))
        whole = path.read_bytes()
        time.sleep(0.02)  # longer than a tick of the file system's clock
        flip(path)
        with pytest.raises(BankError, match="damaged"):
            evaluated(bank.path)
        path.write_bytes(whole)
    assert evaluated(bank.path) == truth


def test_a_lock_is_not_held_for_years_because_the_clock_went_back(
    bank: Bank, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stores.backends import locks

    monkeypatch.setattr(time, "time", lambda: 0.0)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    start = time.monotonic()
    path = bank.path / ".embank" / "lock"
    with (
        locks.held(path),
        pytest.raises(BankError, match="locked by another process"),
        locks.held(path, patience=0.1),
    ):
        pass
    assert time.monotonic() - start < 30


def test_records_of_one_moment_do_not_replace_each_other(bank: Bank) -> None:
    now = "2026-01-02T03:04:05+00:00"
    records = [RunRecord("fewshot", {}, {}, {"accuracy": each / 4}, {}, now) for each in range(3)]
    earlier = replace(records[0], created="1970-01-01T00:00:00+00:00")
    for record in (*records, earlier, *records):
        record.write(bank.path)
    found = read_all(bank.path)
    assert found[0] == earlier
    assert sorted(record.metrics["accuracy"] for record in found[1:]) == [0, 0.25, 0.5]


# ---- a bank that cannot be written


WRITING = {"link", "replace", "unlink", "mkdir", "write", "pwrite", "ftruncate"}


def read_only(count: int, name: str, args: tuple[Any, ...]) -> None:
    """As a file system mounted read-only."""
    wants = name == "open" and args[1] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    if (wants and os.path.exists(Path(args[0]).parent)) or name in WRITING:  # noqa: PTH110
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_a_read_only_bank_is_read_verified_and_exported(bank: Bank, tmp_path: Path) -> None:
    truth, before = evaluated(bank.path), content(bank.path)
    with patched(Os(read_only)):
        assert evaluated(bank.path) == truth
        assert verify(bank).ok
        assert [info.sealed for info in bank.list()] == [True]
    flip(next(bank.path.glob("*/embedding/c/1/0")))
    with patched(Os(read_only)):
        with pytest.raises(BankError, match="Chunk 1 of"):
            evaluated(bank.path)
        report = verify(bank)
        assert [each.chunk for each in report.damaged] == [1]
    flip(next(bank.path.glob("*/embedding/c/1/0")))
    assert content(bank.path) == before


@pytest.mark.parametrize(
    "work",
    [
        lambda bank: fill(bank, make_key(bank.image_digest, layer="other"), DIM),
        lambda bank: fill(bank, make_key(bank.image_digest), DIM),
        lambda bank: RunRecord.now("fewshot", asked={}, used={}, metrics={}, seconds={}).write(bank.path),
        lambda bank: quarantine(bank, verify(bank)),
        lambda bank: open_or_create(bank.path.parent / "new", make_manifest(bank.path.parent, 5)),
        lambda bank: export(bank.features(), bank.path.parent / "out"),
    ],
    ids=["embed", "resume", "record", "repair", "create", "export"],
)
def test_writing_to_a_read_only_bank_is_refused_with_a_remedy(
    bank: Bank, work: Callable[[Bank], Any]
) -> None:
    before = content(bank.path)
    with patched(Os(read_only)), pytest.raises(EmbankError) as caught:
        work(bank)
    assert "Read-only file system" in str(caught.value)
    assert "write permission" in caught.value.remedy or isinstance(caught.value, MachineFault)
    assert content(bank.path) == before


# ---- a disk that vanishes


@pytest.mark.slow
@pytest.mark.parametrize("how", ["unmounted", "ESTALE", "ENODEV"])
def test_a_disk_that_vanishes_ends_the_run_and_costs_nothing(quick_path: Path, how: str) -> None:
    """At some step the bank is gone, as when a mount is lost; it comes back, and the run goes on."""
    (quick_path / "truth").mkdir()
    with patched(Os(nothing)):
        truth = content(make_bank(quick_path / "truth" / "bank", ROWS, DIM, CHUNK).path)
        open_or_create(
            quick_path / "empty" / "bank", make_manifest(quick_path / "empty", ROWS), chunk_rows=CHUNK
        )
    with patched(Os(nothing)) as fake:
        embed(Path(shutil.copytree(quick_path / "empty", quick_path / "count")))
    ended_well = 0
    for at in range(3, fake.count, 29):
        place = Path(shutil.copytree(quick_path / "empty", quick_path / f"{how}{at}"))
        away = place / "away"
        with patched(Os(vanishing(place / "bank", away, at, how))):
            try:
                embed(place)
                ended_well += (
                    1  # It was over: only the cache was still to be written, and the lock to be let go.
                )
                assert content(away if how == "unmounted" else place / "bank") == truth
            except EmbankError:
                pass
        if how == "unmounted":
            assert not list(place.glob("bank/.embank/*/seal.json"))
            shutil.rmtree(place / "bank", ignore_errors=True)
            away.rename(place / "bank")
        with patched(Os(nothing)):
            embed(place)
        assert content(place / "bank") == truth
        shutil.rmtree(place)
    assert ended_well <= 1


def vanishing(bank: Path, away: Path, at: int, how: str) -> Callable[[int, str, tuple[Any, ...]], None]:
    def before(count: int, name: str, args: tuple[Any, ...]) -> None:
        if count == at and how == "unmounted":
            bank.rename(away)
            bank.mkdir()
        elif count >= at and how != "unmounted" and name != "close":
            raise OSError(getattr(errno, how), os.strerror(getattr(errno, how)))

    return before


def test_reading_from_a_vanished_bank_is_an_error_not_an_empty_bank(bank: Bank) -> None:
    features = bank.features()
    held = features.array  # mapped: stays readable
    truth = held.tobytes()
    shutil.rmtree(bank.path)
    assert held.tobytes() == truth
    for reader in (
        lambda: Bank.open(bank.path),
        lambda: verify(bank.path),
        lambda: bank.features(),
        bank.manifest,
    ):
        with pytest.raises(BankError):
            reader()
    with pytest.raises(BankError):
        features.failures()


# ---- two coordinators


def test_of_two_coordinators_the_second_changes_nothing(bank: Bank) -> None:
    key = make_key(bank.image_digest, layer="other")
    with FeatureWriter(bank, key, DIM) as first:
        before = content(bank.path)
        for work in (
            lambda: fill(bank, key, DIM),
            lambda: FeatureWriter(bank, key, DIM),
        ):
            with pytest.raises(Refused, match=f"process {os.getpid()}"):
                work()
        assert content(bank.path) == before
        assert first.todo == [0, 1, 2]
    fill(bank, key, DIM)
    assert verify(bank).ok


# ---- other schema versions


def rewritten(path: Path, schema: object) -> None:
    path.write_bytes(documents.encode({**documents.read(path), "schema": schema}))


@pytest.mark.parametrize(
    ("schema", "remedy"), [(2, "install a newer embank"), (0, "embed again into a new bank")]
)
@pytest.mark.parametrize(
    "work",
    [
        lambda bank: Bank.open(bank.path),
        lambda bank: verify(bank.path),
        lambda bank: open_or_create(bank.path, make_manifest(bank.path.parent, ROWS)),
        lambda bank: quarantine(bank.path, verify(bank.path)),
    ],
    ids=["open", "verify", "embed", "repair"],
)
def test_a_bank_of_another_schema_is_refused_and_left_alone(
    bank: Bank, work: Callable[[Bank], Any], schema: int, remedy: str
) -> None:
    rewritten(bank.path / "embank.json", schema)
    before = content(bank.path)
    with pytest.raises(BankError, match=f"schema version {schema}") as caught:
        work(bank)
    assert caught.value.remedy == remedy
    assert content(bank.path) == before


@pytest.mark.parametrize("schema", [3, 0])
@pytest.mark.parametrize(
    "pattern",
    [".embank/*/key.json", ".embank/*/seal.json", ".embank/*/markers/000001.json", "records/*.json"],
)
def test_a_document_of_another_schema_is_not_taken_for_ours(bank: Bank, pattern: str, schema: int) -> None:
    RunRecord.now("fewshot", asked={}, used={}, metrics={}, seconds={}).write(bank.path)
    rewritten(next(bank.path.glob(pattern)), schema)
    with pytest.raises(BankError):
        evaluated(bank.path)
        read_all(bank.path)


def test_an_unsealed_marker_of_a_newer_schema_stops_the_run(bank: Bank) -> None:
    """A resume removes what is broken; what is newer is not broken."""
    next(bank.path.glob(".embank/*/seal.json")).unlink()
    rewritten(next(bank.path.glob(".embank/*/markers/000001.json")), 3)
    before = content(bank.path)
    with pytest.raises(BankError, match="schema version 3"):
        fill(bank, make_key(bank.image_digest), DIM)
    assert content(bank.path) == before
