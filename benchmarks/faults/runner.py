"""One embed run in a process of its own, made by forking a server that has imported everything already.

Starting Python and torch takes longer than a small run, so most random kills of whole processes would only
hit imports. The server (multiprocessing's fork server) imports this module, computes nothing, and forks a
real process a run, which dies of a real SIGKILL.
"""

import multiprocessing
import os
import sys
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

# What a run imports on its way is imported here, so that the fork server has it before it forks.
import google_crc32c  # noqa: F401
import pandas  # noqa: F401
import pyarrow.compute
import pyarrow.parquet  # noqa: F401
import torch  # noqa: F401
import torchvision  # noqa: F401

import engine.decode.pillow
import engine.decode.threaded
import engine.decode.torchvision
import engine.models.forward.encoder  # noqa: F401
from engine.embed.run import EmbedOptions, embed
from engine.executors import SERIAL, Executor
from engine.models import resolve
from engine.recipes import load_recipe
from engine.runtime import Runtime
from stores.manifest.manifest import Manifest


@dataclass(frozen=True)
class Job:
    """What to embed, in plain values.

    Attributes:
        manifest: file.
        recipe: file.
        model: slug.
        chunk_rows, batch_size, threads, device, precision, decoder: as in `EmbedOptions` and `Runtime`.
    """

    manifest: str
    recipe: str
    model: str
    chunk_rows: int
    batch_size: int
    threads: int = 2
    device: str = "cpu"
    precision: str = "fp32"
    decoder: str = "turbo"

    def run(self, bank: str, executor: Executor = SERIAL) -> None:
        """Embed into `bank`, here or by an executor's workers."""
        embed(
            Manifest.read(self.manifest),
            [resolve(self.model, recipe=load_recipe(self.recipe))],
            bank,
            runtime=Runtime.resolve(self.device, self.precision, self.threads),
            options=EmbedOptions(
                decoder=self.decoder, batch_size=self.batch_size, chunk_rows=self.chunk_rows
            ),
            executor=executor,
        )

    def command(self, bank: str) -> list[str]:
        """The same run as a user would start it."""
        options = {
            "--model": self.model,
            "--bank": bank,
            "--recipe": self.recipe,
            "--device": self.device,
            "--precision": self.precision,
            "--decoder": self.decoder,
            "--threads": str(self.threads),
            "--batch-size": str(self.batch_size),
            "--chunk-rows": str(self.chunk_rows),
            "--max-failed": "1",
        }
        flat = [word for option in options.items() for word in option]
        return [sys.executable, "-m", "cli", "embed", self.manifest, *flat]


def start(job: Job, bank: Path, log: Path) -> BaseProcess:
    """Begin a run in a forked process; the first call also starts the server (seconds)."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=_child, args=(job, str(bank), str(log)))
    process.start()
    return process


def _child(job: Job, bank: str, log: str) -> None:
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    job.run(bank)
