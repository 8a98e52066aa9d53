"""Kill embed runs at random moments, resume them, and compare every byte with an undisturbed bank.

    python -m benchmarks.faults.kill [--kills 50] [--data FOLDER] [--json]

Most kills hit processes forked from a server that has torch imported (see `runner`), so that they fall into
the work and not into imports; `--whole` of them hit the command line from its first instruction. Commits and
the seal take a small part of a run, so a half of the moments is random in them, the rest in the whole run.

The usual job is made to commit much and compute little, since only the former can leave a bank half done:
some hundred digits, the last chunk not full, and a network that takes a millisecond for each of them.
"""

import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.speed import common

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from benchmarks.faults.runner import Job

#: Most kills one bank suffers before it may finish.
KILLS_PER_BANK = 4
#: Where a moment is random: in the whole run, in or just after a commit, in the seal; and how often each.
AIMS = {"anywhere": 0.5, "commit": 0.35, "seal": 0.15}
#: Seconds that a commit, or a seal, is given to take.
_COMMIT_S, _SEAL_S = 0.015, 0.08
#: Files that may differ between two runs of the same job: times, process ids, caches.
VOLATILE_NAMES = {"stamps.json", "provenance.json", "lock"}
VOLATILE_FOLDERS = {("records",), (".embank", "tmp"), (".embank", "quarantine")}
TIMEOUT_S = 600.0
#: Of scikit-learn's digits; not a multiple of the rows of a chunk, so that the last one has padding.
DIGITS, DIGITS_PER_CHUNK = 470, 16
#: Cheap at 32 pixels, and none of its embeddings is lost to float16.
MODEL, SIDE = "random/squeezenet1_1", 32


@dataclass
class Tally:
    """What happened so far: kills by the state they left, runs, banks that were not as they should be."""

    kills: Counter[str] = field(default_factory=Counter)
    aims: Counter[str] = field(default_factory=Counter)
    whole_process_kills: int = 0
    resumes: int = 0
    banks: int = 0
    finished_first: int = 0
    problems: list[str] = field(default_factory=list)


def run(
    *,
    kills: int = 50,
    whole: int = 5,
    data: Path | None = None,
    chunk_rows: int | None = None,
    side: int = SIDE,
    seed: int = 0,
    work: Path | None = None,
    say: Callable[[str], None] = common.say,
) -> dict[str, Any]:
    """Kill, resume, compare.

    Args:
        kills: SIGKILLs to deliver, `whole` included.
        whole: how many of them to whole command-line processes.
        data: folder of images; None takes some of scikit-learn's digits.
        chunk_rows: None takes 8 for a folder and 16 for the digits.
        side: of the recipe, in pixels.
        seed: of the moments.
        work: folder to work in; None takes a temporary one.

    Returns:
        `{ok, kills, fell, resumes, banks, problems, ...}`; `ok` if every bank was bit-identical to the
        undisturbed one and verified.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = (work or Path(temporary)).resolve()
        job = prepare(folder, data, chunk_rows, side)
        trial = _Trial(job, folder, random.Random(seed), say)
        tally = trial.torment(kills, whole)
        return {
            "ok": not tally.problems,
            "kills": sum(tally.kills.values()),
            "whole_process_kills": tally.whole_process_kills,
            "aimed": dict(sorted(tally.aims.items())),
            "fell": dict(sorted(tally.kills.items())),
            "resumes": tally.resumes,
            "banks": tally.banks,
            "finished_before_the_kill": tally.finished_first,
            "problems": tally.problems,
            "undisturbed_seconds": round(trial.whole_run_s, 2),
            "data": str(data or "scikit-learn digits"),
            "rows": trial.rows,
            "chunks": trial.chunks,
            "files_compared": trial.files,
            "seed": seed,
        }


def prepare(
    folder: Path, data: Path | None, chunk_rows: int | None, side: int, digits: int = DIGITS
) -> "Job":
    """Write manifest and recipe into a folder; the job that embeds them.

    Args:
        data: folder of images; None takes the first `digits` of scikit-learn's.
        chunk_rows, side: as for `run`.
    """
    import json

    from benchmarks.faults.runner import Job
    from engine.recipes import Recipe
    from stores.manifest.manifest import Manifest

    if data is None:
        from engine import datasets

        frame = datasets.build("digits", folder / "images").frame
        manifest = Manifest.from_frame(frame.iloc[:digits], folder / "images")
    else:
        manifest = Manifest.from_folder(data)
    manifest.write(folder / "images.parquet")
    recipe = folder / "recipe.json"
    recipe.write_text(json.dumps(Recipe(size=side, crop=side).to_dict()))
    return Job(
        manifest=str(folder / "images.parquet"),
        recipe=str(recipe),
        model=MODEL,
        chunk_rows=chunk_rows or (DIGITS_PER_CHUNK if data is None else 8),
        batch_size=8,
    )


class _Trial:
    """One job, its undisturbed bank and the banks that are killed."""

    def __init__(self, job: "Job", folder: Path, chance: random.Random, say: Callable[[str], None]) -> None:
        from stores.bank.reader import Bank

        self.job, self.folder, self.chance, self.say = job, folder, chance, say
        self.log = folder / "runs.log"
        self.truth = folder / "undisturbed"
        self._finish(folder / "first")  # starts the fork server, warms the page cache
        self.whole_run_s = self._finish(self.truth)
        self.nothing_to_do_s = self._finish(self.truth)
        self.cli_s = 0.0
        bank = Bank.open(self.truth)
        self.rows, self.chunks = bank.rows, bank.grid.chunks
        self.files = len(contents(self.truth))
        problems = problems_of(folder / "first", self.truth)
        if problems:
            raise RuntimeError(f"two undisturbed runs differ, so kills prove nothing: {problems[:3]}")
        say(
            f"undisturbed: {self.whole_run_s:.2f} s, of which {self.nothing_to_do_s:.2f} s with nothing to do"
        )

    def torment(self, kills: int, whole: int) -> Tally:
        tally = Tally()
        while sum(tally.kills.values()) < kills:
            left = kills - sum(tally.kills.values())
            bank = self.folder / f"bank{tally.banks:03}"
            whole_left = whole - tally.whole_process_kills
            for _ in range(self.chance.randint(1, min(KILLS_PER_BANK, left))):
                # The last kills are the whole-process ones, unless chance brings them earlier.
                as_command = whole_left > 0 and self.chance.random() < whole_left / left
                if not self._kill_once(bank, as_command, tally):
                    break
                tally.whole_process_kills += as_command
                whole_left -= as_command
                left -= 1
            self._finish(bank)
            tally.resumes += 1
            tally.banks += 1
            tally.problems += [f"{bank.name}: {problem}" for problem in problems_of(bank, self.truth)]
            self.say(
                f"{sum(tally.kills.values())} kills, {tally.banks} banks, {len(tally.problems)} problems"
            )
        return tally

    def _kill_once(self, bank: Path, as_command: bool, tally: Tally) -> bool:
        """Start or resume, wait a random part of the time it should take, kill. False if it was faster."""
        aim = "anywhere" if as_command else self.chance.choices(list(AIMS), list(AIMS.values()))[0]
        killed = self._kill_command(bank) if as_command else self._kill_fork(bank, aim)
        if not killed:
            tally.finished_first += 1
            return False
        state = state_of(bank, self.chunks)
        tally.kills[state] += 1
        tally.aims["command line, anywhere" if as_command else aim] += 1
        tally.resumes += bank.exists()
        return True

    def _expected(self, bank: Path) -> float:
        """Seconds that a run on this bank should still take."""
        share = 1 - len(committed(bank)) / self.chunks
        return self.nothing_to_do_s + share * (self.whole_run_s - self.nothing_to_do_s)

    def _kill_fork(self, bank: Path, aim: str) -> bool:
        from benchmarks.faults import runner

        moment = self._moment(bank, aim)
        process = runner.start(self.job, bank, self.log)
        moment(process)
        if process.exitcode is None and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
            process.join(TIMEOUT_S)
        return process.exitcode == -signal.SIGKILL

    def _moment(self, bank: Path, aim: str) -> "Callable[[BaseProcess], None]":
        """A function that waits for a random moment of a run on this bank, or for the run's end."""
        if aim == "anywhere":
            delay = self.chance.uniform(0, self._expected(bank))
            return lambda process: process.join(delay)
        done = len(committed(bank))
        if aim == "commit":
            last = self.chunks - 1
            wanted = self.chance.randint(min(done, last), last)
            delay = self.chance.uniform(0, _COMMIT_S)
        else:
            wanted, delay = self.chunks, self.chance.uniform(0, _SEAL_S)

        def wait(process: "BaseProcess") -> None:
            while process.is_alive() and len(committed(bank)) < wanted:
                time.sleep(0.002)
            while aim == "commit" and process.is_alive() and not _temporaries(bank):
                time.sleep(0.0002)
            process.join(delay)

        return wait

    def _kill_command(self, bank: Path) -> bool:
        if not self.cli_s:
            start = time.perf_counter()
            self._command(self.folder / "by-command", None)
            self.cli_s = time.perf_counter() - start
        return self._command(bank, self.chance.uniform(0, self.cli_s)) == -signal.SIGKILL

    def _command(self, bank: Path, kill_after: float | None) -> int:
        """Run the command line; its exit status. A group of its own, so that any children die with it."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                self.job.command(str(bank)),
                cwd=common.ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(common.ROOT), *_path()])},
            )
            try:
                return process.wait(TIMEOUT_S if kill_after is None else kill_after)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                return process.wait(TIMEOUT_S)

    def _finish(self, bank: Path) -> float:
        """Run to the end without disturbance; seconds."""
        from benchmarks.faults import runner

        start = time.perf_counter()
        process = runner.start(self.job, bank, self.log)
        process.join(TIMEOUT_S)
        if process.exitcode != 0:
            process.kill()
            tail = self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
            raise RuntimeError(f"an undisturbed run of {bank.name} ended with {process.exitcode}: {tail}")
        return time.perf_counter() - start


def _path() -> list[str]:
    return [part for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]


def problems_of(bank: Path, truth: Path) -> list[str]:
    """What is wrong with a finished bank: bytes that differ from the true one's, damage that verify finds."""
    from stores.bank.reader import Bank
    from stores.maintenance.verify import verify

    report = verify(Bank.open(bank))
    return differences(bank, truth) + [f"verify: {d.path}: {d.reason}" for d in report.damaged]


def differences(bank: Path, truth: Path) -> list[str]:
    """Files that only one of two banks has, or whose bytes differ; those that may differ are left out."""
    ours, theirs = contents(bank), contents(truth)
    lacking = [f"lacks {name}" for name in sorted(theirs.keys() - ours.keys())]
    extra = [f"has {name} beyond" for name in sorted(ours.keys() - theirs.keys())]
    common_names = sorted(ours.keys() & theirs.keys())
    return lacking + extra + [f"{name} differs" for name in common_names if ours[name] != theirs[name]]


def contents(bank: Path) -> dict[str, bytes]:
    """Relative path -> bytes of every file that must be a function of images, model and settings alone."""
    found = {}
    for path in sorted(bank.rglob("*")):
        parts = path.relative_to(bank).parts
        if path.is_file() and not _volatile(parts):
            found["/".join(parts)] = path.read_bytes()
    return found


def _volatile(parts: Sequence[str]) -> bool:
    inside = any(tuple(parts[: len(folder)]) == folder for folder in VOLATILE_FOLDERS)
    return inside or parts[-1] in VOLATILE_NAMES or parts[-1].endswith(".lock")


def state_of(bank: Path, chunks: int) -> str:
    """Where in its life a killed bank is, read from its files."""
    if not (bank / "embank.json").exists():
        return "1 before the bank"
    side = [path for path in (bank / ".embank").glob("*.*") if (path / "key.json").exists()]
    if not side:
        return "2 before the feature"
    if (side[0] / "seal.json").exists():
        return "7 sealed"
    done = len(committed(bank))
    if _unmarked(bank) or _temporaries(bank):
        return "5 inside a commit or seal"
    if done == chunks:
        return "6 all chunks, no seal"
    return "4 between commits" if done else "3 no chunk yet"


def committed(bank: Path) -> set[int]:
    """Chunks of a bank that are done, by their markers."""
    return {int(path.stem) for path in bank.glob(".embank/*/markers/*.json")}


def _temporaries(bank: Path) -> list[str]:
    folder = bank / ".embank" / "tmp"
    return [path.name for path in folder.iterdir()] if folder.exists() else []


def _unmarked(bank: Path) -> set[int]:
    """Chunks of which some file is there but no marker."""
    written = {int(path.parent.name) for path in bank.glob("*/embedding/c/*/0")}
    for array in ("norm", "status"):
        written |= {int(path.name) for path in bank.glob(f"*/{array}/c/*")}
    return written - committed(bank)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; exits with 1 if any bank was not as it should be."""
    parser = common.parser(__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--whole", type=int, default=5, help="kills of whole command-line processes")
    parser.add_argument("--data", type=Path, help="folder of images instead of scikit-learn's digits")
    parser.add_argument("--chunk-rows", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    result = run(
        kills=options.kills,
        whole=options.whole,
        data=options.data,
        chunk_rows=options.chunk_rows,
        seed=options.seed,
    )
    result["machine"] = common.machine()
    rows = [[state, count] for state, count in result["fell"].items()]
    verdict = "every bank bit-identical and verified" if result["ok"] else "\n".join(result["problems"])
    table = common.markdown_table(["the kill fell", "kills"], rows)
    common.finish(
        result, f"{table}\n{result['kills']} kills, {result['resumes']} resumes: {verdict}", options
    )
    raise SystemExit(0 if result["ok"] else 1)


if __name__ == "__main__":
    main()
