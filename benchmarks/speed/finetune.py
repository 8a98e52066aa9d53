"""Finetuning steps with their data, compared with the usual loop of DataLoader, Pillow and torchvision.

Both train the same network from the same weights with the same optimiser on the same files: random resized
crop (bicubic) and horizontal flip, cross-entropy, SGD with Nesterov momentum. embank decodes in threads ahead
of the step, only what the crop needs, and computes in channels_last. The loop's workers are processes that
last from round to round. Decoding alone and the step alone are timed for both, so that one sees where time
goes. Every contender's memory is the peak of its own process and, for the loop, of its workers.
"""

import contextlib
import math
import multiprocessing
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.images import FUNDUS, LARGE_XRAY, PHOTO, PNG, XRAY, ImageClass, manifest_of, write_images
from benchmarks.speed.common import (
    Spread,
    finish,
    interleaved,
    machine,
    markdown_table,
    parser,
    ratio,
    say,
)
from engine import malloc
from engine.decode import make_training_decoder
from engine.decode.protocol import DecodedBatch, TrainingBatch, TrainingDecoder
from engine.decode.random_crops import RandomCrops
from engine.embed.options import EmbedOptions, image_source
from engine.evals.finetune.losses import Loss
from engine.evals.finetune.network import build_network
from engine.evals.finetune.options import FinetuneOptions
from engine.evals.finetune.trainer import Trainer
from engine.models import resolve
from engine.models.catalog.lookup import ModelSpec
from engine.recipes import Recipe
from engine.runtime import Runtime, fix_flags, mixed_precision, plain_flags, synchronize
from stores.manifest.manifest import Manifest

#: Target: seconds of the loop over embank's, on the CPU.
TARGET = 1.3
CLASSES = 3
#: Kinds of generated images, by name.
KINDS = {kind.name: kind for kind in (XRAY, PHOTO, FUNDUS, LARGE_XRAY, PNG)}


def run(
    model: str = "efficientnet-lite0",
    *,
    images: int = 256,
    kind: ImageClass = PNG,
    data: Path | None = None,
    batch_size: int = 32,
    steps: int = 8,
    rounds: int = 3,
    workers: int = 2,
    device: str = "auto",
    precision: str = "fp32",
    threads: int | None = None,
    recipe: Recipe | None = None,
    memory: bool = True,
) -> dict[str, Any]:
    """Time steps of both, and their parts.

    Args:
        model: slug.
        images: files that the steps draw from.
        kind: of the files that are written where `data` is None.
        data: folder of images instead.
        batch_size: images of a step. steps: of a round. rounds: with each contender once.
        workers: of the loop's DataLoader.
        device, precision, threads: as for `Runtime.resolve`; the loop computes in the same precision.
        recipe: instead of the model's.
        memory: whether to measure each contender's memory, in a process of its own.

    Returns:
        `{machine, ..., contenders: {name: {ms_a_step, img_per_s, over_loop}}, parts: {name: ms_a_step},
        peak_bytes}`, spreads as {n, median, min, max}. `over_loop` of embank is the ratio with a
        target.
    """
    facts = machine()
    runtime = Runtime.resolve(device, precision, threads)
    with tempfile.TemporaryDirectory() as name:
        manifest = _manifest(Path(name), data, kind, images)
        case = Case(manifest, resolve(model, recipe=recipe), runtime, batch_size, steps, workers)
        with contextlib.closing(case):
            timed = {"embank": case.embank, "loop": case.loop}
            seconds = interleaved({**timed, **case.parts()}, rounds=rounds)
        peaks = {how: peak_bytes(replace(case), how) for how in timed} if memory else {}
    a_step = {how: Spread.of([1e3 * s / steps for s in times]) for how, times in seconds.items()}
    return {
        "machine": facts,
        "model": model,
        "images": len(manifest),
        "data": str(data or f"{kind.width} x {kind.height} {kind.suffix[1:].upper()}, generated"),
        "side": case.spec.recipe.side,
        "batch_size": batch_size,
        "steps": steps,
        "rounds": rounds,
        "loader_workers": workers,
        "runtime": vars(runtime),
        "contenders": {
            how: {
                "ms_a_step": a_step[how],
                "img_per_s": Spread.of([steps * batch_size / s for s in seconds[how]]),
                "over_loop": ratio(seconds["loop"], seconds[how]),
            }
            for how in timed
        },
        "parts": {how: a_step[how] for how in seconds if how not in timed},
        "peak_bytes": peaks,
    }


def _manifest(folder: Path, data: Path | None, kind: ImageClass, images: int) -> Manifest:
    if data is None:
        return manifest_of(write_images(folder, kind, images), folder)
    manifest = Manifest.from_folder(data)
    return Manifest.from_frame(manifest.frame.iloc[:images], manifest.root)


@dataclass(frozen=True)
class Case:
    """A model and images, with the contenders as methods; a copy that has not run yet can be pickled."""

    manifest: Manifest
    spec: ModelSpec
    runtime: Runtime
    batch_size: int
    steps: int
    workers: int

    @cached_property
    def codes(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """A class for each image, int64 [N]."""
        return np.arange(len(self.manifest), dtype=np.int64) % CLASSES

    @cached_property
    def trainer(self) -> Trainer:
        """embank's network and optimiser."""
        fix_flags(self.runtime)
        loss = Loss.of(self.codes, CLASSES, np.arange(len(self.codes)), "none")
        network = build_network(self.spec, CLASSES, 0)
        return Trainer(network, loss, FinetuneOptions(schedule="constant"), self.runtime)

    @cached_property
    def decoder(self) -> TrainingDecoder:
        """embank's decoder of random crops."""
        return make_training_decoder(
            "auto",
            self.spec.recipe,
            RandomCrops(0),
            device=self.runtime.device,
            threads=self.runtime.threads,
            batch_size=self.batch_size,
        )

    @cached_property
    def batches(self) -> list[TrainingBatch]:
        """The rows of each step; every epoch shows every image once."""
        generator = np.random.default_rng(0)
        count, rows = len(self.manifest), np.zeros(0, np.intp)
        while len(rows) < self.steps * self.batch_size:
            rows = np.concatenate([rows, generator.permutation(count)])
        starts = range(0, self.steps * self.batch_size, self.batch_size)
        return [TrainingBatch(rows[i : i + self.batch_size].tolist(), i // count) for i in starts]

    def embank(self) -> None:
        """Make the steps as `embank finetune` does."""
        with self._heap:
            losses = [
                self.trainer.update(step, batch.pixels, self.batches[step].rows)
                for step, batch in enumerate(self._decoded())
            ]
        float(losses[-1])
        synchronize(self.runtime.device)

    @property
    def _heap(self) -> AbstractContextManager[None]:
        """As `engine.evals.finetune.session` has it while it trains."""
        return contextlib.nullcontext() if self.runtime.on_cuda else malloc.retain_freed()

    def _decoded(self) -> Iterator[DecodedBatch]:
        return self.decoder.stream(image_source(self.manifest, EmbedOptions()), self.batches)

    @cached_property
    def loader(self) -> "DataLoader[Any]":
        """The loop's data; its workers stay for all rounds."""
        rows = [row for batch in self.batches for row in batch.rows]
        return DataLoader(
            Pictures(self.manifest, self.codes, self.spec.recipe),
            batch_size=self.batch_size,
            sampler=rows,
            num_workers=self.workers,
            pin_memory=self.runtime.on_cuda,
            persistent_workers=self.workers > 0,
        )

    @cached_property
    def plain(self) -> tuple[nn.Module, torch.optim.Optimizer]:
        """The loop's network, from the same weights, and its optimiser."""
        network = build_network(self.spec, CLASSES, 0)
        model = nn.Sequential(network.backbone, network.head).to(self.runtime.torch_device).train()
        options = FinetuneOptions()
        optimiser = torch.optim.SGD(
            model.parameters(),
            lr=options.lr,
            momentum=options.momentum,
            nesterov=True,
            weight_decay=options.weight_decay,
        )
        return model, optimiser

    def loop(self) -> None:
        """Make the steps with torch's defaults."""
        loss = torch.tensor(math.nan)
        with plain_flags():
            for x, y in self.loader:
                loss = self._plain_step(x, y)
        assert math.isfinite(float(loss))
        synchronize(self.runtime.device)

    def _plain_step(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        model, optimiser = self.plain
        device = self.runtime.torch_device
        optimiser.zero_grad()
        with mixed_precision(self.runtime):
            loss = nn.functional.cross_entropy(
                model(x.to(device, non_blocking=True)), y.to(device, non_blocking=True)
            )
        loss.backward()
        optimiser.step()
        return loss.detach()

    def parts(self) -> dict[str, Callable[[], Any]]:
        """Return the data alone and the steps alone of both."""
        rows = self.batches[0].rows
        pixels = next(iter(self._decoded())).pixels.clone()
        x, y = next(iter(self.loader))

        def steps_alone() -> None:
            with self._heap:
                for i in range(self.steps):
                    float(self.trainer.update(i, pixels, rows))

        return {
            "embank, data alone": lambda: [None for _ in self._decoded()],
            "loop, data alone": lambda: [None for _ in self.loader],
            "embank, steps alone": steps_alone,
            "loop, steps alone": lambda: [float(self._plain_step(x, y)) for _ in range(self.steps)],
        }

    def close(self) -> None:
        """Stop threads and processes."""
        self.decoder.close()


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Dataset of files through Pillow and torchvision's augmentation: float32 [3, S, S], normalised."""

    def __init__(
        self, manifest: Manifest, codes: np.ndarray[Any, np.dtype[np.int64]], recipe: Recipe
    ) -> None:
        self.paths = [manifest.root / uri for uri in manifest.uris]
        self.codes = codes
        modes = {"bicubic": transforms.InterpolationMode.BICUBIC}
        interpolation = modes.get(recipe.interpolation, transforms.InterpolationMode.BILINEAR)
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(recipe.side, interpolation=interpolation),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(recipe.mean, recipe.sd),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        tensor: torch.Tensor = self.transform(Image.open(self.paths[i]).convert("RGB"))
        return tensor, int(self.codes[i])


def peak_bytes(case: Case, contender: str) -> int:
    """Return the peak memory of a contender's steps, in a process of its own, its workers included.

    Pages that processes share count once (proportional set size), sampled every tenth of a second.
    """
    child = multiprocessing.get_context("spawn").Process(target=_run_one, args=(case, contender))
    child.start()
    peak = 0
    while child.is_alive():
        peak = max(peak, _memory_of(child.pid or 0))
        child.join(0.1)
    if child.exitcode:
        raise RuntimeError(f"{contender} ended with {child.exitcode}")
    return peak


def _run_one(case: Case, contender: str) -> None:
    getattr(case, contender)()


def _memory_of(pid: int) -> int:
    import psutil

    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return 0
    total = 0
    for member in family:
        with contextlib.suppress(psutil.Error):
            total += int(member.memory_full_info().pss)
    return total


def _table(result: dict[str, Any]) -> str:
    peaks = result["peak_bytes"]
    rows = [
        [
            how,
            str(row["ms_a_step"]),
            str(row["img_per_s"]),
            str(row["over_loop"]),
            f"{peaks[how] / 2**20:,.0f}" if peaks else "",
        ]
        for how, row in result["contenders"].items()
    ]
    parts = [[how, str(spread), "", "", ""] for how, spread in result["parts"].items()]
    runtime = result["runtime"]
    head = (
        f"{result['model']}, {result['images']} files ({result['data']}), batches of {result['batch_size']} "
        f"at {result['side']} pixels, on {runtime['device']} in {runtime['precision']}, "
        f"{runtime['threads']} threads, {result['loader_workers']} workers of the loop\n\n"
    )
    columns = ["how", "ms a step", "images/s", "times the loop", "peak MiB"]
    return head + markdown_table(columns, rows + parts)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = parser((__doc__ or "").partition("\n")[0])
    options.add_argument("--model", default="efficientnet-lite0")
    options.add_argument("--data", type=Path, help="folder of images; generated ones if left out")
    options.add_argument("--kind", choices=sorted(KINDS), default=PNG.name, help="of generated images")
    options.add_argument("--images", type=int, default=256)
    options.add_argument("--batch-size", type=int, default=32)
    options.add_argument("--steps", type=int, default=8, help="of a round")
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--workers", type=int, default=2, help="of the loop's DataLoader")
    options.add_argument("--device", default="auto")
    options.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    options.add_argument("--threads", type=int, default=None)
    options.add_argument("--side", type=int, default=None, help="of the crops, pixels")
    options.add_argument("--no-memory", action="store_true", help="leave the memory out")
    args = options.parse_args(argv)
    result = run(
        args.model,
        images=args.images,
        kind=KINDS[args.kind],
        data=args.data,
        batch_size=args.batch_size,
        steps=args.steps,
        rounds=args.rounds,
        workers=args.workers,
        device=args.device,
        precision=args.precision,
        threads=args.threads,
        recipe=Recipe(size=args.side, crop=args.side) if args.side else None,
        memory=not args.no_memory,
    )
    say(f"target: {TARGET} times the loop on the CPU")
    finish(result, _table(result), args)


if __name__ == "__main__":
    main()
