"""Occlusion saliency and attentive diffusion of images, kept in the bank map by map.

A 10 x 10 square slides over the image at short side 242, centre crop 242; the score of a place is the
relative change of the feature, the map its mean over the squares that cover a pixel, attentive diffusion the
share of pixels above the map's mean (Anton et al., J. Imaging 2022, 8, 320, doi:10.3390/jimaging8120320).
"""

import hashlib
import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engine.decode.formats.sniff import sniff
from engine.decode.pillow import render
from engine.decode.source import ImageSource
from engine.errors import BadImage, Refused
from engine.evals.common.compute import Compute
from engine.evals.common.features import Features
from engine.evals.common.image_draw import choose, stream
from engine.evals.common.image_inputs import Images, images_of_feature
from engine.evals.common.image_interval import interval_of_images
from engine.evals.saliency.errors import StrideError
from engine.evals.saliency.estimate import Estimate, estimate
from engine.evals.saliency.maps import MapFolder, OcclusionMap
from engine.evals.saliency.occluder import Occluder, Scores
from engine.evals.saliency.options import CPU_STRIDE, SaliencyOptions
from engine.evals.saliency.progress import Hooks, Progress
from engine.evals.saliency.result import Item, SaliencyMap, SaliencyResult, Setting
from engine.evals.saliency.stride_error import stride_error
from engine.kernels.intervals import Bootstrap
from engine.kernels.occlusion import Squares, accumulate, attentive_diffusion
from engine.recipes import Recipe
from engine.runtime import Runtime, fix_flags
from stores.json_types import JsonObject

__all__ = ["Hooks", "Options", "Progress", "Result", "SaliencyMap", "evaluate", "measure"]

Options = SaliencyOptions
Result = SaliencyResult

#: Seconds between two savings of a map that is not finished.
SAVE_EVERY_S = 20.0
#: What the study did, beyond the settings that `as-published` fixes.
_PUBLISHED_NOTES = (
    "The study's published script left BatchNorm in train mode (--batch-norm train); its reported values "
    "are of eval mode.",
    "Which image of each data set the study used is not published.",
)


@dataclass(frozen=True)
class Run:
    """A result, and what it was made with.

    Attributes:
        rows: of the images looked at.
        settings: everything that a map depends on besides the image.
        flags: of the arithmetic; network: how it was run, empty where no map was computed.
    """

    result: SaliencyResult
    rows: tuple[int, ...]
    settings: JsonObject
    flags: JsonObject
    network: JsonObject


def evaluate(features: Features, options: SaliencyOptions, compute: Compute) -> SaliencyResult:
    """Measure occlusion maps and attentive diffusion of a bank's images, in float32.

    Raises:
        Refused: arrays; or as `measure`.
        MachineFault: the disk or the device failed; what is finished is kept.
    """
    source = features.refuse_arrays("Saliency")
    runtime = Runtime.resolve(compute.device, "fp32", compute.threads, options.seed)
    return measure(images_of_feature(source), options, runtime).result


def measure(images: Images, options: SaliencyOptions, runtime: Runtime, hooks: Hooks | None = None) -> Run:
    """Measure occlusion maps and attentive diffusion; keeps each map, and no record.

    Finished maps are not computed again, and an interrupted one goes on where it was last saved.

    Args:
        images: which, of what model, and where to keep maps.
        runtime: device, precision, threads.

    Raises:
        Refused: unknown ids, a model that cannot take the size, settings that contradict each other.
        MachineFault: the disk or the device failed; what is finished is kept.
    """
    if options.mode == "as-published" and runtime.precision != "fp32":
        raise Refused(
            f"precision {runtime.precision} in mode as-published",
            "The study computed in float32",
            "use --precision fp32",
        )
    start = time.perf_counter()
    job = _Job(images, options, runtime, hooks or Hooks())
    try:
        job.make_ready()
        items = tuple(job.item(position, row) for position, row in enumerate(job.rows))
    finally:
        job.close()
    result = job.result(items, time.perf_counter() - start)
    return Run(result, tuple(job.rows), job.settings(), {**job.flags}, job.network())


class _Job:
    """One run over the chosen images."""

    def __init__(self, images: Images, options: SaliencyOptions, runtime: Runtime, hooks: Hooks) -> None:
        self.images, self.runtime, self.hooks = images, runtime, hooks
        self.automatic_stride, self.options = options.stride is None, options.on(runtime.on_cuda)
        options = self.options
        assert options.stride is not None
        self.rows = choose(images.manifest, options)
        inner = images.spec.recipe.side
        self.squares = Squares(inner + 2 * (options.size - 1), options.size, options.stride)
        # The size is the protocol's, the values are the weights'.
        self.recipe = replace(
            images.spec.recipe,
            resize="short",
            size=self.squares.side,
            crop=self.squares.side,
            interpolation="bicubic",
        )
        self.spec = replace(images.spec, recipe=self.recipe)
        self.flags = fix_flags(runtime)
        self.folder = MapFolder(images.home, self.settings())
        self._occluder: Occluder | None = None
        self._done = self._computed = self._fresh = 0
        self._estimate: Estimate | None = None
        self._stride_error: StrideError | None = None
        self._stride_error_of = ""
        self._measured: dict[str, StrideError] = {}  # by image; a bank that cannot be written keeps none
        self._missing: list[int] = []
        self._exact = 0
        self._started = time.perf_counter()

    def close(self) -> None:
        """Stop the model's threads."""
        if self._occluder is not None:
            self._occluder.close()

    def settings(self) -> JsonObject:
        """Return everything that a map depends on besides the image."""
        return {
            "model": self.spec.slug,
            "weights": self.spec.weights_sha256,
            "architecture": self.spec.architecture,
            "layer": self.spec.layer,
            "recipe": self.recipe.digest,
            "precision": self.runtime.precision,
            "decoder": "reference",
            "size": self.options.size,
            "stride": self.options.stride,
            "fill": self.options.fill,
            "batch_norm": self.options.batch_norm,
        }

    def network(self) -> JsonObject:
        """Say how the network was run; empty where no map was computed."""
        return self._occluder.net.describe() if self._occluder else {}

    def item(self, position: int, row: int) -> Item:
        """Measure one image."""
        image_id, stride = self.images.manifest.image_ids[row], self.squares.stride
        try:
            digest, pixels = _render(self.images.source, row, self.recipe, self.options.size)
            finished = self.folder.map_of(digest) or self._compute(digest, pixels, position, image_id)
            self._note_stride_error(digest, image_id)
        except BadImage as bad:
            self._done = (position + 1) * self.squares.count
            return Item(image_id, row, stride, reason=bad.code, detail=bad.detail)
        self._done = (position + 1) * self.squares.count
        self._report_progress(position, image_id)
        diffusion = attentive_diffusion(finished.map)
        if self.hooks.on_map:
            cut = self.options.size - 1
            inner = pixels[cut : cut + self.squares.inner, cut : cut + self.squares.inner]
            self.hooks.on_map(SaliencyMap(image_id, inner, finished.map, diffusion))
        return Item(
            image_id,
            row,
            stride,
            diffusion,
            float(finished.map.mean()),
            float(finished.map.max()),
            finished.error,
            self.folder.relative(digest) if self.folder.holds(digest) else None,
        )

    def make_ready(self) -> None:
        """Load the model if a map has to be computed; it may be refused before any map is kept."""
        finer = MapFolder(self.images.home, {**self.settings(), "stride": 1})
        for row in self.rows:
            try:
                digest = hashlib.sha256(self.images.source.read(row)).hexdigest()
            except BadImage:
                continue
            if self.folder.map_of(digest) is None:
                self._load()
                begun = self.folder.part_of(digest, self.squares)
                self._missing.append(self.squares.count - int(begun.done.sum() if begun else 0))
                self._exact += self.automatic_stride and self.options.stride != 1 and finer.has_any(digest)

    def _load(self) -> Occluder:
        if self._occluder is None:
            options = self.options
            self._occluder = Occluder(
                self.spec,
                self.runtime,
                self.squares,
                fill=options.fill,
                per_image_norm=options.batch_norm == "train",
            )
        return self._occluder

    def _compute(self, digest: str, pixels: NDArray[np.uint8], position: int, image_id: str) -> OcclusionMap:
        occluder = self._load()
        scores = self.folder.part_of(digest, self.squares) or Scores.none(self.squares)
        before, saved = position * self.squares.count, time.monotonic()

        def on_block(places: int, so_far: Scores) -> None:
            nonlocal saved
            self._computed += places
            self._done = before + int(so_far.done.sum())
            if time.monotonic() - saved > SAVE_EVERY_S:
                self.folder.keep_part(digest, so_far)
                saved = time.monotonic()
            self._report_progress(position, image_id)

        try:
            self._reckon(occluder, pixels, scores)
            scores, error = occluder.score(pixels, scores, on_block)
        except KeyboardInterrupt:
            self.folder.keep_part(digest, scores)
            raise
        self._fresh += 1
        assert error is not None
        finished = OcclusionMap(accumulate(scores.values, self.squares), error)
        # Before the map: a finished map is not opened again, and would never have its error.
        self._measure_stride(occluder, digest, pixels, finished.map)
        self.folder.keep(digest, finished)
        return finished

    def _reckon(self, occluder: Occluder, pixels: NDArray[np.uint8], scores: Scores) -> None:
        """Time a few squares of the first map that is computed, on the CPU, and report the time of all."""
        if self._estimate is not None or self.runtime.on_cuda:
            return
        before = int(scores.done.sum())
        seconds_a_place = occluder.seconds_a_place(pixels, scores)
        self._computed += int(scores.done.sum()) - before
        self._estimate = estimate(
            len(self._missing),
            sum(self._missing),
            self.squares.stride,
            seconds_a_place,
            size=self.squares.size,
            usual=CPU_STRIDE,
            exact=self._exact,
        )
        if self.hooks.on_estimate:
            self.hooks.on_estimate(self._estimate)

    def _measure_stride(
        self, occluder: Occluder, digest: str, pixels: NDArray[np.uint8], map: NDArray[np.float64]
    ) -> None:
        """Store the error of the first map that is computed; at stride 1 it is the exact map."""
        if self.squares.stride > 1 and self._stride_error is None:
            self._measured[digest] = stride_error(occluder, pixels, map, stream("stride", 0, digest))
            self.folder.keep_stride_error(digest, self._measured[digest])

    def _note_stride_error(self, digest: str, image_id: str) -> None:
        if self.squares.stride > 1 and self._stride_error is None:
            self._stride_error = self._measured.get(digest) or self.folder.stride_error_of(digest)
            self._stride_error_of = image_id

    def _report_progress(self, position: int, image_id: str) -> None:
        if self.hooks.on_progress:
            total, seconds = len(self.rows) * self.squares.count, time.perf_counter() - self._started
            progress = Progress(
                image_id, position + 1, len(self.rows), self._done, total, self._computed, seconds
            )
            self.hooks.on_progress(progress)

    def result(self, items: tuple[Item, ...], seconds: float) -> SaliencyResult:
        """Return the result of the measured items."""
        setting = Setting(
            self.images.title, self.spec.weights_sha256, self.options, self.squares,
            self.runtime.precision, self.runtime.device, self.folder.digest,
        )  # fmt: skip
        return SaliencyResult(
            items,
            self._interval(items),
            setting,
            self._stride_error,
            self._stride_error_of,
            self._fresh,
            self._estimate,
            self._notes(),
            self._computed / seconds if self._computed else float("nan"),
            seconds,
        )

    def _notes(self) -> tuple[str, ...]:
        notes = list(_PUBLISHED_NOTES) if self.options.mode == "as-published" else []
        if self.squares.stride > 1:
            notes.append(
                f"Attentive diffusion is of maps at stride {self.squares.stride}; "
                "the study's is at stride 1 (--stride 1, which is exact): do not compare the two."
            )
        return tuple(notes)

    def _interval(self, items: tuple[Item, ...]) -> Bootstrap | None:
        measured = [item for item in items if np.isfinite(item.diffusion)]
        values = np.array([item.diffusion for item in measured])
        return interval_of_images(
            self.images.manifest, [item.row for item in measured], values, self.options.seed
        )


def _render(source: ImageSource, row: int, recipe: Recipe, size: int) -> tuple[str, NDArray[np.uint8]]:
    """Return the file's SHA-256, and its pixels at the working size, by Pillow."""
    data = source.read(row)
    header = sniff(data, recipe, source.limits)
    if min(header.width, header.height) < size:
        raise BadImage(
            "too_small", f"{header.width} x {header.height} pixels, less than the {size} x {size} square"
        )
    return hashlib.sha256(data).hexdigest(), render(data, header, recipe)
