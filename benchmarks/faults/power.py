"""Cut the power, on a model of a disk that keeps only what was synced, and see what the bank still promises.

    python -m benchmarks.faults.power [--runs 100] [--json]

A run is recorded at its system calls. At a cut, a file has the bytes of its last fsync, or any of what was
written since (all, a part, zeros); a name in a directory is as at the directory's last fsync, or as after any
of the changes since, each name for itself: the worst that POSIX allows, worse than any journal. The run is
resumed on what is left, and cut again. No committed chunk may be lost, no marker may lie, and the bank must
end as an undisturbed one. Then the protocol is broken on purpose; each mutant must be caught.
"""

# The stores' own primitives on purpose, see `stores.backends.local`.
# ruff: noqa: PTH102, PTH105, PTH108, PTH110

import errno
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.faults import races
from benchmarks.faults.banks import (
    Os,
    chunk_result,
    content,
    lies,
    make_bank,
    make_key,
    make_manifest,
    nothing,
    patched,
    quick_folder,
)
from benchmarks.speed import common
from stores.backends import disk, files
from stores.backends.local import LocalBackend
from stores.bank import documents
from stores.bank.commit import Committer, marker_document
from stores.bank.encode import EncodedChunk
from stores.bank.writer import FeatureWriter, open_or_create
from stores.errors import EmbankError, MachineFault
from stores.maintenance.verify import verify

ROWS, DIM, CHUNK = 80, 4, 16
#: Cuts that one bank suffers before it may finish.
CUTS_A_BANK = 3
#: A mutant that lives through so many cuts is not caught.
MUTANT_CUTS = 300


def run(
    *, runs: int = 100, seed: int = 0, mutants: bool = True, say: Callable[[str], None] = common.say
) -> dict[str, Any]:
    """Cut and resume.

    Args:
        runs: cuts.
        seed: of the moments, and of what survives.
        mutants: also cut with the protocol broken.

    Returns:
        `{ok, cuts, banks, fell, mutants: {name: cuts until it was caught, or None}, problems}`.
    """
    with quick_folder() as folder:
        trial = _Trial(folder)
        outcome = trial.torment(runs, random.Random(seed))
        say(f"{outcome.cuts} cuts, {outcome.banks} banks, {len(outcome.problems)} problems")
        killed: dict[str, int | None] = {}
        for name in MUTANTS if mutants else ():
            with races.mutated(MUTANTS[name]):
                found = trial.torment(MUTANT_CUTS, random.Random(seed), until_caught=True)
            killed[name] = found.cuts if found.problems else None
            say(f"mutant {name}: caught after {killed[name]} cuts: {found.problems[:1]}")
    return {
        "ok": not outcome.problems and None not in killed.values(),
        "cuts": outcome.cuts,
        "banks": outcome.banks,
        "fell": dict(sorted(outcome.fell.items())),
        "mutants": killed,
        "problems": outcome.problems,
        "seed": seed,
    }


# ---- the model


@dataclass
class _File:
    """A file's bytes as programs see them, and as the disk surely has them."""

    now: bytes = b""
    synced: bytes = b""


@dataclass
class _Folder:
    """Names: what each has been since the folder's last fsync, that first; None is absent."""

    names: dict[str, "list[_File | _Folder | None]"] = field(default_factory=dict)

    def now(self) -> "dict[str, _File | _Folder]":
        return {name: held for name, states in self.names.items() if (held := states[-1]) is not None}

    def change(self, name: str, held: "_File | _Folder | None") -> None:
        self.names.setdefault(name, [None]).append(held)

    def sync(self) -> None:
        self.names = {name: [states[-1]] for name, states in self.names.items()}


class Disk:
    """An `os` that does what it is told below `root`, and keeps account of what would survive.

    Args:
        root: a folder; what it holds now is on the disk.
        tick: called after each change with the number of changes so far; may raise to end the run there.
    """

    def __init__(self, root: Path, tick: Callable[[int], None]) -> None:
        self.root, self._tick, self.changes, self.dead = root, tick, 0, False
        self.top = _load(root)
        self._open: dict[int, _File | _Folder] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def _changed(self) -> None:
        self.changes += 1
        try:
            self._tick(self.changes)
        except BaseException:
            self.dead = True
            raise

    def _check_power(self) -> None:
        if self.dead:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def _find(self, path: Any) -> tuple[_Folder, str]:
        """The folder that holds a path, and its name there."""
        parts = Path(path).relative_to(self.root).parts
        folder = self.top
        for part in parts[:-1]:
            inner = folder.now()[part]
            assert isinstance(inner, _Folder)
            folder = inner
        return folder, parts[-1]

    def _held(self, path: Any) -> _File | _Folder:
        if Path(path) == self.root:
            return self.top
        folder, name = self._find(path)
        return folder.now()[name]

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        self._check_power()
        there = os.path.exists(path)
        descriptor = os.open(path, flags, mode)
        if Path(path).is_relative_to(self.root):
            if not there:
                folder, name = self._find(path)
                folder.change(name, _File())
                self._changed()
            self._open[descriptor] = self._held(path)
        return descriptor

    def close(self, descriptor: int) -> None:
        self._open.pop(descriptor, None)
        os.close(descriptor)

    def write(self, descriptor: int, data: Any) -> int:
        self._check_power()
        count = os.write(descriptor, data)
        self._refresh(descriptor)
        return count

    def pwrite(self, descriptor: int, data: Any, offset: int) -> int:
        self._check_power()
        count = os.pwrite(descriptor, data, offset)
        self._refresh(descriptor)
        return count

    def ftruncate(self, descriptor: int, size: int) -> None:
        self._check_power()
        os.ftruncate(descriptor, size)
        self._refresh(descriptor)

    def _refresh(self, descriptor: int) -> None:
        file = self._open[descriptor]
        assert isinstance(file, _File)
        file.now = _bytes_of(descriptor)
        self._changed()

    def fsync(self, descriptor: int) -> None:
        self._check_power()
        held = self._open[descriptor]
        if isinstance(held, _Folder):
            held.sync()
        else:
            held.now = held.synced = _bytes_of(descriptor)
        self._changed()

    def link(self, source: Any, target: Any) -> None:
        self._check_power()
        os.link(source, target)
        held = self._held(source)
        folder, name = self._find(target)
        folder.change(name, held)
        self._changed()

    def replace(self, source: Any, target: Any) -> None:
        self._check_power()
        os.replace(source, target)
        held = self._held(source)
        for path, now in ((target, held), (source, None)):
            folder, name = self._find(path)
            folder.change(name, now)
        self._changed()

    def unlink(self, path: Any) -> None:
        self._check_power()
        os.unlink(path)
        folder, name = self._find(path)
        folder.change(name, None)
        self._changed()

    def mkdir(self, path: Any, mode: int = 0o777) -> None:
        self._check_power()
        os.mkdir(path, mode)
        folder, name = self._find(path)
        folder.change(name, _Folder())
        self._changed()

    def survivors(self, target: Path, chance: random.Random) -> None:
        """Write to `target` one of the states that a power cut at this moment may leave."""
        _write_survivors(self.top, target, chance, chance.choice((0.0, 0.5, 1.0)))


def _bytes_of(descriptor: int) -> bytes:
    return Path(f"/proc/self/fd/{descriptor}").read_bytes()


def _load(path: Path) -> _Folder:
    folder = _Folder()
    for entry in path.iterdir():
        held: _File | _Folder
        held = _load(entry) if entry.is_dir() else _File(entry.read_bytes(), entry.read_bytes())
        folder.names[entry.name] = [held]
    return folder


def _write_survivors(folder: _Folder, target: Path, chance: random.Random, luck: float) -> None:
    """`luck`: 0 keeps what was synced, 1 all, anything between draws for each name."""
    target.mkdir()
    for name, states in folder.names.items():
        held = chance.choice(states) if 0 < luck < 1 else states[-1 if luck else 0]
        if isinstance(held, _Folder):
            _write_survivors(held, target / name, chance, luck)
        elif held is not None:
            (target / name).write_bytes(_bytes_left(held, chance))


def _bytes_left(file: _File, chance: random.Random) -> bytes:
    if file.now == file.synced:
        return file.now
    part = chance.randrange(len(file.now) + 1)
    zeros = file.now[:part] + bytes(len(file.now) - part)
    return chance.choice((file.synced, file.now, file.now[:part], zeros))


# ---- runs on it


class _Cut(BaseException):
    """The power has gone."""


@dataclass
class _Outcome:
    """What happened so far."""

    cuts: int = 0
    banks: int = 0
    fell: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


class _Trial:
    """One job, its undisturbed bank, and banks that are cut."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "truth").mkdir()
        with patched(Os(nothing)):
            truth = make_bank(folder / "truth" / "bank", ROWS, DIM, CHUNK)
        self.wanted = content(folder / "truth" / "bank")
        self.feature = make_key(truth.image_digest).name

    def torment(self, cuts: int, chance: random.Random, *, until_caught: bool = False) -> _Outcome:
        """Cut banks `cuts` times, and finish each."""
        outcome = _Outcome()
        while outcome.cuts < cuts and not (until_caught and outcome.problems):
            self._one_bank(min(chance.randint(1, CUTS_A_BANK), cuts - outcome.cuts), chance, outcome)
        return outcome

    def _one_bank(self, cuts: int, chance: random.Random, outcome: _Outcome) -> None:
        outcome.banks += 1
        place = self.folder / "place"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        try:
            for _ in range(cuts):
                self._one_cut(place, chance, outcome)
            with patched(Os(nothing)):
                self._work(place, [])
            outcome.problems += [f"bank {outcome.banks}: {each}" for each in self._differences(place)]
        except EmbankError as error:
            outcome.problems.append(f"bank {outcome.banks}: no resume after cut {outcome.cuts}: {error}")

    def _one_cut(self, place: Path, chance: random.Random, outcome: _Outcome) -> None:
        """Work, cut the power, put what is left in the bank's place, and look at it."""
        promised: list[str] = []
        disk = self._cut_short(place, chance, promised)
        left = place.with_name("left")
        shutil.rmtree(left, ignore_errors=True)
        disk.survivors(left, chance)
        shutil.rmtree(place)
        left.rename(place)
        outcome.cuts += 1
        outcome.fell[_stage(promised)] += 1
        outcome.problems += [f"cut {outcome.cuts}: {each}" for each in self._broken(place, promised)]

    def _cut_short(self, place: Path, chance: random.Random, promised: list[str]) -> Disk:
        """Work until a random change to the disk; as often as need be, to learn how many there are."""
        copy = place.with_name("copy")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(place, copy)
        total = self._run(copy, promised, lambda count: None).changes
        shutil.rmtree(copy)
        at = chance.randint(1, total)

        def tick(count: int) -> None:
            if count >= at:
                raise _Cut

        promised.clear()
        return self._run(place, promised, tick)

    def _run(self, place: Path, promised: list[str], tick: Callable[[int], None]) -> Disk:
        disk = Disk(place, tick)
        try:
            with patched(disk):
                self._work(place, promised)
        except (_Cut, MachineFault):
            if not disk.dead:
                raise
        return disk

    def _work(self, place: Path, promised: list[str]) -> None:
        """The whole run; notes what has been promised to whoever waits for it."""
        bank = open_or_create(place / "bank", make_manifest(place, ROWS), chunk_rows=CHUNK)
        promised.append("bank")
        with FeatureWriter(bank, make_key(bank.image_digest), DIM) as writer:
            promised += [str(index) for index in set(range(writer.layout.grid.chunks)) - set(writer.todo)]
            for index in writer.todo:
                writer.commit(chunk_result(index, *writer.bounds(index), DIM))
                promised.append(str(index))
            writer.seal()
        promised.append("seal")

    def _broken(self, place: Path, promised: Sequence[str]) -> Iterator[str]:
        """Promises that do not hold after the cut."""
        bank = place / "bank"
        if promised and not (bank / "embank.json").is_file():
            yield "the bank is lost"
            return
        yield from (f"a marker lies: {each}" for each in lies(bank, self.feature))
        whole = {int(path.stem) for path in _markers(bank, self.feature) if _is_whole(path)}
        for each in promised:
            if each.isdecimal() and int(each) not in whole:
                yield f"chunk {each} was committed and is lost"
        if "seal" in promised and not (bank / ".embank" / self.feature / "seal.json").exists():
            yield "the seal is lost"

    def _differences(self, place: Path) -> Iterator[str]:
        found = content(place / "bank")
        for name in sorted(found.keys() ^ self.wanted.keys()):
            yield f"{name} is there in one bank only"
        for name in sorted(found.keys() & self.wanted.keys()):
            if found[name] != self.wanted[name]:
                yield f"{name} differs from the undisturbed bank's"
        yield from (f"verify: {each.path}: {each.reason}" for each in verify(place / "bank").damaged)


def _stage(promised: Sequence[str]) -> str:
    if not promised:
        return "1 before the bank"
    if promised[-1] == "seal":
        return "4 after the seal"
    return "2 before a chunk" if promised[-1] == "bank" else "3 between first chunk and seal"


def _markers(bank: Path, feature: str) -> list[Path]:
    return sorted((bank / ".embank" / feature / "markers").glob("*.json"))


def _is_whole(path: Path) -> bool:
    try:
        return documents.read_if_there(path) is not None
    except documents.BrokenDocument:
        return False


# ---- the protocol, broken


def _data_synced_after_the_marker(self: Committer, chunk: EncodedChunk) -> bool:
    """The marker reaches the disk for sure, what it speaks of later."""
    with mock.patch.object(disk, "write_new", _write_unsynced):
        for path, data in chunk.files.items():
            self._create(path, data)
    marker = self.layout.root / self.layout.marker(chunk.index)
    made = documents.create(marker, marker_document(self.layout, chunk), self._temporary())
    for path in chunk.files:
        files.sync_file(self.layout.root / path)
    return made


def _write_unsynced(path: Path, data: Any) -> None:
    with mock.patch.object(disk.os, "fsync", lambda descriptor: None):  # type: ignore[attr-defined]
        _WRITE_NEW(path, data)


_WRITE_NEW = disk.write_new

MUTANTS: dict[str, races.Mutant] = {
    "marker synced before its data": (Committer, "commit_held", _data_synced_after_the_marker),
    "marker first": (Committer, "commit_held", races.marker_first),
    "names never synced": (LocalBackend, "sync_directory", lambda self, folder: None),
    "bytes never synced": (disk, "write_new", _write_unsynced),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; exits with 1 if a promise was broken or a mutant lived."""
    parser = common.parser(__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    result = run(runs=options.runs, seed=options.seed)
    result["machine"] = common.machine()
    rows = [[name, at or "lives"] for name, at in result["mutants"].items()]
    verdict = (
        "\n".join(result["problems"]) or "no committed row lost, no lying marker, every bank bit-identical"
    )
    table = common.markdown_table(["mutant", "caught after cuts"], rows)
    common.finish(result, f"{table}\n{result['cuts']} cuts, {result['banks']} banks: {verdict}", options)
    raise SystemExit(0 if result["ok"] else 1)


if __name__ == "__main__":
    main()
