"""Making a bank, and who may write into it."""

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from stores.backends import files
from stores.backends.local import LocalBackend
from stores.bank import documents, integrity
from stores.bank.reader import Bank
from stores.bank.writer import FeatureWriter, open_or_create, write_certificate
from stores.errors import BankError, Refused
from stores.maintenance.verify import verify
from tests.stores.banks import (
    chunk_result,
    content,
    embeddings,
    fill,
    make_bank,
    make_key,
    make_manifest,
)

ROWS, DIM = 150, 6


def bank_of(root: Path, rows: int = ROWS) -> Bank:
    return open_or_create(root / "bank", make_manifest(root, rows), chunk_rows=64)


def test_a_bank_keeps_what_it_was_made_with(tmp_path: Path) -> None:
    bank = bank_of(tmp_path)
    manifest = make_manifest(tmp_path, ROWS)
    assert (bank.rows, bank.chunk_rows) == (ROWS, 64)
    assert (bank.image_digest, bank.manifest_digest) == (manifest.image_digest, manifest.digest)
    assert bank.manifest().uris == manifest.uris
    assert bank.manifest().root.resolve() == (tmp_path / "images").resolve()
    codes, vocabulary = bank.column("label")
    assert vocabulary == ["apple", "pear", "zebra"]
    assert codes.dtype == np.int32
    assert codes[:5].tolist() == [1, 0, -1, 2, 1]
    assert bank.column("split")[0][:3].tolist() == [1, 0, 1]
    assert len(bank.column("group")[1]) == ROWS // 3
    assert bank == open_or_create(tmp_path / "bank", manifest)
    with pytest.raises(BankError, match="column 'uri'"):
        bank.column("uri")


def test_other_images_or_another_grid_are_refused_and_nothing_changes(tmp_path: Path) -> None:
    bank_of(tmp_path)
    before = content(tmp_path / "bank")
    with pytest.raises(BankError, match="other images"):
        open_or_create(tmp_path / "bank", make_manifest(tmp_path, ROWS + 1))
    with pytest.raises(BankError, match="128 rows a chunk"):
        open_or_create(tmp_path / "bank", make_manifest(tmp_path, ROWS), chunk_rows=128)
    with pytest.raises(BankError, match="0 rows a chunk"):
        open_or_create(tmp_path / "other", make_manifest(tmp_path, ROWS), chunk_rows=0)
    assert content(tmp_path / "bank") == before
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "foreign", ["notes.txt", "zarr.json/x", ".embank/stranger", "photos/1.png", ".zgroup"]
)
def test_foreign_directories_are_refused_untouched(tmp_path: Path, foreign: str) -> None:
    path = tmp_path / "bank" / foreign
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(BankError, match=r"and no embank\.json"):
        bank_of(tmp_path)
    assert [each for each in (tmp_path / "bank").rglob("*") if each.is_file()] == [path]


def test_a_zarr_store_of_others_is_refused(tmp_path: Path) -> None:
    import zarr

    zarr.create_group(tmp_path / "bank")
    with pytest.raises(BankError, match=r"zarr\.json and no embank\.json"):
        bank_of(tmp_path)


def test_a_file_is_no_bank(tmp_path: Path) -> None:
    (tmp_path / "bank").write_text("mine")
    with pytest.raises(BankError, match="not a directory"):
        bank_of(tmp_path)


@pytest.mark.parametrize("version", [0, 2])
def test_other_schema_versions_are_refused(tmp_path: Path, version: int) -> None:
    bank_of(tmp_path)
    path = tmp_path / "bank" / "embank.json"
    path.write_bytes(documents.encode({**documents.read(path), "schema": version}))
    with pytest.raises(BankError, match=f"schema version {version}"):
        Bank.open(tmp_path / "bank")
    with pytest.raises(BankError, match=f"schema version {version}"):
        bank_of(tmp_path)


def _make(root: Path, barrier: "multiprocessing.synchronize.Barrier") -> None:
    manifest = make_manifest(root, ROWS)
    barrier.wait()
    open_or_create(root / "bank", manifest, chunk_rows=64)


@pytest.mark.slow
def test_two_processes_make_one_bank(tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    bank_of(tmp_path / "alone")
    (tmp_path / "race").mkdir()
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    racers = [context.Process(target=_make, args=(tmp_path / "race", barrier)) for _ in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    assert [racer.exitcode for racer in racers] == [0, 0]
    assert content(tmp_path / "race" / "bank") == content(tmp_path / "alone" / "bank")


def test_a_second_coordinator_is_refused_by_name(tmp_path: Path) -> None:
    bank = bank_of(tmp_path)
    key = make_key(bank.image_digest)
    with FeatureWriter(bank, key, DIM), pytest.raises(Refused, match=f"process {os.getpid()}") as caught:
        FeatureWriter(bank, key, DIM)
    assert "wait for process" in caught.value.remedy
    with FeatureWriter(bank, key, DIM), FeatureWriter(bank, make_key(bank.image_digest, layer="other"), DIM):
        pass
    with FeatureWriter(bank, key, DIM):
        pass


def test_a_second_process_is_refused_and_a_dead_one_is_not_waited_for(tmp_path: Path) -> None:
    bank = bank_of(tmp_path)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import os, sys, time; from pathlib import Path; from tests.stores.banks import *\n"
            "bank = Bank.open(sys.argv[1]); FeatureWriter(bank, make_key(bank.image_digest), 6).__enter__()\n"
            "from multiprocessing import get_context\n"
            "def child(): print(os.getpid(), flush=True); time.sleep(60)\n"
            "get_context('fork').Process(target=child).start(); time.sleep(60)",
            str(bank.path),
        ],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
        text=True,
    )
    assert holder.stdout is not None
    orphan = int(holder.stdout.readline())
    try:
        with pytest.raises(Refused, match=f"process {holder.pid}"):
            FeatureWriter(bank, make_key(bank.image_digest), DIM)
        holder.kill()
        holder.wait()
        # The child that it forked lives on, and must not keep the lock.
        os.kill(orphan, 0)
        fill(bank, make_key(bank.image_digest), DIM)
    finally:
        holder.kill()
        os.kill(orphan, 9)
        holder.stdout.close()


def test_keys_of_other_images_and_other_dims_are_refused(tmp_path: Path) -> None:
    bank = make_bank(tmp_path / "bank", ROWS, DIM)
    with pytest.raises(BankError, match="feature key for images"):
        FeatureWriter(bank, make_key("0" * 64), DIM)
    with pytest.raises(BankError, match="of another feature"):
        FeatureWriter(bank, make_key(bank.image_digest), DIM + 1)
    with FeatureWriter(bank, make_key(bank.image_digest), DIM) as writer:
        assert writer.todo == []


def test_sealing_needs_all_chunks_and_may_be_repeated(tmp_path: Path) -> None:
    bank = bank_of(tmp_path)
    key = make_key(bank.image_digest)
    with FeatureWriter(bank, key, DIM) as writer:
        assert writer.todo == [0, 1, 2]
        assert [writer.bounds(i) for i in writer.todo] == [(0, 64), (64, 128), (128, 150)]
        assert writer.commit(chunk_result(1, 64, 128, DIM))
        assert not writer.commit(chunk_result(1, 64, 128, DIM))
        assert writer.todo == [0, 2]
        with pytest.raises(BankError, match="2 of 3 chunks"):
            writer.seal()
        with pytest.raises(BankError, match="not finished"):
            bank.features(key.name)
        with pytest.raises(BankError, match="not finished"):
            bank.features()
    fill(bank, key, DIM)
    before = content(bank.path)
    with FeatureWriter(bank, key, DIM) as writer:
        seal = writer.seal()
    assert (seal.rows, seal.ok, seal.failed) == (150, 145, 5)
    assert content(bank.path) == before


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[9] ^= 4
    path.write_bytes(data)


def test_sealing_again_reads_only_what_was_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity, "SETTLED_NS", 0)
    bank = bank_of(tmp_path)
    key = make_key(bank.image_digest)
    fill(bank, key, DIM)
    with FeatureWriter(bank, key, DIM) as writer:
        time.sleep(0.02)
        writer.seal()
        monkeypatch.setattr(LocalBackend, "digest", lambda self, path, *_: pytest.fail(f"{path} was read"))
        writer.seal()
        monkeypatch.undo()
        damage(bank.path / writer.layout.chunk_file("norm", 1))
        with pytest.raises(BankError, match="Chunk 1 of"):
            writer.seal()


def test_a_seal_vouches_for_no_damage(tmp_path: Path) -> None:
    bank = bank_of(tmp_path)
    key = make_key(bank.image_digest)
    with FeatureWriter(bank, key, DIM) as writer:
        for index in writer.todo:
            writer.commit(chunk_result(index, *writer.bounds(index), DIM))
        damage(bank.path / writer.layout.chunk_file("norm", 1))
        with pytest.raises(BankError, match="Chunk 1 of"):
            writer.seal()
    assert not bank.is_sealed(key.name)


def test_starting_clears_what_a_dead_run_left(tmp_path: Path) -> None:
    bank = bank_of(tmp_path)
    key = make_key(bank.image_digest)
    other = make_key(bank.image_digest, layer="other")
    with FeatureWriter(bank, key, DIM) as writer:
        for index in (0, 1):
            writer.commit(chunk_result(index, *writer.bounds(index), DIM))
        layout = writer.layout
    orphan = files.temporary(bank.path / ".embank" / "tmp", key.name)
    neighbour = files.temporary(bank.path / ".embank" / "tmp", other.name)
    orphan.write_bytes(b"half")
    neighbour.write_bytes(b"half")
    unmarked = bank.path / layout.chunk_file("embedding", 2)
    unmarked.parent.mkdir()
    unmarked.write_bytes(b"torn")
    (bank.path / layout.chunk_file("norm", 1)).write_bytes(b"short")
    with FeatureWriter(bank, key, DIM) as writer:
        assert writer.todo == [1, 2]
    assert not orphan.exists()
    assert neighbour.exists(), "another feature's temporary may be in use"
    assert not unmarked.exists()
    assert len(list((bank.path / ".embank" / "quarantine").rglob("*norm*"))) == 1
    neighbour.unlink()
    fill(bank, key, DIM)
    (tmp_path / "again").mkdir()
    assert content(bank.path) == content(make_bank(tmp_path / "again" / "bank", ROWS, DIM).path)


def test_a_marker_of_another_chunk_does_not_count(tmp_path: Path) -> None:
    bank = bank_of(tmp_path)
    with FeatureWriter(bank, make_key(bank.image_digest), DIM) as writer:
        writer.commit(chunk_result(0, 0, 64, DIM))
        markers = writer.layout.side / "markers"
    (markers / "000001.json").write_bytes((markers / "000000.json").read_bytes())
    with FeatureWriter(bank, make_key(bank.image_digest), DIM) as writer:
        assert writer.todo == [1, 2]


def test_another_list_of_labels_for_the_same_images_keeps_the_banks_own(tmp_path: Path) -> None:
    from stores.manifest.manifest import Manifest

    bank = bank_of(tmp_path)
    frame = make_manifest(tmp_path, ROWS).frame.copy()
    frame["label"] = "new"
    opened = open_or_create(bank.path, Manifest.from_frame(frame, tmp_path / "images"))
    assert opened.column("label")[1] == ["apple", "pear", "zebra"]


def test_a_lost_manifest_is_put_back(tmp_path: Path) -> None:
    bank = bank_of(tmp_path)
    before = content(bank.path)
    (bank.path / "manifest.parquet").write_bytes(b"damaged")
    with pytest.raises(BankError, match="damaged"):
        bank.manifest()
    bank_of(tmp_path)
    assert content(bank.path) == before


def test_a_lost_manifest_is_put_back_though_the_bank_has_moved(tmp_path: Path) -> None:
    """Its root is then another relative path, so its bytes differ and the run document must follow."""
    bank = make_bank(tmp_path / "bank", ROWS, DIM)
    array = bank.features().array.copy()
    (tmp_path / "far" / "away").mkdir(parents=True)
    moved = bank.path.rename(tmp_path / "far" / "away" / "bank")
    (moved / "manifest.parquet").unlink()
    assert [each.path for each in verify(moved).damaged] == ["manifest.parquet"]
    opened = open_or_create(moved, make_manifest(tmp_path, ROWS))
    assert opened.manifest().root.resolve() == (tmp_path / "images").resolve()
    assert verify(moved).ok
    np.testing.assert_array_equal(Bank.open(moved).features().array, array)


def test_a_run_that_died_at_once_is_no_feature(tmp_path: Path) -> None:
    bank = bank_of(tmp_path)
    key = make_key(bank.image_digest)
    (bank.path / ".embank" / key.name).mkdir()
    (bank.path / ".embank" / key.name / "lock").touch()
    assert bank.list() == []
    assert verify(bank).ok
    fill(bank, key, DIM)
    assert len(bank.list()) == 1


def test_provenance_and_certificate_are_kept_and_replaced(tmp_path: Path) -> None:
    bank = bank_of(tmp_path)
    key = make_key(bank.image_digest)
    with pytest.raises(BankError):
        write_certificate(bank, key, {"cosine": 1.0})
    with FeatureWriter(bank, key, DIM) as writer:
        writer.write_provenance({"device": "cpu"})
        writer.write_provenance({"device": "cuda:0"})
    write_certificate(bank, key, {"cosine": 0.99999})
    shown = bank.describe(key.name, failures=True)
    assert shown["provenance"] == bank.provenance(key.name) == {"device": "cuda:0"}
    assert shown["certificate"] == {"cosine": 0.99999}
    assert shown["failures"] == []
    assert shown["counts"]["pending"] == ROWS


def test_rows_that_cannot_be_stored_are_counted(tmp_path: Path) -> None:
    bank = bank_of(tmp_path, 10)
    values = embeddings(10, DIM)
    values[2], values[7, 0] = 1e5, np.nan
    from stores.bank.keys import ChunkResult

    with FeatureWriter(bank, make_key(bank.image_digest), DIM) as writer:
        writer.commit(ChunkResult(0, values, np.ones(10, bool)))
        seal = writer.seal()
    assert (seal.ok, seal.failed) == (8, 2)
    assert [(f.row, f.code) for f in bank.features().failures()] == [(2, "overflow"), (7, "non_finite")]
    assert np.flatnonzero(~bank.features().ok).tolist() == [2, 7]
