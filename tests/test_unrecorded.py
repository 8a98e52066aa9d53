"""Results are printed, whatever becomes of their record: exit 0 on a read-only bank, 3 on a full disk."""

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from stores.bank.reader import Bank
from stores.bank.records import RunRecord, keep, read_all, together
from tests.command import Ran, embank
from tests.stores.banks import Os, content, make_bank, patched
from tests.studies import MODEL, make_study

pytestmark = pytest.mark.slow

CHANGING = ("mkdir", "link", "replace", "unlink")
COMMANDS = {
    "fewshot": "--n-way 2 --n-shot 3 --n-query 3 --episodes 20",
    "knn": "--k 1 --device cpu",
    "probe": "--values 2 --bootstrap 0 --device cpu",
    "search": "--id c0/00.png -k 3",
    "bank audit": "--threshold 0.5",
    "invariance": "--transform rotation --views 4 --images 4 --device cpu",
    "saliency": "--images 1 --stride 10 --threads 1 --device cpu",
}


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("unrecorded"), 24) / "bank"


def denying(code: int, where: Path) -> Callable[[int, str, tuple[Any, ...]], None]:
    """No file or folder below `where` is made, written or removed: a read-only or a full file system."""

    def before(count: int, name: str, args: tuple[Any, ...]) -> None:
        target = str(args[-1 if name in ("link", "replace") else 0]) if args else ""
        inside = target.startswith(f"{where}{os.sep}")
        makes = name == "open" and args[1] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        there = name == "mkdir" and Path(args[0]).exists()  # EEXIST goes first
        if inside and not there and (makes or name in CHANGING):
            raise OSError(code, os.strerror(code))

    return before


def run(bank: Path, command: str, code: int | None, *more: object, where: Path | None = None) -> Ran:
    words = (*command.split(), bank, "--model", MODEL, *COMMANDS[command].split(), *more)
    if code is None:
        return embank(*words)
    with patched(Os(denying(code, where or bank))):
        return embank(*words)


def numbers(found: Any) -> Any:
    """A result without clocks, keys of what was kept, and the record."""
    apart = (
        "seconds", "stages", "record", "record_reason", "map", "computed", "places_per_s", "views_made",
        "views_kept", "covariance", "img_per_s",
    )  # fmt: skip
    if isinstance(found, dict):
        return {name: numbers(value) for name, value in found.items() if name not in apart}
    return [numbers(value) for value in found] if isinstance(found, list) else found


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("code", "exit_code"), [(errno.EROFS, 0), (errno.EACCES, 0), (errno.ENOSPC, 3), (errno.EIO, 3)]
)
def test_the_numbers_are_printed_and_a_line_says_that_no_record_was_kept(
    bank: Path, command: str, code: int, exit_code: int
) -> None:
    before = content(bank)
    ran = run(bank, command, code, "--json")
    assert ran.code == exit_code, ran.err
    assert "No record was kept" in ran.err and os.strerror(code) in ran.err
    assert (ran.json["record"], os.strerror(code) in ran.json["record_reason"]) == (None, True)
    assert content(bank) == before
    if code == errno.EROFS:
        printed = run(bank, command, code)
        assert printed.code == 0 and len(printed.out) > 40
    kept = len(read_all(bank))
    usual = run(bank, command, None, "--json")
    assert usual.code == 0 and "record" not in usual.json and len(read_all(bank)) == kept + 1
    assert numbers(usual.json) == numbers(ran.json)
    restore(bank, before)


@pytest.mark.parametrize("command", ["fewshot", "saliency", "invariance"])
def test_on_a_real_file_system(bank: Path, command: str, tmp_path: Path) -> None:
    """A full one, then a read-only one; where this user may mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if shutil.which("mount") is None or _mount("-t", "tmpfs", "-o", "size=2m", "none", disk) != 0:
        pytest.skip("mounting is not permitted")
    try:
        for name in ("bank", "images"):
            shutil.copytree(bank.parent / name, disk / name)
        with suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
        full = run(disk / "bank", command, None, "--json")
        assert (full.code, full.json["record"]) == (3, None), full.err
        (disk / "filler").unlink()
        assert _mount("-o", "remount,ro", disk) == 0
        ran = run(disk / "bank", command, None, "--json")
        assert (ran.code, ran.json["record"]) == (0, None), ran.err
        assert numbers(ran.json) == numbers(full.json)
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)  # features are mapped


def _mount(*words: object) -> int:
    return subprocess.run(["mount", *map(str, words)], capture_output=True, check=False).returncode


def restore(bank: Path, before: dict[str, bytes]) -> None:
    """Take away what the usual run kept, so that the next case computes it again."""
    for relative in content(bank).keys() - before.keys():
        (bank / relative).unlink()


def test_a_picture_that_cannot_be_written_does_not_take_the_numbers_with_it(
    bank: Path, tmp_path: Path
) -> None:
    for command, option, name in (
        ("search", "-o", "s.png"),
        ("probe", "-o", "p.svg"),
        ("bank audit", "-o", "pairs.tex"),
        ("bank audit", "--sheet", "pairs.pdf"),
        ("invariance", "--figure", "f.png"),
        ("saliency", "-o", "maps"),
    ):
        kept = len(read_all(bank))
        ran = run(bank, command, errno.ENOSPC, option, tmp_path / name, "--json", where=tmp_path)
        assert (ran.code, "Not written" in ran.err, os.strerror(errno.ENOSPC) in ran.err) == (
            3,
            True,
            True,
        ), command
        assert ran.json and len(read_all(bank)) == kept + 1
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_several_models_are_recorded_together_or_not_at_all(tmp_path: Path) -> None:
    bank = make_bank(tmp_path / "bank", 150, 4)
    record = RunRecord.now("knn", asked={}, used={}, metrics={}, seconds={})
    with pytest.raises(ZeroDivisionError), together():
        keep(record, bank.path, {})
        raise ZeroDivisionError
    assert read_all(bank.path) == []
    with together() as batch, together():
        keep(record, bank.path, {})
        assert read_all(bank.path) == []
    assert read_all(bank.path) == [record] and batch.lost == []
    slug = Bank.open(bank.path).list()[0].key.model
    ran = embank("knn", bank.path, "--leave-one-out", "--k", 1, "--model", slug, "--model", "nothing")
    assert ran.code == 2 and read_all(bank.path) == [record]
