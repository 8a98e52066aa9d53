"""A small drawn data set and studies of it, for tests of runs."""

from pathlib import Path

from benchmarks.faults.study import prepare
from engine.study.evaluating import Machine
from engine.study.progress import Hooks
from engine.study.read import read_study
from engine.study.run import StudyOutcome, run_study
from engine.study.study import Study

HERE = Machine("cpu", "fp32", 1)
#: Evaluations that take milliseconds.
QUICK = """
  fewshot: {n_way: 2, n_shot: 2, n_query: 2, episodes: 20, controls: false}
  knn: {k: [1], leave_one_out: true, controls: false}
  audit: {threshold: 0.9}
"""


def study_file(folder: Path, models: int = 2, evaluations: str = QUICK) -> Path:
    """Draw 24 pictures and write a study of them; returns its file."""
    return prepare(folder, models, 1, evaluations)


def run(file: Path, directory: Path, hooks: Hooks | None = None) -> tuple[Study, StudyOutcome]:
    """Run a study in this process."""
    study = read_study(file)
    return study, run_study(study, directory, file=file, machine=HERE, hooks=hooks)
