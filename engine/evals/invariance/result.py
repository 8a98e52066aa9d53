"""Results of invariance to synthetic transforms."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import nan
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.evals.common.one_line import counted, within
from engine.evals.common.predictions import Predictions, Table
from engine.evals.common.result import Metric
from engine.evals.common.validity import ValidityIssue
from engine.evals.invariance.options import InvarianceOptions, Sample
from engine.evals.invariance.statistics import Statistics
from engine.evals.invariance.summary import (
    Summary,
    interval_of_images,
    mean_of_images,
    mean_of_views,
)
from stores.json_types import Json, JsonObject
from stores.parquet import Column

if TYPE_CHECKING:
    from engine.evals.invariance.view_store import Views

#: (rows, views) -> uint8 [1 + views, S, S, 3] of each row, the image first; or why it cannot be read.
Pictures: TypeAlias = "Callable[[Sequence[int], Sequence[int]], list[NDArray[np.uint8] | str]]"
#: Limits of the tables beside a record: columns, and cosines in all. Beyond them only means over views stay.
MOST_VIEWS, MOST_COSINES = 4096, 50_000_000


@dataclass(frozen=True, eq=False, repr=False)
class Setting:
    """Settings and counts that all transforms of a run share.

    Attributes:
        model, feature: title and full name. bank: its folder's name.
        options: what was measured. sample: on which rows.
        statistics: mean and covariance that features were whitened by.
        parity: least cosine of an image's feature to the bank's; None where it was not compared.
        transformed: what the transforms were applied to, in words.
        views_made, views_kept, views_damaged: views encoded now, read from the bank, and made again.
        failures: reason -> images that could not be scored.
        not_reproduced: where `as-published` still differs from the study's code, one sentence each.
    """

    model: str
    feature: str
    bank: str
    options: InvarianceOptions
    sample: Sample
    statistics: Statistics
    parity: float | None
    transformed: str
    views_made: int = 0
    views_kept: int = 0
    views_damaged: int = 0
    failures: Mapping[str, int] = field(default_factory=dict)
    not_reproduced: tuple[str, ...] = ()

    @property
    def failed(self) -> int:
        """Images that could not be scored."""
        return sum(self.failures.values())

    def to_dict(self) -> JsonObject:
        """Return the members that stand in every transform's report."""
        options = self.options
        return {
            "bank": self.bank,
            "images": len(self.sample.scored),
            "seed": options.seed,
            "arithmetic": options.arithmetic,
            "batch_norm": options.batch_norm,
            "transformed": self.transformed,
            "covariance": self.statistics.to_dict(),
            "reference_parity": self.parity,
            "views_made": self.views_made,
            "views_kept": self.views_kept,
            "views_damaged": self.views_damaged,
            "not_reproduced": list(self.not_reproduced),
        }


@dataclass(frozen=True, eq=False, repr=False)
class Invariance:
    """One transform's result.

    Attributes:
        rows: intp [n], images scored, perhaps repeated as published. groups: int64 [n], their patients.
        cosine, distance: float64 [n, k].
        views: what the k views are.
        summary: means with intervals.
        setting: what all transforms of the run have in common.
        grey: scored images without colour.
        pictures: gives the pixels of images and views.
        seconds: that scoring took.
    """

    rows: NDArray[np.intp]
    groups: NDArray[np.int64]
    cosine: NDArray[np.float64]
    distance: NDArray[np.float64]
    views: "Views"
    summary: Summary
    setting: Setting
    grey: int = 0
    pictures: Pictures = lambda rows, views: []
    seconds: float = nan

    def __repr__(self) -> str:
        metric = self.metrics()["cosine"]
        shown = within(metric.value, metric.low, metric.high)
        return f"Invariance({self.transform}: cosine {shown}, {counted(len(self.rows), 'image')})"

    @property
    def transform(self) -> str:
        """Its name, e.g. `rotation`."""
        return self.views.transform

    @property
    def validity(self) -> tuple[ValidityIssue, ...]:
        """Issues of the covariance."""
        return tuple(self.setting.statistics.validity)

    @property
    def reason(self) -> str:
        """Why there is no number; "" where there is."""
        return self.summary.reason

    def metrics(self) -> dict[str, Metric]:
        """Return the mean cosine, and that of different images."""
        return self.summary.metrics()

    @property
    def curve(self) -> NDArray[np.float64]:
        """Mean cosine of each view, float64 [k]; NaN where it is undefined."""
        return np.full(self.views.count, nan) if self.reason else mean_of_images(self.cosine)

    @property
    def curve_ci95(self) -> NDArray[np.float64]:
        """Half the width of the 95 % interval of each mean of `curve` over groups, float64 [k]; or NaN."""
        return np.full(self.views.count, nan) if self.reason else interval_of_images(self.cosine, self.groups)

    def predictions(self) -> Predictions | None:
        """Return tables `images` and `views`; None where no image was scored.

        `images` has the mean cosine and distance of each image, how often it was drawn, and its cosine under
        view V as `cosine.V`; `views` has the parameters of view V and the mean cosine of all images drawn.
        """
        if not len(self.rows):
            return None
        rows, first, drawn = np.unique(self.rows, return_index=True, return_counts=True)
        cosine = self.cosine[first]
        images: dict[str, Column] = {
            "cosine": mean_of_views(cosine),
            "mahalanobis": self.distance[first].mean(axis=1),
            "drawn": drawn.astype(np.int64),
        }
        if self.views.count <= MOST_VIEWS and cosine.size <= MOST_COSINES:
            images |= {f"cosine.{view}": column for view, column in enumerate(cosine.T)}
        return Predictions({"images": Table(images, {"": rows}), "views": Table(self._by_view())})

    def _by_view(self) -> dict[str, Column]:
        from engine.kernels.transforms import find_transform

        names = find_transform(self.transform).parameters
        parameters = np.array(self.views.parameters, np.float64).reshape(self.views.count, len(names))
        return {
            "view": np.arange(self.views.count),
            **{name: parameters[:, column] for column, name in enumerate(names)},
            "cosine": mean_of_images(self.cosine),
        }

    @cached_property
    def report(self) -> JsonObject:
        """The JSON document: `{model, transform, cosine, ci95, baseline, n, ...}`, or why it is undefined."""
        body: JsonObject = {
            "model": self.setting.model,
            "feature": self.setting.feature,
            "mode": self.setting.options.mode,
            "transform": self.transform,
        }
        shared: JsonObject = {"grey": self.grey, "failed": self.setting.failed, **self.setting.to_dict()}
        if not len(self.rows):
            undefined = dict.fromkeys(("cosine", "ci95", "mahalanobis", "baseline"), nan)
            return {**body, **undefined, "n": 0, "reason": self.reason, **shared}
        numbers = self.summary.to_dict()
        return {**body, **numbers, "views": self.views.count, **shared, "seconds": round(self.seconds, 4)}

    def to_dict(self) -> JsonObject:
        """Return the report without the features' names and without what depends on the bank's caches."""
        body = {name: value for name, value in self.report.items() if name not in _ASIDE}
        return {**body, "covariance": self.setting.statistics.numbers()}


#: Members of a report that are not results.
_ASIDE = (
    *("model", "feature", "bank", "views_made", "views_kept", "views_damaged", "seconds"),
    *("validity", "record", "record_reason"),
)


@dataclass(frozen=True, eq=False)
class InvarianceResult:
    """Results of all requested transforms, in the order requested.

    Attributes:
        transforms: one result each.
    """

    transforms: tuple[Invariance, ...]

    @property
    def setting(self) -> Setting:
        """The setting that all transforms share."""
        return self.transforms[0].setting

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks for the reader, one sentence each."""
        return self.setting.not_reproduced

    @property
    def validity(self) -> tuple[ValidityIssue, ...]:
        """Issues of the covariance, which all transforms share."""
        return self.transforms[0].validity

    def metrics(self) -> dict[str, Metric]:
        """Return `TRANSFORM.cosine` and `TRANSFORM.baseline` of each."""
        return {
            f"{result.transform}.{name}": metric
            for result in self.transforms
            for name, metric in result.metrics().items()
        }

    def predictions(self) -> Predictions | None:
        """Return a row for each image: its mean cosine under each transform, NaN where it has none."""
        rows = np.unique(np.concatenate([result.rows for result in self.transforms]))
        if not len(rows):
            return None
        columns: dict[str, Column] = {}
        for result in self.transforms:
            cosine = np.full(len(rows), nan)
            cosine[np.searchsorted(rows, result.rows)] = mean_of_views(result.cosine)
            columns[f"cosine.{result.transform}"] = cosine
        return Predictions.of(rows, columns)

    def to_dict(self) -> JsonObject:
        """Return `{transforms}`: the document of each."""
        documents: list[Json] = [result.to_dict() for result in self.transforms]
        return {"transforms": documents}
