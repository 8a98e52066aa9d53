"""Let every touch of the disk fail in turn: with ENOSPC and EIO, once and for good; then do the work again.

    python -m benchmarks.faults.io [--stride 1] [--job NAME ...] [--json]

The work: creating a bank, embedding into it, resuming, trying failed rows again, verifying, repairing,
putting damaged chunks back, mending documents, sealing, reading for an evaluation, writing records and
certificates, exporting, giving other labels. Nothing may pass in silence: either the work says what failed
(`MachineFault`), or its result is right. Done again without faults it ends as if there had been none.
"""

import errno
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.banks import (
    Os,
    chunk_result,
    content,
    embeddings,
    fill,
    lies,
    make_bank,
    make_key,
    make_manifest,
    nothing,
    patched,
    quick_folder,
)
from benchmarks.speed import common
from stores.bank.amend import amend_chunk, failures_of
from stores.bank.commit import Committer
from stores.bank.encode import encode
from stores.bank.export import export
from stores.bank.keys import ChunkResult
from stores.bank.reader import Bank
from stores.bank.records import RunRecord, read_all
from stores.bank.seal import definition
from stores.bank.writer import FeatureWriter, open_or_create, write_certificate
from stores.errors import MachineFault
from stores.maintenance.heal import heal_chunk, promise_of_chunk
from stores.maintenance.relabel import relabel
from stores.maintenance.verify import VerifyReport, quarantine, verify
from stores.manifest.manifest import Manifest

ROWS, DIM, CHUNK = 80, 4, 32
CODES = (errno.ENOSPC, errno.EIO)
#: Each code, once and for good.
MODES = [(code, sticky) for code in CODES for sticky in (False, True)]


def run(
    *, stride: int = 1, jobs: Sequence[str] = (), say: Callable[[str], None] = common.say
) -> dict[str, Any]:
    """Fail and do again.

    Args:
        stride: take every so many touches only; the modes then take turns instead of all being tried.
        jobs: names of `JOBS`; none means all.

    Returns:
        `{ok, faults, jobs: {name: {touches, faults, stopped}}, problems}`; `stopped` faults ended the work,
        the others harmed nobody.
    """
    report: dict[str, Any] = {}
    problems: list[str] = []
    with quick_folder() as folder:
        truth = _Truth(folder)
        for name in jobs or JOBS:
            trial = _Trial(name, JOBS[name](truth), folder / name)
            report[name] = trial.torment(stride)
            problems += trial.problems
            say(f"{name}: {report[name]}, {len(trial.problems)} problems")
    faults = sum(each["faults"] for each in report.values())
    return {"ok": not problems, "faults": faults, "stride": stride, "jobs": report, "problems": problems}


@dataclass(frozen=True)
class Job:
    """Work that is made to fail.

    Attributes:
        start: where it begins: a folder that is copied for each trial.
        work: in such a copy.
        wrong: what is wrong with its result there; told what `work` returned.
    """

    start: Path
    work: Callable[[Path], Any]
    wrong: Callable[[Path, Any], list[str]]


class _Trial:
    def __init__(self, name: str, job: Job, folder: Path) -> None:
        self.name, self.job, self.folder = name, job, folder
        self.lies = _lies(job.start)
        self.problems: list[str] = []

    def torment(self, stride: int) -> dict[str, int]:
        with patched(Os(nothing)) as fake:
            place = self._place()
            self._check(place, self.job.work(place), "undisturbed")
        stopped = faults = 0
        for turn, at in enumerate(range(1, fake.count + 1, stride)):
            for code, sticky in MODES if stride == 1 else [MODES[turn % len(MODES)]]:
                stopped += self._fail(at, code, sticky)
                faults += 1
        return {"touches": fake.count, "faults": faults, "stopped": stopped}

    def _place(self) -> Path:
        shutil.rmtree(self.folder, ignore_errors=True)
        return Path(shutil.copytree(self.job.start, self.folder))

    def _fail(self, at: int, code: int, sticky: bool) -> bool:
        """One trial; whether the fault ended the work."""
        place = self._place()
        when = f"{self.name}, touch {at}, {errno.errorcode[code]}{' for good' if sticky else ''}"
        stopped = False
        try:
            with patched(Os(failing(at, code, sticky))):
                result = self.job.work(place)
            self._check(place, result, when)
        except MachineFault as fault:
            stopped = True
            if os.strerror(code) not in str(fault):
                self.problems.append(f"{when}: the message hides it: {fault}")
        except Exception as error:
            self.problems.append(f"{when}: {type(error).__name__}: {error}")
        self.problems += [f"{when}: a marker lies: {lie}" for lie in sorted(_lies(place) - self.lies)]
        with patched(Os(nothing)):
            try:
                self._check(place, self.job.work(place), f"{when}, done again")
            except Exception as error:
                self.problems.append(f"{when}, done again: {type(error).__name__}: {error}")
        return stopped

    def _check(self, place: Path, result: Any, when: str) -> None:
        self.problems += [f"{when}: {each}" for each in self.job.wrong(place, result)]


def _lies(place: Path) -> set[str]:
    bank = place / "bank"
    return {lie for side in bank.glob(".embank/*/markers") for lie in lies(bank, side.parent.name)}


def failing(at: int, code: int, sticky: bool) -> Callable[[int, str, tuple[Any, ...]], None]:
    """A `before` for `Os` that fails at one touch, or from there on."""

    def before(count: int, name: str, args: tuple[Any, ...]) -> None:
        # A disk that fails for good still lets files be closed.
        if count == at or (sticky and count > at and name != "close"):
            raise OSError(code, os.strerror(code))

    return before


# ---- the jobs


class _Truth:
    """Banks in which nothing went wrong, each in a folder of its own, to start from and to compare with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "truth"
        self.empty, self.whole = self.new("empty"), self.new("whole")
        with patched(Os(nothing)):
            create(self.empty)
            self.bank = make_bank(self.whole / "bank", ROWS, DIM, CHUNK)
            self.key = make_key(self.bank.image_digest)

    def new(self, name: str, of: Path | None = None) -> Path:
        place = self.folder / name
        if of is None:
            place.mkdir(parents=True)
        else:
            shutil.copytree(of, place)
        return place

    def differs(self, wanted: Path) -> Callable[[Path, Any], list[str]]:
        """A check that compares all bytes with a true bank's, and has the bank verified."""
        truth = content(wanted / "bank")

        def wrong(place: Path, result: Any) -> list[str]:
            found = content(place / "bank")
            names = [name for name in found.keys() | truth.keys() if found.get(name) != truth.get(name)]
            return [f"{name} differs" for name in sorted(names)] + [
                f"verify: {each.path}: {each.reason}" for each in verify(place / "bank").damaged
            ]

        return wrong

    def damaged(self, name: str, *patterns: str) -> Path:
        """The whole bank with a flipped bit in the first file of each pattern."""
        place = self.new(name, self.whole)
        for pattern in patterns:
            path = min((place / "bank").glob(pattern))
            data = path.read_bytes()
            path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        return place


def create(place: Path) -> None:
    open_or_create(place / "bank", make_manifest(place, ROWS), chunk_rows=CHUNK)


def embed(place: Path) -> None:
    bank = Bank.open(place / "bank")
    fill(bank, make_key(bank.image_digest), DIM)


def repair(place: Path) -> None:
    quarantine(place / "bank", verify(place / "bank"))
    embed(place)


def _create(truth: _Truth) -> Job:
    return Job(truth.new("nothing"), create, truth.differs(truth.empty))


def _embed(truth: _Truth) -> Job:
    return Job(truth.empty, embed, truth.differs(truth.whole))


def _resume(truth: _Truth) -> Job:
    """One chunk done, another torn by a kill, a temporary left."""
    start = truth.new("stopped", truth.empty)
    bank = Bank.open(start / "bank")
    with FeatureWriter(bank, truth.key, DIM) as writer:
        writer.commit(chunk_result(0, *writer.bounds(0), DIM))
        torn = encode(chunk_result(1, *writer.bounds(1), DIM), writer.layout)
    path, data = next(iter(torn.files.items()))
    (start / "bank" / path).parent.mkdir(parents=True, exist_ok=True)
    (start / "bank" / path).write_bytes(bytes(data)[:-9])
    (start / "bank" / ".embank" / "tmp" / f"{truth.key.name}~left").write_bytes(b"left")
    return Job(start, embed, truth.differs(truth.whole))


def _seal(truth: _Truth) -> Job:
    """All chunks done, nothing else."""
    start = truth.new("unsealed", truth.empty)
    with FeatureWriter(Bank.open(start / "bank"), truth.key, DIM) as writer:
        for index in writer.todo:
            Committer(writer.layout).commit(chunk_result(index, *writer.bounds(index), DIM))
    return Job(start, embed, truth.differs(truth.whole))


def _repair(truth: _Truth) -> Job:
    start = truth.damaged(
        "chunks", "*/embedding/c/0/0", ".embank/*/markers/000001.json", "*/status/zarr.json"
    )
    return Job(start, repair, truth.differs(truth.whole))


def _amend(truth: _Truth) -> Job:
    """Rows that had failed are tried again, and have an embedding now; the others stay."""
    wanted = truth.new("amended", truth.empty)
    bank = Bank.open(wanted / "bank")
    with FeatureWriter(bank, truth.key, DIM) as writer:
        for index in writer.todo:
            writer.commit(_undamaged(index, *writer.bounds(index)))
        writer.seal()
    return Job(truth.whole, amend, truth.differs(wanted))


def _undamaged(index: int, start: int, stop: int) -> ChunkResult:
    """The chunk without failures."""
    result = chunk_result(index, start, stop, DIM)
    values = np.where(result.ok[:, None], result.embedding, embeddings(stop, DIM)[start:])
    return ChunkResult(index, values, np.ones(stop - start, bool), (), result.content)


def amend(place: Path) -> None:
    bank = Bank.open(place / "bank")
    with FeatureWriter(bank, make_key(bank.image_digest), DIM) as writer:
        for index, failures in failures_of(writer.layout).items():
            rows = [failure.row for failure in failures]
            amend_chunk(writer.layout, _undamaged(index, *writer.bounds(index)), rows)
        writer.seal()


def _heal(truth: _Truth) -> Job:
    """Damaged chunks of a finished feature are put back, as their seal promised them."""
    start = truth.damaged("healing", "*/embedding/c/0/0", "*/status/c/1", ".embank/*/markers/000002.json")
    return Job(start, heal, truth.differs(truth.whole))


def heal(place: Path) -> None:
    bank = Bank.open(place / "bank")
    layout = definition(bank.path, make_key(bank.image_digest).name)
    assert layout is not None
    for index in sorted({each.chunk for each in verify(bank).damaged if each.chunk is not None}):
        promise = promise_of_chunk(layout, index)
        assert promise is not None
        heal_chunk(layout, promise, chunk_result(index, *layout.grid.bounds(index), DIM))


def _mend(truth: _Truth) -> Job:
    start = truth.damaged("documents", "embank.json", ".embank/*/key.json", ".embank/columns/label.npy")
    return Job(start, repair, truth.differs(truth.whole))


def _verify(truth: _Truth) -> Job:
    start = truth.damaged("found", "*/norm/c/1", ".embank/*/seal.json")

    def found(report: VerifyReport) -> list[tuple[int | None, str]]:
        return [(each.chunk, each.path) for each in report.damaged]

    expected = found(verify(start / "bank"))

    def wrong(place: Path, report: VerifyReport) -> list[str]:
        return [] if found(report) == expected else [f"another report: {report}"]

    return Job(start, lambda place: verify(place / "bank"), wrong)


def _read(truth: _Truth) -> Job:
    """All that an evaluation reads; of a copy, which has no stamps, so that every byte is checked."""
    start = truth.new("read", truth.whole)
    expected = evaluated(start / "bank")

    def wrong(place: Path, result: Any) -> list[str]:
        return [] if result == expected else ["an evaluation would have read something else"]

    return Job(start, lambda place: evaluated(place / "bank"), wrong)


def evaluated(bank: Path, feature: str | None = None) -> tuple[Any, ...]:
    """Everything an evaluation can read of a feature."""
    features = Bank.open(bank).features(feature)
    columns = [features.bank.column(name) for name in ("label", "split", "group")]
    return (
        features.array.tobytes(), features.norm.tobytes(), features.status.tobytes(),
        [(codes.tobytes(), names) for codes, names in columns],
        features.failures(), features.image_ids, features.key, features.info,
    )  # fmt: skip


def _note(truth: _Truth) -> Job:
    """A record and a certificate: whole, or not there."""
    record = RunRecord("fewshot", {"n": 1}, {}, {"accuracy": 0.5}, {"all": 1.0}, "2026-01-02T03:04:05+00:00")

    def work(place: Path) -> None:
        record.write(place / "bank")
        write_certificate(Bank.open(place / "bank"), truth.key, {"cosine": 0.999999})

    def wrong(place: Path, result: Any) -> list[str]:
        found = read_all(place / "bank")
        certificate = Bank.open(place / "bank").describe(truth.key.name)["certificate"]
        whole = found == [record] and certificate == {"cosine": 0.999999}
        return [] if whole else [f"{found}, {certificate}"]

    return Job(truth.whole, work, wrong)


def _export(truth: _Truth) -> Job:
    def work(place: Path) -> None:
        for format in ("npy", "parquet"):
            export(Bank.open(place / "bank").features(), place / "out", format, overwrite=True)

    def files_of(place: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (place / "out").iterdir()}

    start = truth.new("exported", truth.whole)
    work(start)
    expected = files_of(start)
    shutil.rmtree(start / "out")

    def wrong(place: Path, result: Any) -> list[str]:
        return [] if files_of(place) == expected else [f"exported: {sorted(files_of(place))}"]

    return Job(start, work, wrong)


def _relabel(truth: _Truth) -> Job:
    """The bank's features under other labels, in a bank beside it."""
    with patched(Os(nothing)):
        frame = truth.bank.manifest().frame
        frame["label"] = frame["label"].to_numpy()[::-1]
        labels = Manifest.from_frame(frame, truth.whole / "images")

    def work(place: Path) -> None:
        relabel(Bank.open(place / "source"), labels, place / "bank")

    start = truth.new("labelled")
    shutil.copytree(truth.whole / "bank", start / "source")
    wanted = truth.new("other-labels", start)
    with patched(Os(nothing)):
        work(wanted)
    return Job(start, work, truth.differs(wanted))


JOBS: dict[str, Callable[[_Truth], Job]] = {
    "create": _create,
    "embed": _embed,
    "resume": _resume,
    "seal": _seal,
    "verify": _verify,
    "repair": _repair,
    "amend": _amend,
    "heal": _heal,
    "mend": _mend,
    "read": _read,
    "note": _note,
    "export": _export,
    "relabel": _relabel,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; exits with 1 if anything passed in silence or did not come right."""
    parser = common.parser(__doc__.partition("\n")[0])
    parser.add_argument("--stride", type=int, default=1, help="take every so many touches only")
    parser.add_argument(
        "--job", action="append", choices=list(JOBS), help="repeat for several; all if left out"
    )
    options = parser.parse_args(arguments)
    result = run(stride=options.stride, jobs=options.job or ())
    result["machine"] = common.machine()
    columns = ("touches", "faults", "stopped")
    rows = [[name, *(each[column] for column in columns)] for name, each in result["jobs"].items()]
    verdict = "\n".join(result["problems"]) or "nothing silent, every repetition right"
    table = common.markdown_table(["work", *columns], rows)
    common.finish(result, f"{table}\n{result['faults']} faults: {verdict}", options)
    raise SystemExit(0 if result["ok"] else 1)


if __name__ == "__main__":
    main()
