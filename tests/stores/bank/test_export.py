"""Exports: the same values, read back by numpy, pyarrow and csv."""

import csv
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from stores.bank import export as export_module
from stores.bank.export import UNFINISHED, export, export_all, spreadsheet_safe
from stores.bank.keys import ChunkResult, Failure
from stores.bank.reader import Bank
from stores.bank.writer import FeatureWriter, open_or_create
from stores.errors import BankError
from stores.manifest.manifest import Manifest
from tests.stores.banks import Os, embeddings, is_bad, make_bank, make_key, patched

ROWS, DIM = 5000, 6
BAD = np.array([is_bad(row) for row in range(ROWS)])


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_bank(tmp_path_factory.mktemp("export") / "bank", ROWS, DIM, 1024)


def expected() -> np.ndarray:
    values = embeddings(ROWS, DIM).astype(np.float16).astype(np.float32)
    values[BAD] = np.nan
    return values


def test_npy(bank: Bank, tmp_path: Path) -> None:
    paths = export(bank.features(), tmp_path / "out", "npy")
    assert sorted(path.name for path in paths) == sorted(path.name for path in (tmp_path / "out").iterdir())
    values = np.load(tmp_path / "out" / "embeddings.npy", allow_pickle=False)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, expected())
    status = np.load(tmp_path / "out" / "status.npy", allow_pickle=False)
    assert status.dtype == np.uint8
    np.testing.assert_array_equal(status, np.where(BAD, 2, 1))
    manifest = pd.read_parquet(tmp_path / "out" / "manifest.parquet")
    assert manifest["image_id"].tolist() == [f"image {row:05d}" for row in range(ROWS)]
    moved = Manifest.read(tmp_path / "out" / "manifest.parquet")
    assert moved.root.resolve() == bank.manifest().root.resolve()
    assert moved.digest == bank.manifest_digest


def test_float32_features_keep_every_bit(tmp_path: Path) -> None:
    bank = make_bank(tmp_path / "bank", 100, DIM, dtype="float32")
    export(bank.features(), tmp_path / "out")
    values = np.load(tmp_path / "out" / "embeddings.npy")
    np.testing.assert_array_equal(values[~BAD[:100]], embeddings(100, DIM)[~BAD[:100]])


def test_parquet(bank: Bank, tmp_path: Path) -> None:
    export(bank.features(), tmp_path / "out", "parquet")
    table = pq.read_table(tmp_path / "out" / "embeddings.parquet")
    assert table["image_id"].to_pylist() == [f"image {row:05d}" for row in range(ROWS)]
    np.testing.assert_array_equal(table["status"].to_numpy(), np.where(BAD, 2, 1))
    values = np.array(table["embedding"].to_pylist(), np.float32)
    np.testing.assert_array_equal(values, expected())


def test_failures_are_listed(bank: Bank, tmp_path: Path) -> None:
    export(bank.features(), tmp_path, "npy")
    with (tmp_path / "failures.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["row"]) for row in rows] == np.flatnonzero(BAD).tolist()
    assert rows[0] == {
        "row": "5",
        "image_id": "image 00005",
        "uri": "00005.png",
        "code": "truncated",
        "detail": "cut off",
    }


def test_nothing_is_replaced_unasked(bank: Bank, tmp_path: Path) -> None:
    (tmp_path / "status.npy").write_text("mine")
    with pytest.raises(BankError, match="replaces nothing"):
        export(bank.features(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["status.npy"]
    export(bank.features(), tmp_path, overwrite=True)
    assert np.load(tmp_path / "status.npy").shape == (ROWS,)


def test_unknown_formats_are_refused(bank: Bank, tmp_path: Path) -> None:
    with pytest.raises(BankError, match="'hdf5'"):
        export(bank.features(), tmp_path / "out", "hdf5")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("cell", ["=HYPERLINK(1)", "+1", "-1", "@SUM", "\t=1", "\r=1"])
def test_formulas_are_quoted(cell: str) -> None:
    assert spreadsheet_safe(cell) == "'" + cell


@pytest.mark.parametrize("cell", ["", "00012", "NA", "a=1", "<script>"])
def test_other_cells_are_literal(cell: str) -> None:
    assert spreadsheet_safe(cell) == cell


def test_hostile_names_arrive_literally_and_harmless(tmp_path: Path) -> None:
    ids = ["=HYPERLINK()", "NA", "<script>", 'quo"te,comma']
    frame = pd.DataFrame({"image_id": ids, "uri": ["a.png", "b.png", "c.png", "d.png"]})
    bank = open_or_create(tmp_path / "bank", Manifest.from_frame(frame, tmp_path))
    with FeatureWriter(bank, make_key(bank.image_digest), 2) as writer:
        failures = tuple(Failure(row, "corrupt", "+danger") for row in range(4))
        writer.commit(ChunkResult(0, np.zeros((4, 2), np.float32), np.zeros(4, bool), failures))
        writer.seal()
    export(bank.features(), tmp_path / "out")
    with (tmp_path / "out" / "failures.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image_id"] for row in rows] == ["'=HYPERLINK()", *ids[1:]]
    assert {row["detail"] for row in rows} == {"'+danger"}
    assert pd.read_parquet(tmp_path / "out" / "manifest.parquet")["image_id"].tolist() == ids


def killed_at(touch: int, bank: Bank, out: Path, several: bool) -> bool:
    """Export in a child that dies at its n-th touch of the disk; whether it got so far."""
    pid = os.fork()
    if pid == 0:

        def die(count: int, name: str, args: tuple[object, ...]) -> None:
            if count == touch:
                os._exit(9)

        with patched(Os(die)):
            export_all([bank.features(info.name) for info in bank.list()[: 1 + several]], out)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9


@pytest.mark.slow
@pytest.mark.parametrize("several", [pytest.param(False, marks=pytest.mark.thorough), True])
def test_an_export_killed_anywhere_can_be_repeated(quick_path: Path, several: bool) -> None:
    bank = make_bank(quick_path / "bank", 40, DIM, 16)
    make_bank(quick_path / "bank", 40, DIM, 16, layer="other")
    chosen = [bank.features(info.name) for info in bank.list()[: 1 + several]]
    export_all(chosen, quick_path / "whole")
    expected = files_of(quick_path / "whole")
    assert UNFINISHED not in expected
    touch = 3 + several  # every fifth touch of the disk, others in each case: a fork takes long
    while killed_at(touch := touch + 5, bank, quick_path / f"{touch}", several):
        out = quick_path / f"{touch}"
        export_all(chosen, out)
        assert files_of(out) == expected, touch
        with pytest.raises(BankError, match="replaces nothing"):
            export_all(chosen, out)
    assert touch > 20


def files_of(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_an_interrupted_export_replaces_its_own_files_alone(
    bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(features: object, file: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(export_module, "_failures_csv", interrupt)
        export(bank.features(), tmp_path / "out")
    left = files_of(tmp_path / "out")
    assert {"embeddings.npy", "status.npy", UNFINISHED} == set(left)
    (tmp_path / "out" / "failures.csv").write_text(
        "mine"
    )  # since then, but under a name that was the export's
    (tmp_path / "out" / "embeddings.parquet").write_text("mine")
    with pytest.raises(BankError, match=r"embeddings\.parquet exists"):
        export(bank.features(), tmp_path / "out", "parquet")
    other = make_bank(tmp_path / "bank", 30, DIM)
    with pytest.raises(BankError, match="exists"):
        export(other.features(), tmp_path / "out")
    export(bank.features(), tmp_path / "out")
    assert not (tmp_path / "out" / UNFINISHED).exists()
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "embeddings.npy"), expected())
    assert (tmp_path / "out" / "embeddings.parquet").read_text() == "mine"
