"""Runs of a study in processes forked from a server that has already imported everything.

As `benchmarks.faults.runner`: imports take longer than most cells, and kills are to fall into the work.
"""

import multiprocessing
import os
from multiprocessing.process import BaseProcess
from pathlib import Path

# Everything that a run imports, so that the fork server has it before it forks.
import pyarrow.compute
import pyarrow.parquet  # noqa: F401
import sklearn.linear_model  # noqa: F401
import torch
import torchvision  # noqa: F401

import engine.decode.pillow
import engine.decode.threaded
import engine.decode.torchvision
import engine.embed.relabel
import engine.evals.controls.evaluate
import engine.evals.fewshot.bank
import engine.evals.finetune.bank
import engine.evals.invariance.bank
import engine.evals.neighbours.audit
import engine.evals.neighbours.knn
import engine.evals.probe.bank
import engine.evals.reconstruction.bank
import engine.evals.saliency.bank
import engine.report.page.assemble  # noqa: F401
from engine.study.evaluating import Machine
from engine.study.read import read_study
from engine.study.reporting import write_report
from engine.study.run import run_study

#: Name of a study's folder below that of its run: the same for all, since reports name it.
FOLDER = "study"


def start(file: Path, folder: Path, log: Path) -> BaseProcess:
    """Start a run of a study in a forked process; the first call also starts the server.

    Args:
        file: of the study.
        folder: working folder of the process, in which the study's folder lies.
        log: takes what the process prints.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_child, args=(str(file), str(folder), str(log)))
    process.start()
    return process


def _child(file: str, folder: str, log: str) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.chdir(folder)
    torch.set_num_threads(1)
    study, directory = read_study(Path(file)), Path(FOLDER)
    outcome = run_study(study, directory, file=Path(file), machine=Machine("cpu", "fp32", 1))
    write_report(study, directory)
    if outcome.failures:
        raise SystemExit("\n".join(f"{failure.label}: {failure.why}" for failure in outcome.failures))
