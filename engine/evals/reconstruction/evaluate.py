"""Reconstruction of images from a backbone's last feature map, kept in the bank network by network.

An untrained network is optimised until the feature map of its output is that of the image: what it then
shows is what the map still holds of the image (Ulyanov et al., CVPR 2018, doi:10.1109/CVPR.2018.00984; Anton
et al., J. Imaging 2022, 8, 320, doi:10.3390/jimaging8120320). LPIPS says how far it is from the original.
"""

import contextlib
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.decode.formats.sniff import sniff
from engine.decode.pillow import render
from engine.errors import BadImage, Refused
from engine.evals.common.compute import Compute
from engine.evals.common.features import Features
from engine.evals.common.image_draw import choose
from engine.evals.common.image_inputs import Images, images_of_feature
from engine.evals.common.image_interval import interval_of_images
from engine.evals.reconstruction.lane import Protocol
from engine.evals.reconstruction.options import STEPS, ReconstructionOptions
from engine.evals.reconstruction.pictures import Similarity, encode, ending_for, file_name, reopened
from engine.evals.reconstruction.progress import Estimate, Hooks
from engine.evals.reconstruction.result import (
    Item,
    Reconstruction,
    ReconstructionResult,
    Setting,
    Work,
    means,
)
from engine.evals.reconstruction.runner import Diverged, Job, Outcome, Runner
from engine.evals.reconstruction.store import Finished, Store
from engine.models.forward.feature_map import FeatureMap
from engine.recipes import Recipe
from engine.runtime import Runtime, fix_flags
from stores.json_types import Json, JsonObject

__all__ = ["Hooks", "Options", "Reconstruction", "Result", "evaluate", "measure"]

Options = ReconstructionOptions
Result = ReconstructionResult

#: Counts up when a change of the arithmetic changes reconstructions.
VERSION = 1
#: The study's preprocessing, alike for every model: values of 0-1.
_PUBLISHED = Recipe(normalise="none")
_SEED_NOTE = (
    "The study's networks were not seeded; these are of seed {seed}, and run to run the study's differ."
)


@dataclass(frozen=True)
class Run:
    """A result, and what it was made with.

    Attributes:
        rows: of the images looked at.
        settings: everything that a reconstruction depends on besides image and seed.
        flags: of the arithmetic. trunks: weights of LPIPS.
    """

    result: ReconstructionResult
    rows: tuple[int, ...]
    settings: JsonObject
    flags: JsonObject
    trunks: list[Json]


def evaluate(features: Features, options: ReconstructionOptions, compute: Compute) -> ReconstructionResult:
    """Reconstruct images of a bank, in float32.

    Raises:
        Refused: arrays; or as `measure`.
        MachineFault: the disk or the device failed; checkpoints are kept.
    """
    source = features.refuse_arrays("Reconstruction")
    runtime = Runtime.resolve(compute.device, "fp32", compute.threads, options.seed)
    return measure(images_of_feature(source), options, runtime).result


def measure(
    images: Images, options: ReconstructionOptions, runtime: Runtime, hooks: Hooks | None = None
) -> Run:
    """Reconstruct images; keeps each reconstruction, and no record.

    Finished reconstructions are not computed again, and others go on at their last checkpoint.

    Args:
        images: which, of what model, and where to keep reconstructions.
        runtime: device, precision, threads.

    Raises:
        Refused: unknown ids, a model without a spatial feature map, a normalisation without a gradient.
        MachineFault: the disk or the device failed; checkpoints are kept.
    """
    _check_precision(options, runtime)
    return _Job(images, options, runtime, hooks or Hooks()).run()


def _check_precision(options: ReconstructionOptions, runtime: Runtime) -> None:
    if runtime.precision == "fp16":
        rule = "The range of fp16 is too small for gradients"
        raise Refused("precision fp16", rule, "use --precision bf16 or fp32")
    if runtime.precision == "bf16" and not runtime.on_cuda:
        rule = "On the CPU reconstructions are computed in float32"
        raise Refused("precision bf16 on the CPU", rule, "use --precision fp32")
    if runtime.precision != "fp32" and options.mode == "as-published":
        rule = "The study computed in float32"
        raise Refused(f"precision {runtime.precision} in mode as-published", rule, "use --precision fp32")


@dataclass(frozen=True, eq=False)
class _Picture:
    """An image that was decoded, or the reason why it could not be."""

    row: int
    image_id: str
    digest: str = ""
    pixels: NDArray[np.uint8] | None = None
    bad: BadImage | None = None


class _Job:
    """One run over the chosen images."""

    def __init__(
        self, images: Images, options: ReconstructionOptions, runtime: Runtime, hooks: Hooks
    ) -> None:
        self.images, self.options, self.runtime, self.hooks = images, options, runtime, hooks
        self.start = time.perf_counter()
        self.rows = choose(images.manifest, options)
        self.recipe = _PUBLISHED if options.mode == "as-published" else images.spec.recipe
        self.spec = replace(images.spec, recipe=self.recipe)
        self.flags = fix_flags(runtime)
        self.encode = FeatureMap(self.spec, runtime)
        self.shape = self.encode.shape(self.recipe.side)
        self.protocol = Protocol(options.updates, options.lr)
        self.store = Store(images.home, self.settings())
        self.similarity = Similarity(runtime.device, self.recipe.side)
        self.estimate: Estimate | None = None

    def settings(self) -> JsonObject:
        """Return everything that a reconstruction depends on besides image and seed."""
        return {
            "version": VERSION,
            "model": self.spec.slug,
            "weights": self.spec.weights_sha256,
            "architecture": self.spec.architecture,
            "layer": self.spec.layer,
            "map": self.encode.layer,
            "recipe": self.recipe.digest,
            "decoder": "reference",
            "precision": self.runtime.precision,
            "updates": self.options.updates,
            "lr": self.options.lr,
        }

    def run(self) -> Run:
        """Reconstruct all images."""
        pictures = [self._picture(row) for row in self.rows]
        jobs = [
            Job(picture.digest, seed, picture.pixels)
            for picture in pictures
            if picture.pixels is not None
            for seed in self.options.network_seeds
        ]
        outcomes: dict[tuple[str, int], Outcome] = {}
        for job in jobs:
            if (finished := self.store.finished(job.image, job.seed)) is not None:
                outcomes[job.image, job.seed] = finished
        unique = {(job.image, job.seed): job for job in jobs}
        missing = [job for key, job in unique.items() if key not in outcomes]
        hooks = replace(self.hooks, on_estimate=self._on_estimate)
        runner = Runner(self.encode, self.runtime, self.protocol, self.store, hooks)
        items: dict[int, list[Item]] = {}
        self._deliver(pictures, outcomes, items)
        with contextlib.closing(runner.run(missing, len(unique))) as made:
            for job, outcome in made:
                outcomes[job.image, job.seed] = outcome
                self._deliver(pictures, outcomes, items)
        return self._run([item for place in sorted(items) for item in items[place]], runner, len(missing))

    def _on_estimate(self, estimate: Estimate) -> None:
        self.estimate = estimate
        if self.hooks.on_estimate:
            self.hooks.on_estimate(estimate)

    def _picture(self, row: int) -> _Picture:
        image_id = self.images.manifest.image_ids[row]
        try:
            data = self.images.source.read(row)
            pixels = render(data, sniff(data, self.recipe, self.images.source.limits), self.recipe)
        except BadImage as bad:
            return _Picture(row, image_id, bad=bad)
        return _Picture(row, image_id, hashlib.sha256(data).hexdigest(), pixels)

    # --- results ------------------------------------------------------------------------------------------

    def _deliver(
        self,
        pictures: Sequence[_Picture],
        outcomes: dict[tuple[str, int], Outcome],
        items: dict[int, list[Item]],
    ) -> None:
        """Make the items of images of which every network is done, and that have none yet."""
        seeds = self.options.network_seeds
        for position, picture in enumerate(pictures):
            if position in items:
                continue
            if picture.pixels is None:
                items[position] = [self._failed(picture, seed) for seed in seeds]
            elif all((picture.digest, seed) in outcomes for seed in seeds):
                done = {seed: outcomes[picture.digest, seed] for seed in seeds}
                items[position] = self._items(position, picture, done)

    def _failed(self, picture: _Picture, seed: int) -> Item:
        assert picture.bad is not None
        return Item(picture.image_id, picture.row, seed, reason=picture.bad.code, detail=picture.bad.detail)

    def _items(self, position: int, picture: _Picture, outcomes: dict[int, Outcome]) -> list[Item]:
        """Write each reconstruction as a file, read it back, and compare it with the original."""
        assert picture.pixels is not None
        ending = ending_for(self.images.source.uris[picture.row], self.options.mode)
        made = {seed: outcome for seed, outcome in outcomes.items() if isinstance(outcome, Finished)}
        data = {seed: encode(finished.image, ending) for seed, finished in made.items()}
        images = {seed: reopened(of) for seed, of in data.items()}
        lpips = dict(zip(images, self.similarity(picture.pixels, list(images.values())), strict=True))
        items = []
        for seed, outcome in outcomes.items():
            if isinstance(outcome, Diverged):
                items.append(self._diverged(picture, seed, outcome.step))
                continue
            name = file_name(position, picture.image_id, seed, ending)
            loss = float(outcome.losses[-1])
            if self.hooks.on_reconstruction:
                self.hooks.on_reconstruction(
                    Reconstruction(
                        picture.image_id, position, seed, picture.pixels, images[seed], name, data[seed],
                        loss, lpips[seed],
                    )
                )  # fmt: skip
            kept = self.store.relative(picture.digest, seed)
            items.append(
                Item(
                    picture.image_id, picture.row, seed, loss, float(outcome.losses[0]), lpips[seed],
                    outcome.losses, name, kept if self.store.holds(picture.digest, seed) else None,
                )
            )  # fmt: skip
        return items

    def _diverged(self, picture: _Picture, seed: int, step: int) -> Item:
        detail = (
            f"the loss is not finite at update {step:,} of {self.options.updates:,}; a smaller --lr than "
            f"{self.options.lr:g} may help"
        )
        return Item(picture.image_id, picture.row, seed, reason="nan_loss", detail=detail)

    def _run(self, items: list[Item], runner: Runner, missing: int) -> Run:
        setting = Setting(
            self.images.title, self.spec.weights_sha256, self.options, self.encode.layer, self.shape,
            self.recipe.side, self.protocol.architecture.side_for(self.recipe.side),
            self.runtime.precision, self.runtime.device, self.store.digest, self.similarity.reason,
        )  # fmt: skip
        abreast = self.estimate.abreast if self.estimate else 0
        work = Work(
            missing,
            runner.computed,
            abreast,
            self.estimate.memory if self.estimate else 0,
            self.estimate.to_dict() if self.estimate else None,
            time.perf_counter() - self.start,
        )
        intervals = {
            name: interval_of_images(self.images.manifest, *means(items, name), self.options.seed)
            for name in ("lpips", "loss")
        }
        result = ReconstructionResult(tuple(items), setting, work, intervals, self._notes())
        return Run(result, tuple(self.rows), self.settings(), {**self.flags}, self.similarity.trunks)

    def _notes(self) -> tuple[str, ...]:
        if self.options.mode != "as-published":
            return ()
        notes = [_SEED_NOTE.format(seed=self.options.seed)]
        if self.options.steps != STEPS:
            notes.append(f"The study's command ran {STEPS:,} iterations, this run {self.options.steps:,}.")
        return tuple(notes)
