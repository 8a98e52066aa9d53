"""What vouches for bytes that are not read again counts only where nobody else can have written it."""

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from stores.backends import private
from stores.bank import documents, integrity
from stores.bank.reader import Bank
from stores.bank.seal import seal_path
from stores.errors import BankError
from stores.maintenance.verify import verify
from tests.stores.banks import flip, make_bank

ROWS, DIM, CHUNK = 80, 4, 32


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    return make_bank(tmp_path / "bank", ROWS, DIM, CHUNK)


def forge(bank: Bank, path: Path) -> None:
    """Stamps of the files as they are, whatever they are: what verify would write of a whole feature."""
    name = bank.list()[0].name
    seal = seal_path(bank.path, name)
    relatives = [p.relative_to(bank.path).as_posix() for p in bank.path.rglob("*") if p.is_file()]
    stamps = {}
    for relative in relatives:
        state = (bank.path / relative).stat()
        stamps[relative] = [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
    import hashlib

    body = {"seal": hashlib.sha256(seal.read_bytes()).hexdigest(), "files": stamps}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(documents.encode(body))


def test_stamps_that_come_with_a_bank_vouch_for_nothing(bank: Bank) -> None:
    flip(next(bank.path.glob("*/embedding/c/1/0")))
    forge(bank, bank.path / ".embank" / bank.list()[0].name / "stamps.json")
    with pytest.raises(BankError, match="Chunk 1 of"):
        bank.features()


@pytest.mark.parametrize("how", ["writable", "folder", "link", "another user"])
def test_stamps_that_others_could_have_written_vouch_for_nothing(
    bank: Bank, tmp_path: Path, how: str
) -> None:
    flip(next(bank.path.glob("*/embedding/c/1/0")))
    path = integrity._stamps_file(bank.path, bank.list()[0].name)
    assert path is not None
    forge(bank, path)
    bank.features()  # In a folder of one's own they do.
    before = path.parent.stat().st_mode
    try:
        if how == "writable":
            path.chmod(0o666)
        elif how == "folder":
            path.parent.chmod(0o777)
        elif how == "link":
            path.rename(tmp_path / "elsewhere")
            path.symlink_to(tmp_path / "elsewhere")
        elif os.geteuid() == 0:
            os.chown(path, 12345, 12345)
        else:
            pytest.skip("only root can give a file away")
        with pytest.raises(BankError, match="Chunk 1 of"):
            bank.features()
    finally:
        path.parent.chmod(before)


def test_a_bank_that_cannot_be_written_is_read_once(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its stamps lie with the user: a bank that belongs to somebody else opens as quickly as one's own."""
    monkeypatch.setattr(integrity, "SETTLED_NS", 0)
    time.sleep(0.02)
    before = sorted(bank.path.rglob("*"))
    bank.features()
    assert sorted(bank.path.rglob("*")) == before
    monkeypatch.setattr(integrity, "find_broken", lambda *_: pytest.fail("read again"))
    bank.features()


def test_a_copy_is_another_bank(bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integrity, "SETTLED_NS", 0)
    time.sleep(0.02)
    assert verify(bank).ok
    shutil.copytree(bank.path, tmp_path / "copy")
    flip(next((tmp_path / "copy").glob("*/embedding/c/1/0")))
    with pytest.raises(BankError, match="Chunk 1 of"):
        Bank.open(tmp_path / "copy").features()
    np.testing.assert_array_equal(bank.features().ok, Bank.open(bank.path).features().ok)


@pytest.mark.parametrize("home", ["none", "file", "open to all"])
def test_without_a_folder_of_ones_own_everything_is_read(
    bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str
) -> None:
    place = tmp_path / "state"
    if home == "none":

        def homeless(path: Path) -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.delenv("XDG_STATE_HOME")
        monkeypatch.setattr(Path, "expanduser", homeless)
    else:
        monkeypatch.setenv("XDG_STATE_HOME", str(place))
        if home == "file":
            place.write_text("no folder")
        else:
            (place / "embank" / "stamps").mkdir(parents=True)
            (place / "embank" / "stamps").chmod(0o777)
    assert private.state_folder("stamps") is None
    assert verify(bank).ok
    bank.features()
    flip(next(bank.path.glob("*/embedding/c/1/0")))
    with pytest.raises(BankError, match="Chunk 1 of"):
        bank.features()


def test_folders_are_made_for_this_user_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        private.make_folder(tmp_path / "a" / "b")
    finally:
        os.umask(before)
    assert [(tmp_path / each).stat().st_mode & 0o777 for each in ("a", "a/b")] == [0o700, 0o700]
