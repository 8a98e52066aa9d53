"""Simulate power cuts on a disk that keeps only what was synced (`benchmarks.faults.disk`), and resume.

    python -m benchmarks.faults.power [--runs 100] [--json]

A run is recorded at its system calls, cut at one of them, resumed on what survives, and cut again. No
committed chunk may be lost, no marker may be false, and the bank must end up identical to an undisturbed one.
Then the protocol is broken on purpose in several ways, and each of these mutants must be detected.
"""

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
    false_markers,
    make_bank,
    make_key,
    make_manifest,
    nothing,
    patched,
    quick_folder,
)
from benchmarks.faults.disk import Disk
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
#: Power cuts of a bank before it may finish, at most.
CUTS_A_BANK = 3
#: Cuts after which a mutant counts as not detected.
MUTANT_CUTS = 300


def run(
    *, runs: int = 100, seed: int = 0, mutants: bool = True, say: Callable[[str], None] = common.say
) -> dict[str, Any]:
    """Cut runs and resume them.

    Args:
        runs: number of cuts.
        seed: of the moments of cuts, and of what survives.
        mutants: whether to test broken protocols as well.

    Returns:
        `{ok, cuts, banks, fell, mutants: {name: cuts until detected, or None}, problems}`, where `fell`
        counts cuts by the stage of the run.
    """
    with quick_folder() as folder:
        trial = _Trial(folder)
        outcome = trial.torment(runs, random.Random(seed))
        say(f"{outcome.cuts} cuts, {outcome.banks} banks, {len(outcome.problems)} problems")
        detected: dict[str, int | None] = {}
        for name in MUTANTS if mutants else ():
            with races.mutated(MUTANTS[name]):
                mutant_outcome = trial.torment(MUTANT_CUTS, random.Random(seed), until_caught=True)
            detected[name] = mutant_outcome.cuts if mutant_outcome.problems else None
            say(f"mutant {name}: caught after {detected[name]} cuts: {mutant_outcome.problems[:1]}")
    return {
        "ok": not outcome.problems and None not in detected.values(),
        "cuts": outcome.cuts,
        "banks": outcome.banks,
        "fell": dict(sorted(outcome.fell.items())),
        "mutants": detected,
        "problems": outcome.problems,
        "seed": seed,
    }


# ---- trials


class _Cut(BaseException):
    """A power cut."""


@dataclass
class _Outcome:
    """Counts and problems so far."""

    cuts: int = 0
    banks: int = 0
    fell: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


class _Trial:
    """A job, its undisturbed bank, and banks that suffer power cuts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "truth").mkdir()
        with patched(Os(nothing)):
            truth = make_bank(folder / "truth" / "bank", ROWS, DIM, CHUNK)
        self.wanted = content(folder / "truth" / "bank")
        self.feature = make_key(truth.image_digest).name

    def torment(self, cuts: int, chance: random.Random, *, until_caught: bool = False) -> _Outcome:
        """Apply `cuts` power cuts to banks, and finish each bank."""
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
            outcome.problems += [f"bank {outcome.banks}: {problem}" for problem in self._differences(place)]
        except EmbankError as error:
            outcome.problems.append(f"bank {outcome.banks}: no resume after cut {outcome.cuts}: {error}")

    def _one_cut(self, place: Path, chance: random.Random, outcome: _Outcome) -> None:
        """Work, cut the power, replace the bank by what survives, and check it."""
        promised: list[str] = []
        disk = self._cut_short(place, chance, promised)
        survivors = place.with_name("left")
        shutil.rmtree(survivors, ignore_errors=True)
        disk.survivors(survivors, chance)
        shutil.rmtree(place)
        survivors.rename(place)
        outcome.cuts += 1
        outcome.fell[_stage(promised)] += 1
        outcome.problems += [f"cut {outcome.cuts}: {problem}" for problem in self._broken(place, promised)]

    def _cut_short(self, place: Path, chance: random.Random, promised: list[str]) -> Disk:
        """Work until a random change to the disk; a complete run on a copy counts the changes first."""
        copy = place.with_name("copy")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(place, copy)
        total = self._run(copy, promised, lambda count: None).changes
        shutil.rmtree(copy)
        cut_at = chance.randint(1, total)

        def tick(count: int) -> None:
            if count >= cut_at:
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
        """Do the complete run; append to `promised` what has been confirmed to the caller so far."""
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
        """Yield the promises that do not hold after the cut."""
        bank = place / "bank"
        if promised and not (bank / "embank.json").is_file():
            yield "the bank is lost"
            return
        yield from (f"a false marker: {marker}" for marker in false_markers(bank, self.feature))
        present = {int(path.stem) for path in _markers(bank, self.feature) if _is_complete(path)}
        for item in promised:
            if item.isdecimal() and int(item) not in present:
                yield f"chunk {item} was committed and is lost"
        if "seal" in promised and not (bank / ".embank" / self.feature / "seal.json").exists():
            yield "the seal is lost"

    def _differences(self, place: Path) -> Iterator[str]:
        contents = content(place / "bank")
        for name in sorted(contents.keys() ^ self.wanted.keys()):
            yield f"{name} is there in one bank only"
        for name in sorted(contents.keys() & self.wanted.keys()):
            if contents[name] != self.wanted[name]:
                yield f"{name} differs from the undisturbed bank's"
        yield from (f"verify: {d.path}: {d.reason}" for d in verify(place / "bank").damaged)


def _stage(promised: Sequence[str]) -> str:
    if not promised:
        return "1 before the bank"
    if promised[-1] == "seal":
        return "4 after the seal"
    return "2 before a chunk" if promised[-1] == "bank" else "3 between first chunk and seal"


def _markers(bank: Path, feature: str) -> list[Path]:
    return sorted((bank / ".embank" / feature / "markers").glob("*.json"))


def _is_complete(path: Path) -> bool:
    try:
        return documents.read_if_there(path) is not None
    except documents.BrokenDocument:
        return False


# ---- broken protocols


def _data_synced_after_the_marker(self: Committer, chunk: EncodedChunk) -> bool:
    """Mutant: sync the marker before the data it refers to."""
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
    """Run the command line; exit with 1 if a promise was broken or a mutant was not detected."""
    parser = common.parser(__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    result = run(runs=options.runs, seed=options.seed)
    result["machine"] = common.machine()
    rows = [[name, at or "lives"] for name, at in result["mutants"].items()]
    verdict = (
        "\n".join(result["problems"]) or "no committed row lost, no false marker, every bank bit-identical"
    )
    table = common.markdown_table(["mutant", "caught after cuts"], rows)
    common.finish(result, f"{table}\n{result['cuts']} cuts, {result['banks']} banks: {verdict}", options)
    raise SystemExit(0 if result["ok"] else 1)


if __name__ == "__main__":
    main()
