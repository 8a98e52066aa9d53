"""Invariance of features to synthetic transforms: equations 3-5 of Anton et al., J. Imaging 2022, 8, 320.

The mean cosine between whitened deviations of an image and of its transformed views, 1 for a perfectly
invariant model and that of two different images for one that does not know them again; and their Mahalanobis
distance. Mean and covariance come from the bank; only the scored images are opened.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.common.one_line import counted, within
from engine.evals.invariance.options import LEAST_IMAGES, InvarianceOptions, draw
from engine.evals.invariance.statistics import Statistics, statistics
from engine.kernels.cluster_robust import across_groups, clustered, own_groups
from engine.kernels.whitening import Whitening, agreement
from engine.versions import versions
from stores.bank.reader import Bank, FeatureSet
from stores.bank.records import RunRecord, keep, together

if TYPE_CHECKING:
    from engine.evals.invariance.view_store import Views
    from engine.recipes import Recipe

#: Below this cosine to the bank's row an image is not the one that was embedded.
_SAME_IMAGE = 0.99


@dataclass(frozen=True)
class Invariance:
    """One transform's result.

    Attributes:
        rows: of the images scored; groups: int64 [n], their patients; cosine, distance: float64 [n, k].
        views: what the k views are.
        report: the JSON document.
        pictures: (rows, views) -> uint8 [1 + views, S, S, 3] of each row: the image, then these views;
            or why it cannot be read.
    """

    rows: NDArray[np.intp]
    groups: NDArray[np.int64]
    cosine: NDArray[np.float64]
    distance: NDArray[np.float64]
    views: "Views"
    report: dict[str, Any]
    pictures: Callable[[Sequence[int], Sequence[int]], list[NDArray[np.uint8] | str]]

    def __repr__(self) -> str:
        cosine, half = (self.report.get(name, float("nan")) for name in ("cosine", "ci95"))
        shown = within(cosine, cosine - half, cosine + half)
        return f"Invariance({self.report['transform']}: cosine {shown}, {counted(len(self.rows), 'image')})"


def summarise(
    cosine: NDArray[np.float64],
    distance: NDArray[np.float64],
    groups: NDArray[np.int64],
    *,
    published: bool = False,
) -> dict[str, Any]:
    """Means over views, then images, with intervals over groups.

    As published: over images for each view, leaving out what is undefined, then over views; one view that is
    nowhere defined makes the result NaN.

    Returns:
        `{cosine, ci95, mahalanobis, mahalanobis_ci95, n, groups, undefined}`.
    """
    defined = np.isfinite(cosine)
    sums = np.where(defined, cosine, 0).sum(axis=1)
    usable = defined.any(axis=1)
    each = sums[usable] / defined.sum(axis=1)[usable]
    of_cosine = clustered(each, groups[usable])
    of_distance = clustered(distance.mean(axis=1), groups)
    mean = of_cosine.mean
    if published and len(cosine):
        counts = defined.sum(axis=0)
        with np.errstate(invalid="ignore"):
            mean = float((np.where(defined, cosine, 0).sum(axis=0) / counts).mean())
    found: dict[str, Any] = {
        "cosine": mean,
        "ci95": of_cosine.ci95,
        "mahalanobis": of_distance.mean,
        "mahalanobis_ci95": of_distance.ci95,
        "n": int(usable.sum()),
        "groups": len(np.unique(groups[usable])),
        "undefined": int((~defined).sum()),
    }
    if not np.isfinite(found["ci95"]):
        found["ci95_reason"] = "an interval needs two images of different patients"
    if not np.isfinite(found["mahalanobis_ci95"]):
        found["mahalanobis_ci95_reason"] = "an interval needs two images of different patients"
    return found


def too_few(n: int, what: str = "images") -> dict[str, Any]:
    """What replaces the numbers of a report that rests on fewer than `LEAST_IMAGES`, else nothing.

    Args:
        n: different images (or pairs of them) scored.
        what: they are, in words.
    """
    if n >= LEAST_IMAGES:
        return {}
    names = ("cosine", "ci95", "mahalanobis", "mahalanobis_ci95", "baseline", "baseline_ci95")
    reason = f"it rests on {n} {what}, and fewer than {LEAST_IMAGES} give no number (raise --images)"
    return {**dict.fromkeys(names, float("nan")), "reason": reason}


def baseline_reason(ci95: float) -> dict[str, str]:
    """`{baseline_ci95_reason}` where the baseline has no interval, else nothing."""
    why = "an interval needs images of three different patients"
    return {} if np.isfinite(ci95) else {"baseline_ci95_reason": why}


def invariances_from_bank(
    bank: Path | str,
    model: str,
    options: InvarianceOptions,
    *,
    weights: Path | None = None,
    root: Path | None = None,
    device: str = "auto",
    on_progress: Callable[[Any], None] | None = None,
    skip_undefined: bool = False,
) -> list[Invariance]:
    """Measure a model's invariances; keeps a RunRecord of each.

    Args:
        model: slug or feature name.
        weights, root, device: as for `engine.embed.restore.restore`.
        on_progress: told about a pass over the images.
        skip_undefined: leave out transforms that the images cannot have, with a reason in the report,
            instead of refusing.

    Raises:
        Refused: see `draw`, `engine.embed.restore.restore`, `engine.kernels.whitening.whitener`; a
            transform of colours where all scored images are grey.
        MachineFault: the run can be resumed.
    """
    return _Measurement(bank, model, options).run(weights, root, device, on_progress, skip_undefined)


class _Measurement:
    """One model, some transforms."""

    def __init__(self, bank: Path | str, model: str, options: InvarianceOptions) -> None:
        self.started = time.perf_counter()
        self.store = Bank.open(bank)
        self.features: FeatureSet = self.store.features(model)
        self.options = options
        self.groups = own_groups(self.store.column("group")[0])
        self.sample = draw(self.features.ok, self.groups, options)

    def run(
        self,
        weights: Path | None,
        root: Path | None,
        device: str,
        on_progress: Callable[[Any], None] | None,
        skip_undefined: bool,
    ) -> list[Invariance]:
        from engine.embed.restore import restore
        from engine.evals.invariance.view_features import make_views
        from engine.evals.invariance.view_store import REFERENCE, Views, ViewStore
        from engine.kernels.transforms import find

        options = self.options
        common: dict[str, Any] = {"published": options.published, "batch_norm": options.batch_norm}
        asked = []
        for name in options.transforms:
            plan = find(name).plan(options.views, identity=options.published)
            if not plan:
                raise Refused(
                    f"{options.views} views of {name}", "None is left without the identity", "raise --views"
                )
            asked.append(Views(name, tuple(plan), **common))
        self.reference = Views(REFERENCE, **common)
        backbone = restore(self.store, self.features.name, weights=weights, root=root, device=device)
        self.backbone = backbone
        self.views = ViewStore(self.features)
        rows = np.unique(self.sample.scored).tolist()
        seen = [(self.reference, row) for row in rows] + [(views, rows[0]) for views in asked]
        if backbone.root is not None or any(self.views.read(views, row) is None for views, row in seen):
            _ = backbone.images  # where they are missing, before anything is computed
        # The images themselves first, and nothing of them in the bank, until nothing can be refused any more.
        self.views.hold()
        self.made = make_views(self.views, backbone, rows, [self.reference])
        self._check_images()
        if not skip_undefined:
            self._refuse_colourless(asked)
        self.statistics = self._statistics()
        self.views.release()
        self.made = self.made.plus(make_views(self.views, backbone, list(self.originals), asked, on_progress))
        self._refuse_none_present()
        with together():
            return [self._score(views, skip_undefined) for views in asked]

    def _statistics(self) -> Statistics:
        runtime = self.backbone.runtime
        found = statistics(
            self.features,
            self.sample.covariance,
            self.options.how,
            arithmetic=self.options.arithmetic,
            device=runtime.device,
        )
        self.whitening = Whitening(found.whitener, arithmetic=self.options.arithmetic, device=runtime.device)
        return found

    def _refuse_none_present(self) -> list[int]:
        """The scored rows without failure; some must be there."""
        present = [r for r in self.sample.scored.tolist() if r not in self.made.failures]
        self.present = np.array(present, np.intp)
        if not present:
            row, why = next(iter(self.made.failures.items()))
            name = self.store.manifest().image_ids[row]
            raise Refused(
                f"None of {len(self.sample.scored)} images could be scored "
                f"({name!r}: {why.code}: {why.detail})",
                "The scored images are opened and transformed",
                "say where they are with --root",
            )
        return present

    def _refuse_colourless(self, asked: "list[Views]") -> None:
        from engine.kernels.transforms import find

        if self.options.published or not all(each.grey for each in self.originals.values()):
            return
        for views in asked:
            if find(views.transform).colour:
                self._without_colour(views, skip_undefined=False)

    def _check_images(self) -> None:
        """Some image must be there, and be the one that was embedded."""
        present = self._refuse_none_present()
        kept = {row: self.views.read(self.reference, row) for row in set(present)}
        self.originals = {row: each for row, each in kept.items() if each is not None}
        if self.options.published:
            self.parity = None
            return
        a = np.stack([self.originals[r].features[0] for r in present]).astype(np.float64)
        b = self.features.take(self.present).astype(np.float64)
        cosine = (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
        self.parity = float(cosine.min())
        if self.parity < _SAME_IMAGE:
            row = present[int(cosine.argmin())]
            raise Refused(
                f"{self.backbone.images.uris[row]} has a feature of cosine {self.parity:.3f} to the bank's",
                "Views are compared with images that are those of the bank",
                "put the files back that were embedded, or embed again into a new bank",
            )

    def _score(self, views: "Views", skip_undefined: bool) -> Invariance:
        from engine.kernels.transforms import find

        before = time.perf_counter()
        kept = {row: self.views.read(views, row) for row in set(self.present.tolist())}
        grey = np.array([self.originals[r].grey for r in self.present.tolist()])
        rows = self.present
        if find(views.transform).colour and not self.options.published:
            rows = rows[~grey]
        shape = (len(rows), views.count)
        if not len(rows):
            return self._without_colour(views, skip_undefined)
        features = np.stack([kept[row].features for row in rows.tolist()])  # type: ignore[union-attr]
        originals = np.stack([self.originals[row].features[0] for row in rows.tolist()])
        found = agreement(self.whitening, originals, features)
        assert found.cosine.shape == shape
        groups = self.groups[rows]
        known = np.isfinite(found.images).all(axis=1)
        baseline, pairs = across_groups(found.images[known], found.images[known], groups[known])
        summary = summarise(found.cosine, found.distance, groups, published=self.options.published)
        report = {
            "model": self.features.title,
            "feature": self.features.name,
            "mode": self.options.mode,
            "transform": views.transform,
            **summary,
            "baseline": baseline.mean,
            "baseline_ci95": baseline.ci95,
            **baseline_reason(baseline.ci95),
            "baseline_pairs": pairs // 2,
            **too_few(len(np.unique(rows[np.isfinite(found.cosine).any(axis=1)]))),
            "views": views.count,
            "grey": int(grey.sum()),
            "failed": len(self.made.failures),
            **self._common(),
            "seconds": round(time.perf_counter() - before, 4),
        }
        self._record(report, views, found.cosine)
        return Invariance(rows, groups, found.cosine, found.distance, views, report, self._pictures(views))

    def _without_colour(self, views: "Views", skip_undefined: bool) -> Invariance:
        reason = f"all {len(self.present)} scored images are grey: {views.transform} leaves them as they are"
        if not skip_undefined:
            raise Refused(
                f"{views.transform}: {reason}",
                "A transform of colours needs pictures with colours",
                "choose another --transform, or --mode as-published, which counts them",
            )
        nothing = np.empty((0, views.count))
        undefined = dict.fromkeys(("cosine", "ci95", "mahalanobis", "baseline"), float("nan"))
        report = {
            "model": self.features.title,
            "feature": self.features.name,
            "mode": self.options.mode,
            "transform": views.transform,
            **undefined,
            "n": 0,
            "reason": reason,
            "grey": len(self.present),
            "failed": len(self.made.failures),
            **self._common(),
        }
        self._record(report, views, nothing)
        return Invariance(
            self.present[:0], self.groups[:0], nothing, nothing, views, report, self._pictures(views)
        )

    def _pictures(
        self, views: "Views"
    ) -> Callable[[Sequence[int], Sequence[int]], list[NDArray[np.uint8] | str]]:
        from engine.evals.invariance.view_pixels import show

        return lambda rows, chosen: show(self.backbone, views, rows, chosen)

    def _common(self) -> dict[str, Any]:
        options = self.options
        side = self.backbone.spec.recipe.side
        frame = (
            "the full-size picture, then resized and cropped"
            if options.published
            else f"the {side} x {side} pixels that the bank's recipe renders"
        )
        return {
            "bank": self.store.path.name,
            "images": len(self.sample.scored),
            "seed": options.seed,
            "arithmetic": options.arithmetic,
            "batch_norm": options.batch_norm,
            "transformed": frame,
            "covariance": self.statistics.to_dict(),
            "reference_parity": self.parity,
            "views_made": self.made.made,
            "views_kept": self.made.kept,
            "views_damaged": len(self.views.damaged),
            "not_reproduced": _not_reproduced(self.backbone.made.recipe, options)
            if options.published
            else [],
        }

    def _record(self, report: dict[str, Any], views: "Views", cosine: NDArray[np.float64]) -> None:
        from engine.kernels.transforms import find

        asked = ("model", "mode", "transform", "images", "seed", "arithmetic", "batch_norm")
        apart = (*asked, "feature", "seconds", "covariance", "not_reproduced", "failed", "transformed")
        with np.errstate(invalid="ignore"):
            curve = np.where(np.isfinite(cosine), cosine, 0).sum(0) / np.isfinite(cosine).sum(0)
        if "reason" in report:
            curve = np.full(views.count, np.nan)
        record = RunRecord.now(
            kind="invariance",
            asked={**{name: report[name] for name in asked}, "views": views.count},
            used={
                "feature": self.features.name,
                "key": self.features.key.digest,
                "manifest_digest": self.store.manifest_digest,
                "rows": self.sample.scored,
                "transformed": report["transformed"],
                "covariance": report["covariance"],
                "not_reproduced": report["not_reproduced"],
                "device": self.backbone.runtime.device,
                "precision": self.backbone.runtime.numerics,
            },
            metrics={
                **{name: value for name, value in report.items() if name not in apart},
                "by_view": {
                    "names": find(views.transform).parameters,
                    "parameters": views.parameters,
                    "cosine": curve,
                },
            },
            seconds={
                "total": round(time.perf_counter() - self.started, 4),
                "views": round(self.made.seconds, 4),
                "covariance": round(self.statistics.seconds, 4),
            },
            versions=versions(),
            failures=_codes(self.made.failures),
        )
        keep(record, self.store.path, report)


def _codes(failures: dict[int, Any]) -> dict[str, int]:
    """Reason -> number of images."""
    found: dict[str, int] = {}
    for each in failures.values():
        found[each.code] = found.get(each.code, 0) + 1
    return found


def _not_reproduced(made: "Recipe", options: InvarianceOptions) -> Sequence[str]:
    """Where `as-published` still differs from the study's code, in sentences for the record."""
    found = [
        "NumPy's and torch's random numbers of 2022: other images are drawn, by the same rule",
        "transforms are computed on tensors instead of Pillow images; few pixels differ, by a level",
        "the deformation's random numbers are drawn once a view, not once a view and image",
        "the inverse covariance is not rounded to float32 before it is factored",
    ]
    side = made.side
    if (made.resize, made.size, made.interpolation) != ("short", side * 256 // 224, "bilinear"):
        found.append(
            f"mean and covariance are of the bank's pixels (short side {made.size}, {made.interpolation}), "
            f"not of short side {side * 256 // 224} bilinear: use "
            "`embank embed --recipe imagenet-256-224-bilinear`"
        )
    if options.batch_norm == "train":
        found.append("mean and covariance are of features with BatchNorm in eval mode, as the bank's are")
    return found
