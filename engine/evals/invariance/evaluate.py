"""Invariance of features to synthetic transforms: equations 3-5 of Anton et al., J. Imaging 2022, 8, 320.

The mean cosine between whitened deviations of an image and of its transformed views, 1 for a perfectly
invariant model and that of two different images for one that does not recognise them; and their Mahalanobis
distance. Mean and covariance come from the bank; only the scored images are opened.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import BadImage, Refused
from engine.evals.common.compute import Compute
from engine.evals.common.features import Features, Source
from engine.evals.invariance.as_published import not_reproduced
from engine.evals.invariance.options import InvarianceOptions, Sample, draw
from engine.evals.invariance.result import Invariance, InvarianceResult, Pictures, Setting
from engine.evals.invariance.statistics import Statistics, statistics_of
from engine.evals.invariance.summary import Baseline, Summary, summarise, too_few
from engine.kernels.intervals.cluster_robust import compact_groups, defined_rows, mean_across_groups, taken
from engine.kernels.whitening import Whitening
from engine.kernels.whitening_place import whitening_on

if TYPE_CHECKING:
    from engine.embed.restore import Restored
    from engine.evals.invariance.resident_views import ResidentViews
    from engine.evals.invariance.view_features import Pass
    from engine.evals.invariance.view_store import ViewFeatures, Views, ViewStore
    from engine.kernels.device_whitening import DeviceWhitening
    from engine.pipeline import PassProgress
    from engine.runtime import Runtime

__all__ = ["Access", "Invariance", "Options", "Result", "evaluate", "measure"]

Options = InvarianceOptions
Result = InvarianceResult
OnProgress = Callable[["PassProgress"], None]

#: Below this cosine to the bank's row an image is not the one that was embedded.
_SAME_IMAGE = 0.99


@dataclass(frozen=True)
class Access:
    """Where the encoder and the images of a feature are, and on which device they are used.

    Attributes:
        weights, root, device: as for `engine.embed.restore.restore`.
        threads: of the CPU; None takes all usable cores.
    """

    weights: Path | None = None
    root: Path | None = None
    device: str = "auto"
    threads: int | None = None

    def restore(self, source: Source) -> "Restored":
        """Restore the feature's encoder and images. Raises as `engine.embed.restore.restore`."""
        from engine.embed.restore import restore

        feature = source.features.name
        made = restore(source.bank, feature, weights=self.weights, root=self.root, device=self.device)
        threads = self.threads or made.runtime.threads
        return replace(made, runtime=replace(made.runtime, threads=threads))


@dataclass(frozen=True)
class Run:
    """A result, and what computed it.

    Attributes:
        runtime: of the encoder.
        seconds: of the passes over the images.
    """

    result: InvarianceResult
    runtime: "Runtime"
    seconds: float


def evaluate(features: Features, options: InvarianceOptions, compute: Compute) -> InvarianceResult:
    """Measure how alike a bank's features stay when its images are transformed.

    Raises:
        Refused: arrays; or as `measure`.
        MachineFault: the run can be resumed.
    """
    features.refuse_arrays("Invariance to transforms")
    return measure(features, options, Access(device=compute.device, threads=compute.threads)).result


def measure(
    features: Features,
    options: InvarianceOptions,
    access: Access,
    *,
    on_progress: OnProgress | None = None,
    skip_undefined: bool = False,
) -> Run:
    """Evaluate, with weights and images in other places if necessary; keep no record.

    Args:
        features: of a bank.
        access: to the encoder and the images.
        on_progress: called during a pass over the images.
        skip_undefined: leave out transforms that the images cannot have, with a reason, instead of refusing.

    Raises:
        Refused: see `draw`, `engine.embed.restore.restore`, `engine.kernels.whitening.fit_whitener`; a
            transform of colours where all scored images are grey.
        MachineFault: the run can be resumed.
    """
    return _Measurement(features, options, skip_undefined).run(access, on_progress)


class _Measurement:
    """One model, several transforms."""

    setting: Setting
    statistics: Statistics
    whitening: "Whitening | DeviceWhitening"
    backbone: "Restored"
    views: "ViewStore"
    resident: "ResidentViews"
    made: "Pass"
    reference: "Views"
    present: NDArray[np.intp]
    originals: "dict[int, ViewFeatures]"
    parity: float | None

    def __init__(self, features: Features, options: InvarianceOptions, skip_undefined: bool) -> None:
        self.features, self.options, self.skip_undefined = features, options, skip_undefined
        self.source = features.refuse_arrays("Invariance to transforms")
        self.groups = compact_groups(features.texts("group")[0])
        self.sample: Sample = draw(features.ok, self.groups, options)

    def run(self, access: Access, on_progress: OnProgress | None) -> Run:
        from engine.evals.invariance.resident_views import ResidentViews
        from engine.evals.invariance.view_features import make_views
        from engine.evals.invariance.view_store import REFERENCE, Views, ViewStore

        options = self.options
        planned = self._planned()
        self.reference = Views(REFERENCE, (), options.published, options.batch_norm)
        backbone = self.backbone = access.restore(self.source)
        self.views = ViewStore(self.source.features)
        self.resident = ResidentViews(self.views, backbone.runtime.device)
        rows = np.unique(self.sample.scored).tolist()
        needed = [(self.reference, row) for row in rows] + [(views, rows[0]) for views in planned]
        if backbone.root is not None or any(self.views.read(views, row) is None for views, row in needed):
            _ = backbone.images  # where they are missing, before anything is computed
        # The images themselves first, and nothing of them in the bank, until nothing can be refused any more.
        self.views.hold()
        self.made = make_views(self.views, backbone, rows, [self.reference], resident=self.resident)
        self._check_images()
        if not self.skip_undefined:
            self._refuse_colourless(planned)
        self._whiten()
        self.views.release()
        self.made = self.made.plus(
            make_views(self.views, backbone, list(self.originals), planned, on_progress, self.resident)
        )
        self._refuse_none_present()
        self.setting = self._setting()
        result = InvarianceResult(tuple(self._score(views) for views in planned))
        self.resident.drop(self.reference)  # its pictures hold on to the rest of this
        return Run(result, backbone.runtime, self.made.seconds)

    def _planned(self) -> "list[Views]":
        """Return the views of every transform."""
        from engine.evals.invariance.view_store import Views
        from engine.kernels.transforms import find_transform

        options, planned = self.options, []
        for name in options.transforms:
            plan = find_transform(name).plan(options.views, identity=options.published)
            if not plan:
                raise Refused(
                    f"{options.views} views of {name}", "None is left without the identity", "raise --views"
                )
            planned.append(Views(name, tuple(plan), options.published, options.batch_norm))
        return planned

    def _whiten(self) -> None:
        arithmetic, device = self.options.arithmetic, self.backbone.runtime.device
        rows, how = self.sample.covariance, self.options.how
        self.statistics = statistics_of(self.features, rows, how, arithmetic=arithmetic, device=device)
        self.whitening = whitening_on(device, self.statistics.whitener, arithmetic=arithmetic)

    def _refuse_none_present(self) -> list[int]:
        """Return the scored rows that have not failed; refuse if there are none."""
        present = [r for r in self.sample.scored.tolist() if r not in self.made.failures]
        self.present = np.array(present, np.intp)
        if not present:
            row, why = next(iter(self.made.failures.items()))
            raise Refused(
                f"None of {len(self.sample.scored)} images could be scored "
                f"({self.features.image_ids[row]!r}: {why.code}: {why.detail})",
                "The scored images are opened and transformed",
                "say where they are with --root",
            )
        return present

    def _refuse_colourless(self, planned: "Iterable[Views]") -> None:
        from engine.kernels.transforms import find_transform

        if self.options.published or not all(original.grey for original in self.originals.values()):
            return
        for views in planned:
            if find_transform(views.transform).needs_colour:
                raise self._colourless(views)

    def _check_images(self) -> None:
        """Refuse unless at least one image can be read and is the one that was embedded."""
        present = self._refuse_none_present()
        references = {row: self.views.read(self.reference, row) for row in set(present)}
        self.originals = {row: views for row, views in references.items() if views is not None}
        if self.options.published:
            self.parity = None
            return
        a = np.stack([self.originals[r].features[0] for r in present]).astype(np.float64)
        b = self.source.features.take(self.present).astype(np.float64)
        cosine = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
        self.parity = float(cosine.min())
        if self.parity < _SAME_IMAGE:
            row = present[int(cosine.argmin())]
            raise Refused(
                f"{self.backbone.images.uris[row]} has a feature of cosine {self.parity:.3f} to the bank's",
                "Views are compared with images that are those of the bank",
                "put the files back that were embedded, or embed again into a new bank",
            )

    def _score(self, views: "Views") -> Invariance:
        from engine.kernels.transforms import find_transform

        before = time.perf_counter()
        grey = np.array([self.originals[r].grey for r in self.present.tolist()])
        rows, count = self.present, int(grey.sum())
        if find_transform(views.transform).needs_colour and not self.options.published:
            rows = rows[~grey]
        if not len(rows):
            return self._without_colour(views)
        features = self.resident.of_rows(views, rows.tolist())
        originals = self.resident.of_rows(self.reference, rows.tolist())[:, 0]
        scores = self.whitening.agreement(originals, features)
        self.resident.drop(views)
        assert scores.cosine.shape == (len(rows), views.count)
        groups = self.groups[rows]
        summary = summarise(scores.cosine, scores.distance, groups, published=self.options.published)
        different = len(np.unique(rows[np.isfinite(scores.cosine).any(axis=1)]))
        summary = replace(summary, baseline=_baseline(scores.images, groups), reason=too_few(different))
        return Invariance(
            rows, groups, scores.cosine, scores.distance, views, summary, self.setting, count,
            self._pictures(views), time.perf_counter() - before,
        )  # fmt: skip

    def _without_colour(self, views: "Views") -> Invariance:
        if not self.skip_undefined:
            raise self._colourless(views)
        none = np.empty((0, views.count))
        return Invariance(
            self.present[:0], self.groups[:0], none, none, views, Summary.empty(self._why_colourless(views)),
            self.setting, len(self.present), self._pictures(views),
        )  # fmt: skip

    def _why_colourless(self, views: "Views") -> str:
        return f"all {len(self.present)} scored images are grey: {views.transform} leaves them as they are"

    def _colourless(self, views: "Views") -> Refused:
        return Refused(
            f"{views.transform}: {self._why_colourless(views)}",
            "A transform of colours needs pictures with colours",
            "choose another --transform, or --mode as-published, which counts them",
        )

    def _pictures(self, views: "Views") -> Pictures:
        from engine.evals.invariance.view_pixels import show

        return lambda rows, positions: show(self.backbone, views, rows, positions)

    def _setting(self) -> Setting:
        options, recipe = self.options, self.backbone.made.recipe
        side = self.backbone.spec.recipe.side
        frame = (
            "the full-size picture, then resized and cropped"
            if options.published
            else f"the {side} x {side} pixels that the bank's recipe renders"
        )
        return Setting(
            self.features.title,
            self.features.name,
            self.source.bank.path.name,
            options,
            self.sample,
            self.statistics,
            self.parity,
            frame,
            self.made.made,
            self.made.stored,
            len(self.views.damaged),
            _codes(self.made.failures.values()),
            not_reproduced(recipe, options) if options.published else (),
        )


def _baseline(images: Any, groups: NDArray[np.int64]) -> Baseline:
    """Return the mean cosine of images of different patients, [n, d] unit vectors."""
    defined = np.flatnonzero(defined_rows(images))
    if len(defined) < len(images):
        images, groups = taken(images, defined), groups[defined]
    interval, pairs = mean_across_groups(images, images, groups)
    return Baseline(interval.mean, interval.ci95, pairs // 2)


def _codes(failures: Iterable[BadImage]) -> dict[str, int]:
    """Count images by reason."""
    return dict(Counter(failure.code for failure in failures))
