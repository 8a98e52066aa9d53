"""Kill runs of a study at random moments, resume them, and compare with an undisturbed study.

    python -m benchmarks.faults.study [--kills 50] [--models 6] [--sets 3] [--json]

Six tiny networks with random weights, three small sets of drawn pictures, and every kind of evaluation. A
study is killed at random until it is finished; then its report, made without times, must be the bytes of the
undisturbed study's, and each cell must have exactly one record, which is the undisturbed one but for times.
"""

import contextlib
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed import common
from stores.json_types import Json

TIMEOUT_S = 1800.0
#: Networks of a few milliseconds at `SIDE` pixels, whose features with random weights fit into float16.
NETWORKS = (
    "squeezenet1_1",
    "resnet18",
    "shufflenet_v2_x0_5",
    "squeezenet1_0",
    "shufflenet_v2_x1_0",
    "resnet34",
)
SIDE, IMAGES = 32, 24
#: Members of records that depend on the moment, on names made of it, or on what earlier runs had computed.
VOLATILE = frozenset(
    {"created", "seconds", "record", "records", "compared", "estimated", "stages", "trained_seconds"}
    | {"places_per_s", "img_per_s", "views_kept", "views_made", "cached"}
)
EVALUATIONS = """
  fewshot: {n_way: 2, n_shot: 2, n_query: 2, episodes: 20}
  knn: {k: [1, 3], leave_one_out: true}
  probe: {values: 3, bootstrap: 20}
  invariance: {transforms: [rotation, h_flip], images: 4, views: 4}
  multiview: {}
  audit: {threshold: 0.9}
  saliency: {images: 1, stride: 8}
  reconstruct: {images: 1, networks: 1, steps: 2}
  finetune: {steps: 2, batch_size: 4, bootstrap: 20, validate_every: 1}
"""


@dataclass
class Tally:
    """Results so far."""

    kills: int = 0
    runs: int = 0
    finished_first: int = 0
    studies: int = 0
    done_at_kill: list[int] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def run(
    *,
    kills: int = 50,
    models: int = len(NETWORKS),
    sets: int = 3,
    seed: int = 0,
    work: Path | None = None,
    evaluations: str = EVALUATIONS,
    say: Callable[[str], None] = common.say,
) -> dict[str, Any]:
    """Kill and resume studies.

    Args:
        kills: SIGKILLs in total.
        models, sets: how many networks and sets of pictures.
        seed: of the moments of the kills.
        work: working folder; None takes a temporary one.
        evaluations: of the study, as in its file.

    Returns:
        `{ok, kills, runs, studies, problems, ...}`.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = (work or Path(temporary)).resolve()
        file = prepare(folder, models, sets, evaluations)
        trial = _Trial(file, folder, random.Random(seed), say)
        tally = trial.torment(kills)
        return {
            "ok": not tally.problems and tally.kills == kills,
            "kills": tally.kills,
            "runs": tally.runs,
            "finished_before_the_kill": tally.finished_first,
            "studies": tally.studies,
            "cells": trial.cells,
            "cells_done_at_kills": tally.done_at_kill,
            "problems": tally.problems,
            "undisturbed_seconds": round(trial.seconds, 2),
            "nothing_to_do_seconds": round(trial.nothing_s, 2),
            "report_bytes": len(trial.report),
            "seed": seed,
        }


def prepare(folder: Path, models: int, sets: int, evaluations: str) -> Path:
    """Draw the pictures and write the study file; returns its path."""
    names = [f"set{number}" for number in range(sets)]
    for number, name in enumerate(names):
        _draw(folder / name, number)
    slugs = "".join(f"  - random/{name}\n" for name in NETWORKS[:models])
    manifests = "".join(f"  {name}: {{manifest: {name}.parquet}}\n" for name in names)
    embed = f"embed: {{side: {SIDE}, chunk_rows: 8, max_failed: 0.1, precision: fp32, decoder: reference}}"
    file = folder / "killed.yaml"
    file.write_text(
        f"study: killed\ndatasets:\n{manifests}models:\n{slugs}{embed}\nevaluations:{evaluations}", "utf-8"
    )
    return file


def _draw(folder: Path, number: int) -> None:
    """Draw noise with a bar whose place is the class, and a manifest with patients, splits and views."""
    import pandas as pd
    from PIL import Image

    from stores.manifest.manifest import Manifest

    folder.mkdir(parents=True)
    generator = np.random.default_rng(number)
    rows = []
    for i in range(IMAGES):
        image = generator.integers(0, 120, (40, 40, 3), np.uint8)
        place = 8 + 16 * (i % 2) + number
        image[:, place : place + 4] = 200
        Image.fromarray(image).save(folder / f"{i}.png")
        rows.append(
            {
                "image_id": str(i),
                "uri": f"{i}.png",
                "label": "ab"[i % 2],
                "split": ("train", "train", "val", "test")[i // 2 % 4],
                "group": f"p{i // 4 * 2 + i % 2}",
                "study": f"s{i // 4 * 2 + i % 2}",
                "view": ("frontal", "lateral")[i // 2 % 2],
            }
        )
    for row in rows:  # a patient is in one split
        row["split"] = ("train", "train", "val", "test")[int(row["group"][1:]) // 2 % 4]
    Manifest.from_frame(pd.DataFrame(rows), folder).write(folder.with_suffix(".parquet"))


class _Trial:
    """A study, its undisturbed folder, and folders whose runs are killed."""

    def __init__(self, file: Path, folder: Path, chance: random.Random, say: Callable[[str], None]) -> None:
        self.file, self.folder, self.chance, self.say = file, folder, chance, say
        self.log = folder / "runs.log"
        truth = self._new("undisturbed")
        self._finish(truth)  # starts the fork server, warms the page cache
        again = self._new("again")
        self.seconds = self._finish(again)
        self.nothing_s = self._finish(again)
        self.report, self.records = report_of(self.file, truth), records_of(self.file, truth)
        self.cells = len(self.records)
        problems = self._problems(again)
        if problems:
            raise RuntimeError(f"two undisturbed runs differ, so kills prove nothing: {problems[:5]}")
        say(f"undisturbed: {self.cells} cells in {self.seconds:.1f} s; again: {self.nothing_s:.2f} s")

    def torment(self, kills: int) -> Tally:
        """Kill runs `kills` times, and finish every study."""
        tally = Tally()
        while tally.kills < kills:
            folder = self._new(f"killed{tally.studies:03}")
            while tally.kills < kills and self._kill_once(folder, kills, tally):
                pass
            self._finish(folder)
            tally.runs += 1
            tally.studies += 1
            tally.problems += [f"{folder.name}: {problem}" for problem in self._problems(folder)]
            self.say(f"{tally.kills} kills, {tally.studies} studies, {len(tally.problems)} problems")
        return tally

    def _kill_once(self, folder: Path, kills: int, tally: Tally) -> bool:
        """Start or resume a run, and kill it at a random moment; return False if it finished first."""
        from benchmarks.faults import study_runner

        process = study_runner.start(self.file, folder, self.log)
        # On average a run gets as far as two or three kills may go, so that studies are killed all along.
        process.join(self.nothing_s + self.chance.expovariate(kills / (2.5 * self.seconds)))
        if process.exitcode is None and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
            process.join(TIMEOUT_S)
        tally.runs += 1
        if process.exitcode != -signal.SIGKILL:
            tally.finished_first += 1
            return False
        tally.kills += 1
        tally.done_at_kill.append(sum(1 for _ in folder.glob("study/banks/*.bank/records/*.json")))
        return True

    def _new(self, name: str) -> Path:
        folder = self.folder / name
        folder.mkdir()
        return folder

    def _finish(self, folder: Path) -> float:
        """Run to the end undisturbed; return the seconds taken."""
        from benchmarks.faults import study_runner

        start = time.perf_counter()
        process = study_runner.start(self.file, folder, self.log)
        process.join(TIMEOUT_S)
        if process.exitcode != 0:
            process.kill()
            tail = self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""
            raise RuntimeError(f"an undisturbed run in {folder.name} ended with {process.exitcode}: {tail}")
        return time.perf_counter() - start

    def _problems(self, folder: Path) -> list[str]:
        problems = [] if report_of(self.file, folder) == self.report else ["another report"]
        records = records_of(self.file, folder)
        for cell, truth in self.records.items():
            own = records.get(cell, [])
            if len(own) != 1:
                problems.append(f"{cell}: {len(own)} records")
            elif own != truth:
                problems.append(f"{cell}: another record: {difference(own[0], truth[0])}")
        return problems


def report_of(file: Path, folder: Path) -> bytes:
    """Return the report of the study in a folder, made without times."""
    from benchmarks.faults.study_runner import FOLDER
    from engine.report.page.assemble import report_html
    from engine.report.page.inputs import PageOptions
    from engine.study.page_input import page_input
    from engine.study.read import read_study

    with contextlib.chdir(folder):
        page = page_input(read_study(file), Path(FOLDER))
        return report_html(page, PageOptions(timings=False))


def records_of(file: Path, folder: Path) -> dict[str, list[str]]:
    """Return cell -> all its records as JSON, without what depends on the moment."""
    from benchmarks.faults.study_runner import FOLDER
    from engine.study.cells import cells_of
    from engine.study.image_sets import bank_of
    from engine.study.ledger import Ledger
    from engine.study.read import read_study

    study = read_study(file)
    own: dict[str, list[str]] = {cell.label: [] for cell in cells_of(study)}
    with contextlib.chdir(folder):
        cells = {cell.digest: cell for cell in cells_of(study)}
        for bank in sorted({bank_of(Path(FOLDER), study, cell) for cell in cells.values()}):
            for entry in Ledger.of(bank).entries:
                assert entry.record is not None
                body = still(entry.record.to_dict())
                own[cells[str(entry.record.used["cell"])].label].append(json.dumps(body, sort_keys=True))
    return own


def still(value: Json) -> Json:
    """Return a value without members that depend on the moment."""
    if isinstance(value, dict):
        return {name: still(member) for name, member in value.items() if name not in VOLATILE}
    return [still(member) for member in value] if isinstance(value, list) else value


def difference(own: str, truth: str) -> str:
    """Return the first place where two records differ."""
    at = next((i for i, (a, b) in enumerate(zip(own, truth, strict=False)) if a != b), 0)
    return f"{own[max(0, at - 60) : at + 40]!r} for {truth[max(0, at - 60) : at + 40]!r}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; exit with 1 if any study was wrong."""
    parser = common.parser(__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--models", type=int, default=len(NETWORKS))
    parser.add_argument("--sets", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    result = run(kills=options.kills, models=options.models, sets=options.sets, seed=options.seed)
    result["machine"] = common.machine()
    verdict = "every report the same, byte for byte" if result["ok"] else "\n".join(result["problems"])
    text = f"{result['kills']} kills, {result['runs']} runs, {result['studies']} studies: {verdict}"
    common.finish(result, text, options)
    raise SystemExit(0 if result["ok"] else 1)


if __name__ == "__main__":
    main()
