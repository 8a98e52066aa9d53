"""Occlusion saliency and attentive diffusion of images, kept in the bank map by map.

A 10 x 10 square slides over the image at short side 242, centre crop 242; the score of a place is the
relative change of the feature, the map its mean over the squares that cover a pixel, attentive diffusion the
share of pixels above the map's mean (Anton et al., J. Imaging 2022, 8, 320, doi:10.3390/jimaging8120320).
"""

import hashlib
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.decode.formats.sniff import sniff
from engine.decode.pillow import render
from engine.decode.source import ImageSource
from engine.errors import BadImage, Refused
from engine.evals.saliency.estimate import Estimate, estimate
from engine.evals.saliency.images import Images
from engine.evals.saliency.maps import Kept, MapFolder
from engine.evals.saliency.occluder import Occluder, Scores
from engine.evals.saliency.options import CPU_STRIDE, SaliencyOptions
from engine.evals.saliency.stride_error import NUMBERS, stride_error
from engine.kernels.episodes import Stream
from engine.kernels.intervals import over_groups
from engine.kernels.occlusion import Squares, accumulate, attentive_diffusion
from engine.runtime import Runtime, fix_flags
from engine.versions import versions
from stores.bank.records import RunRecord, keep

#: Bootstrap samples of the interval.
RESAMPLES = 2000
#: Seconds between two savings of a map that is not finished.
SAVE_EVERY_S = 20.0
#: What the study did, beyond the settings that `as-published` fixes.
_PUBLISHED_NOTES = (
    "The study's published script left BatchNorm in train mode (--batch-norm train); its reported values "
    "are of eval mode.",
    "Which image of each data set the study used is not published.",
)


@dataclass(frozen=True)
class Progress:
    """A look at a running evaluation: places of the square done of all, over all images."""

    image_id: str
    image: int
    images: int
    done: int
    total: int
    computed: int
    seconds: float

    @property
    def per_s(self) -> float:
        """Places computed a second by this run."""
        return self.computed / self.seconds if self.seconds > 0 else float("nan")

    @property
    def seconds_left(self) -> float:
        return (self.total - self.done) / self.per_s if self.computed else float("nan")


@dataclass(frozen=True)
class SaliencyMap:
    """One image's result.

    Attributes:
        image_id: of the manifest.
        pixels: uint8 [M, M, 3], the part of the image that the map is of, not normalised.
        map: float64 [M, M].
        diffusion: attentive diffusion, a fraction.
    """

    image_id: str
    pixels: NDArray[np.uint8]
    map: NDArray[np.float64]
    diffusion: float


def saliency(
    images: Images,
    options: SaliencyOptions,
    *,
    runtime: Runtime,
    on_progress: Callable[[Progress], None] | None = None,
    on_map: Callable[[SaliencyMap], None] | None = None,
    on_estimate: Callable[[Estimate], None] | None = None,
) -> dict[str, Any]:
    """Measure occlusion maps and attentive diffusion; keep each map, and a RunRecord.

    Finished maps are not computed again, and an interrupted one goes on where it was last saved.

    Args:
        images: which, of what model, and where to keep maps (`saliency_images.open_images`).
        runtime: device, precision, threads.
        on_progress: told after every block of places.
        on_map: given each map, in order.
        on_estimate: told on the CPU, before the first map is computed, how long all of them will take.

    Returns:
        `{model, items: [{image_id, attentive_diffusion, ...}], mean, sd, min, max, interval, stride,
        stride_error, ...}`. Where nothing is defined the value is NaN, and `reason` says why. `stride_error`
        is None at stride 1, else what `engine.evals.saliency.stride_error` measured on one `image_id`.

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
    job = _Job(images, options, runtime, on_progress, on_estimate)
    try:
        job.make_ready()
        items = [job.item(at, row, on_map) for at, row in enumerate(job.rows)]
    finally:
        job.close()
    report = job.report(items, time.perf_counter() - start)
    keep(job.record(report), images.home, report)
    return report


class _Job:
    """One run over the chosen images."""

    def __init__(
        self,
        images: Images,
        options: SaliencyOptions,
        runtime: Runtime,
        on_progress: Callable[[Progress], None] | None,
        on_estimate: Callable[[Estimate], None] | None,
    ) -> None:
        self.images, self.runtime, self._tell = images, runtime, on_progress
        self.asked, self.options = options, options.on(runtime.on_cuda)
        options = self.options
        assert options.stride is not None
        self._tell_estimate = on_estimate
        self.rows = _choose(images, options)
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
        self.folder = MapFolder(images.home, self._settings())
        self._occluder: Occluder | None = None
        self._done = self._computed = self._fresh = 0
        self._estimate: Estimate | None = None
        self._stride_error: dict[str, Any] | None = None
        self._measured: dict[str, dict[str, Any]] = {}  # by image; a bank that cannot be written keeps none
        self._missing: list[int] = []
        self._exact = 0
        self._started = time.perf_counter()

    def close(self) -> None:
        if self._occluder is not None:
            self._occluder.close()

    def _settings(self) -> dict[str, Any]:
        """Everything that a map depends on besides the image."""
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

    def item(self, at: int, row: int, on_map: Callable[[SaliencyMap], None] | None) -> dict[str, Any]:
        """One image: its line of the report."""
        image_id = self.images.manifest.image_ids[row]
        line: dict[str, Any] = {"image_id": image_id, "row": row, "stride": self.options.stride}
        try:
            digest, pixels = _render(self.images.source, row, self.recipe, self.options.size)
            kept = self.folder.map_of(digest) or self._compute(digest, pixels, at, image_id)
            self._note_stride_error(digest, image_id)
        except BadImage as bad:
            self._done = (at + 1) * self.squares.count
            nothing = {"attentive_diffusion": float("nan"), "reason": bad.code, "detail": bad.detail}
            return line | nothing
        self._done = (at + 1) * self.squares.count
        self._report_progress(at, image_id)
        diffusion = attentive_diffusion(kept.map)
        if on_map:
            cut = self.options.size - 1
            inner = pixels[cut : cut + self.squares.inner, cut : cut + self.squares.inner]
            on_map(SaliencyMap(image_id, inner, kept.map, diffusion))
        return line | {
            "attentive_diffusion": diffusion,
            "mean_score": float(kept.map.mean()),
            "max_score": float(kept.map.max()),
            "error": kept.error,
            "map": self.folder.relative(digest) if self.folder.holds(digest) else None,
        }

    def make_ready(self) -> None:
        """Load the model if some map has to be computed: it may be refused, and nothing is kept by then."""
        finer = MapFolder(self.images.home, {**self._settings(), "stride": 1})
        for row in self.rows:
            try:
                digest = hashlib.sha256(self.images.source.read(row)).hexdigest()
            except BadImage:
                continue
            if self.folder.map_of(digest) is None:
                self._load()
                begun = self.folder.part_of(digest, self.squares)
                self._missing.append(self.squares.count - int(begun.done.sum() if begun else 0))
                self._exact += (
                    self.asked.stride is None and self.options.stride != 1 and finer.has_any(digest)
                )

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

    def _compute(self, digest: str, pixels: NDArray[np.uint8], at: int, image_id: str) -> Kept:
        occluder = self._load()
        scores = self.folder.part_of(digest, self.squares) or Scores.none(self.squares)
        before, saved = at * self.squares.count, time.monotonic()

        def on_block(places: int, so_far: Scores) -> None:
            nonlocal saved
            self._computed += places
            self._done = before + int(so_far.done.sum())
            if time.monotonic() - saved > SAVE_EVERY_S:
                self.folder.keep_part(digest, so_far)
                saved = time.monotonic()
            self._report_progress(at, image_id)

        try:
            self._reckon(occluder, pixels, scores)
            scores, error = occluder.score(pixels, scores, on_block)
        except KeyboardInterrupt:
            self.folder.keep_part(digest, scores)
            raise
        self._fresh += 1
        kept = self.folder.keep(digest, Kept(accumulate(scores.values, self.squares), error))
        self._measure_stride(occluder, digest, pixels, kept.map)
        return kept

    def _reckon(self, occluder: Occluder, pixels: NDArray[np.uint8], scores: Scores) -> None:
        """Time a few squares of the first map that is computed, on the CPU, and tell what all will take."""
        if self._estimate is not None or self.runtime.on_cuda:
            return
        before = int(scores.done.sum())
        each = occluder.seconds_a_place(pixels, scores)
        self._computed += int(scores.done.sum()) - before
        self._estimate = estimate(
            len(self._missing),
            sum(self._missing),
            self.squares.stride,
            each,
            size=self.squares.size,
            usual=CPU_STRIDE,
            exact=self._exact,
        )
        if self._tell_estimate:
            self._tell_estimate(self._estimate)

    def _measure_stride(
        self, occluder: Occluder, digest: str, pixels: NDArray[np.uint8], map: NDArray[np.float64]
    ) -> None:
        """Keep how far the first map that is computed lies from the exact one; at stride 1 it is that."""
        if self.squares.stride > 1 and self._stride_error is None:
            stream = _stream("stride", 0, digest)
            self._measured[digest] = stride_error(occluder, pixels, map, stream)
            self.folder.keep_stride_error(digest, self._measured[digest])

    def _note_stride_error(self, digest: str, image_id: str) -> None:
        if self.squares.stride > 1 and self._stride_error is None:
            error = self._measured.get(digest) or self.folder.stride_error_of(digest)
            self._stride_error = error and {"image_id": image_id, **error}

    def _report_progress(self, at: int, image_id: str) -> None:
        if self._tell:
            total, seconds = len(self.rows) * self.squares.count, time.perf_counter() - self._started
            progress = Progress(image_id, at + 1, len(self.rows), self._done, total, self._computed, seconds)
            self._tell(progress)

    def report(self, items: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
        """The JSON document."""
        failures: dict[str, int] = {}
        for item in items:
            if "reason" in item:
                failures[item["reason"]] = failures.get(item["reason"], 0) + 1
        rate = self._computed / seconds if self._computed else float("nan")
        return {
            "model": self.images.title,
            "weights": self.spec.weights_sha256,
            "mode": self.options.mode,
            "items": items,
            **self._summary(items),
            "images": len(items),
            "failed": sum(failures.values()),
            "failures": failures,
            "computed": self._fresh,
            **asdict(self.squares),
            "places": self.squares.count,
            "fill": self.options.fill,
            "batch_norm": self.options.batch_norm,
            "precision": self.runtime.precision,
            "device": self.runtime.device,
            "key": self.folder.digest,
            "stride_error": self._error_of_stride(),
            "estimate": self._estimate.to_dict() if self._estimate else None,
            "notes": self._notes(),
            "places_per_s": rate,
            "seconds": round(seconds, 4),
        }

    def _error_of_stride(self) -> dict[str, Any] | None:
        """What the report says of the stride; None at stride 1, whose map is the exact one."""
        if self.squares.stride == 1 or self._stride_error:
            return self._stride_error
        nothing = dict.fromkeys(NUMBERS, float("nan")) | {"pixels": 0}
        return nothing | {"reason": "it is measured where a map is computed, and none was"}

    def _notes(self) -> list[str]:
        notes = list(_PUBLISHED_NOTES) if self.options.mode == "as-published" else []
        if self.squares.stride > 1:
            notes.append(
                f"Attentive diffusion is of maps at stride {self.squares.stride}; "
                "the study's is at stride 1 (--stride 1, which is exact): do not compare the two."
            )
        return notes

    def _summary(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        """Mean and spread over the images that have a value, and an interval over patients."""
        known = [item for item in items if np.isfinite(item["attentive_diffusion"])]
        values = np.array([item["attentive_diffusion"] for item in known])
        nan, n = float("nan"), len(values)
        found: dict[str, Any] = {
            "mean": float(values.mean()) if n else nan,
            "sd": float(values.std(ddof=1)) if n > 1 else nan,
            "min": float(values.min()) if n else nan,
            "max": float(values.max()) if n else nan,
        }
        codes = self.images.manifest.codes("group")[0].astype(np.int64)
        alone = codes.max(initial=-1) + 1 + np.arange(len(codes))
        rows = [item["row"] for item in known]
        groups = np.unique(np.where(codes >= 0, codes, alone)[rows], return_inverse=True)[1]
        if len(set(groups.tolist())) < 2:
            reason = "fewer than two images or patients: nothing to draw from"
            return found | {"interval": {"low": nan, "high": nan, "reason": reason}}
        stream = _stream("interval", self.options.seed, self.images.manifest.image_digest)
        spread = over_groups(values, np.ones(n), groups.astype(np.int64), RESAMPLES, stream)
        return found | {"interval": {**spread.to_dict(), "level": 0.95, "over": "images or patients"}}

    def record(self, report: dict[str, Any]) -> RunRecord:
        """What the report says, and what it was made with."""
        metrics = ("items", "mean", "sd", "min", "max", "interval", "notes", "places", "stride_error")
        network = self._occluder.net.describe() if self._occluder else {}
        return RunRecord.now(
            kind="saliency",
            asked={**asdict(self.asked), "model": self.images.title, "precision": self.runtime.precision},
            used={
                **self._settings(),
                "key": self.folder.digest,
                "side": self.squares.side,
                "weights_source": self.spec.weights_source,
                "manifest_digest": self.images.manifest.digest,
                "device": self.runtime.device,
                "flags": self.flags,
                "network": network,
            },
            metrics={name: report[name] for name in metrics},
            seconds={
                "total": report["seconds"],
                "places_per_s": report["places_per_s"],
                "estimated": self._estimate.seconds if self._estimate else None,
            },
            versions=versions(),
            failures=report["failures"],
        )


def _render(source: ImageSource, row: int, recipe: Any, size: int) -> tuple[str, NDArray[np.uint8]]:
    """SHA-256 of the file, and its pixels at the working size, by Pillow."""
    data = source.read(row)
    header = sniff(data, recipe, source.limits)
    if min(header.width, header.height) < size:
        raise BadImage(
            "too_small", f"{header.width} x {header.height} pixels, less than the {size} x {size} square"
        )
    return hashlib.sha256(data).hexdigest(), render(data, header, recipe)


def _choose(images: Images, options: SaliencyOptions) -> list[int]:
    """Rows to look at: those asked for, or a draw of which the smaller is the start of the larger."""
    every = images.manifest.image_ids
    if options.ids:
        place = {image_id: row for row, image_id in enumerate(every)}
        unknown = [image_id for image_id in options.ids if image_id not in place]
        if unknown:
            raise Refused(
                f"image ids {', '.join(map(repr, unknown[:3]))}",
                f"There are {len(every)} images, e.g. {', '.join(map(repr, every[:3]))}",
                "give ids of the manifest, or a number with --images",
            )
        return list(dict.fromkeys(place[image_id] for image_id in options.ids))
    if options.images is not None and options.images > len(every):
        raise Refused(f"{options.images} images", f"There are {len(every)}", "lower --images")
    numbers = _stream("draw", options.seed, images.manifest.image_digest).uniform(len(every))
    return [int(row) for row in np.argsort(numbers, kind="stable")[: options.wanted]]


def _stream(purpose: str, seed: int, images: str) -> Stream:
    return Stream(
        hashlib.sha256(f"embank saliency 1 {purpose} {seed} {images}".encode("ascii")).digest()[:16]
    )
