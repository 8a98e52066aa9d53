"""Results of saliency: attentive diffusion of each image, their mean, and the errors of the maps."""

from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property
from math import isfinite, nan

import numpy as np
from numpy.typing import NDArray

from engine.evals.common.one_line import counted, number
from engine.evals.common.predictions import Predictions
from engine.evals.common.result import Metric
from engine.evals.common.validity import ValidityIssue
from engine.evals.common.validity_checks import failed_issues
from engine.evals.saliency.errors import SampleError, StrideError
from engine.evals.saliency.estimate import Estimate
from engine.evals.saliency.options import SaliencyOptions
from engine.kernels.intervals import Bootstrap
from engine.kernels.occlusion import Squares
from stores.json_types import Json, JsonObject

_ALONE = "fewer than two images or patients: nothing to draw from"
_NONE = "no image has a map"


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


@dataclass(frozen=True)
class Item:
    """One image's line of a report.

    Attributes:
        image_id, row: of the manifest. stride: of the square.
        diffusion: attentive diffusion, NaN where there is no map.
        mean_score, max_score: of the map. error: of a sample of its scores.
        map: its file below the folder of the maps; None if that could not take it.
        reason, detail: why there is no map; "" where there is.
    """

    image_id: str
    row: int
    stride: int
    diffusion: float = nan
    mean_score: float = nan
    max_score: float = nan
    error: SampleError | None = None
    map: str | None = None
    reason: str = ""
    detail: str = ""

    def to_dict(self) -> JsonObject:
        """Return `{image_id, row, stride, attentive_diffusion, ...}`."""
        body: JsonObject = {
            "image_id": self.image_id,
            "row": self.row,
            "stride": self.stride,
            "attentive_diffusion": self.diffusion,
        }
        if self.reason:
            return {**body, "reason": self.reason, "detail": self.detail}
        error = self.error.to_dict() if self.error else None
        scores: JsonObject = {"mean_score": self.mean_score, "max_score": self.max_score}
        return {**body, **scores, "error": error, "map": self.map}


@dataclass(frozen=True)
class Setting:
    """Settings that the maps of a run share.

    Attributes:
        model: the name shown to users. weights: SHA-256 of its weights.
        options: what was measured, with the stride. squares: where the square stood.
        precision, device: of the encoder.
        key: digest of all that a map depends on besides the image.
    """

    model: str
    weights: str
    options: SaliencyOptions
    squares: Squares
    precision: str
    device: str
    key: str


@dataclass(frozen=True, eq=False, repr=False)
class SaliencyResult:
    """Attentive diffusion of images.

    Attributes:
        items: of each image, in the order drawn or named.
        interval: of the mean, over patients or images; None where there are fewer than two.
        setting: what the maps have in common.
        stride_error: of the map of the image `stride_error_of`; None at stride 1, and where it is not known.
        computed: maps computed now; the others were finished already.
        estimate: made before the first of them, on the CPU.
        notes: remarks for the reader, one sentence each.
        places_per_s: places computed a second, NaN where none was.
        seconds: wall.
    """

    items: tuple[Item, ...]
    interval: Bootstrap | None
    setting: Setting
    stride_error: StrideError | None = None
    stride_error_of: str = ""
    computed: int = 0
    estimate: Estimate | None = None
    notes: tuple[str, ...] = ()
    places_per_s: float = nan
    seconds: float = nan

    def __repr__(self) -> str:
        count = counted(len(self.values), "image")
        return f"SaliencyResult(attentive diffusion {number(self.mean)}; {count}, {self.failed:,} failed)"

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """Attentive diffusion of the images that have one."""
        return np.array([item.diffusion for item in self.items if isfinite(item.diffusion)], np.float64)

    @property
    def mean(self) -> float:
        """Mean attentive diffusion, NaN of no image."""
        return float(self.values.mean()) if len(self.values) else nan

    @property
    def failures(self) -> dict[str, int]:
        """Reason -> images without a map."""
        return dict(Counter(item.reason for item in self.items if item.reason))

    @property
    def failed(self) -> int:
        """Images without a map."""
        return sum(self.failures.values())

    @property
    def validity(self) -> tuple[ValidityIssue, ...]:
        """An issue of images without a map, if there are more than 1 % of them."""
        return tuple(failed_issues(self.failed, len(self.items), "images have no map"))

    def metrics(self) -> dict[str, Metric]:
        """Return the mean attentive diffusion."""
        if not len(self.values):
            return {"attentive_diffusion": Metric(nan, reason=_NONE)}
        if self.interval is None:
            return {"attentive_diffusion": Metric(self.mean, reason=_ALONE)}
        bounds = self.interval
        return {"attentive_diffusion": Metric(self.mean, bounds.low, bounds.high, bounds.reason)}

    def predictions(self) -> Predictions:
        """Return a row for each image: attentive diffusion, mean and largest score, why there is none."""
        items = self.items
        rows = np.array([item.row for item in items], np.intp)
        return Predictions.of(
            rows,
            {
                "attentive_diffusion": np.array([item.diffusion for item in items], np.float64),
                "mean_score": np.array([item.mean_score for item in items], np.float64),
                "max_score": np.array([item.max_score for item in items], np.float64),
                "reason": [item.reason for item in items],
            },
        )

    @cached_property
    def report(self) -> JsonObject:
        """The JSON document: `{model, items, mean, sd, min, max, interval, stride, stride_error, ...}`."""
        setting, options, values = self.setting, self.setting.options, self.values
        items: list[Json] = [item.to_dict() for item in self.items]
        return {
            "model": setting.model,
            "weights": setting.weights,
            "mode": options.mode,
            "items": items,
            "mean": self.mean,
            "sd": float(values.std(ddof=1)) if len(values) > 1 else nan,
            "min": float(values.min()) if len(values) else nan,
            "max": float(values.max()) if len(values) else nan,
            "interval": self._interval(),
            "images": len(items),
            "failed": self.failed,
            "failures": {**self.failures},
            "computed": self.computed,
            **asdict(setting.squares),
            "places": setting.squares.count,
            "fill": options.fill,
            "batch_norm": options.batch_norm,
            "precision": setting.precision,
            "device": setting.device,
            "key": setting.key,
            "stride_error": self._stride_error(),
            "estimate": self.estimate.to_dict() if self.estimate else None,
            "notes": list(self.notes),
            "places_per_s": self.places_per_s,
            "seconds": round(self.seconds, 4),
        }

    def _interval(self) -> JsonObject:
        if self.interval is None:
            return {"low": nan, "high": nan, "reason": _ALONE}
        return {**self.interval.to_dict(), "level": 0.95, "over": "images or patients"}

    def _stride_error(self) -> "JsonObject | None":
        """Return the report's entry on the error of the stride; None at stride 1, which is exact."""
        if self.stride_error is not None:
            return {"image_id": self.stride_error_of, **self.stride_error.to_dict()}
        if self.setting.squares.stride == 1:
            return None
        reason = "it is measured where a map is computed, and none was"
        return {**StrideError.unknown().to_dict(), "reason": reason}

    def to_dict(self) -> JsonObject:
        """Return the report without the model's name and what depends on maps that existed before."""
        return {name: value for name, value in self.report.items() if name not in _ASIDE}


#: Members of a report that are not results.
_ASIDE = (
    *("model", "computed", "estimate", "places_per_s", "seconds", "files"),
    *("validity", "record", "record_reason"),
)
