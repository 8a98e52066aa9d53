"""Results of reconstruction: loss and perceptual distance of each network, and how seeds differ."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite, nan

import numpy as np
from numpy.typing import NDArray

from engine.evals.common.one_line import counted, number
from engine.evals.common.predictions import Predictions, Table
from engine.evals.common.result import Metric
from engine.evals.common.validity import ValidityIssue
from engine.evals.common.validity_checks import failed_issues
from engine.evals.reconstruction.options import ReconstructionOptions
from engine.kernels.intervals import Bootstrap
from stores.json_types import Json, JsonObject
from stores.parquet import Column

#: Nets of LPIPS, whose plain mean is `mean`.
LPIPS = ("alex", "squeeze", "vgg", "mean")
_ALONE = "fewer than two images or patients: nothing to draw from"
_NONE = "no image was reconstructed"
#: Number of steps of a loss curve that a record keeps.
_POINTS = 24


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """One finished reconstruction, with its pictures.

    Attributes:
        image_id: of the manifest. position: of the image in the run. seed: of the network.
        original, image: uint8 [S, S, 3]; `image` as it is read back from the file.
        file: name for the file. data: its bytes.
        loss: of the features. lpips: net -> distance, see `LPIPS`; NaN where it is not known.
    """

    image_id: str
    position: int
    seed: int
    original: NDArray[np.uint8]
    image: NDArray[np.uint8]
    file: str
    data: bytes
    loss: float
    lpips: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Item:
    """One network's line of a report.

    Attributes:
        image_id, row: of the manifest. seed: of the network.
        loss, initial_loss: mean squared error of the feature map, at the end and before the first update.
        lpips: net -> distance.
        losses: float32, before each update and at the end; empty where there is no reconstruction.
        file: name of the picture in the folder of pictures.
        kept: file of the reconstruction below the bank; None if that could not take it.
        reason, detail: why there is no reconstruction; "" where there is one.
    """

    image_id: str
    row: int
    seed: int
    loss: float = nan
    initial_loss: float = nan
    lpips: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(LPIPS, nan))
    losses: NDArray[np.float32] = field(default_factory=lambda: np.zeros(0, np.float32))
    file: str | None = None
    kept: str | None = None
    reason: str = ""
    detail: str = ""

    def to_dict(self) -> JsonObject:
        """Return `{image_id, row, seed, loss, initial_loss, lpips, file, kept}`, or with a reason."""
        body: JsonObject = {
            "image_id": self.image_id,
            "row": self.row,
            "seed": self.seed,
            "loss": self.loss,
            "initial_loss": self.initial_loss,
            "lpips": {**self.lpips},
        }
        if self.reason:
            return {**body, "reason": self.reason, "detail": self.detail}
        return {**body, "file": self.file, "kept": self.kept}


@dataclass(frozen=True)
class Setting:
    """Settings that the reconstructions of a run share.

    Attributes:
        model: the name shown to users. weights: SHA-256 of its weights.
        options: as given.
        layer: whose map was inverted. shape: of the map, (channels, rows, columns).
        side: of the images, pixels. noise: of the networks' input, pixels.
        precision, device: of the arithmetic.
        key: digest of all that a reconstruction depends on besides image and seed.
        lpips_reason: why LPIPS is not known; "" if it is.
    """

    model: str
    weights: str
    options: ReconstructionOptions
    layer: str
    shape: tuple[int, ...]
    side: int
    noise: int
    precision: str
    device: str
    key: str
    lpips_reason: str = ""


@dataclass(frozen=True)
class Work:
    """What a run had to do.

    Attributes:
        computed: networks optimised now; the others were finished already. updates: of these.
        abreast: networks at a time. memory: bytes that they took.
        estimate: made after the first updates; None where none was needed.
        seconds: wall.
    """

    computed: int = 0
    updates: int = 0
    abreast: int = 0
    memory: int = 0
    estimate: "JsonObject | None" = None
    seconds: float = nan


@dataclass(frozen=True, eq=False, repr=False)
class ReconstructionResult:
    """Losses and perceptual distances.

    Attributes:
        items: of each image and seed, in order.
        setting: what they have in common. work: what had to be done.
        intervals: of the means over images of `loss` and `lpips`; None where there are fewer than two.
        notes: remarks for the reader, one sentence each.
    """

    items: tuple[Item, ...]
    setting: Setting
    work: Work
    intervals: Mapping[str, Bootstrap | None]
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        count = counted(len(self.by_image), "image")
        return f"ReconstructionResult(LPIPS {number(self.mean('lpips'))}; {count}, {self.failed:,} failed)"

    @cached_property
    def by_image(self) -> dict[int, list[Item]]:
        """Row -> its items."""
        rows: dict[int, list[Item]] = {}
        for item in self.items:
            rows.setdefault(item.row, []).append(item)
        return rows

    def mean(self, name: str) -> float:
        """Return the mean over images of their mean over seeds, of `loss` or `lpips`; NaN of none."""
        values = means(self.items, name)[1]
        return float(values.mean()) if len(values) else nan

    def seed_sd(self, name: str) -> float:
        """Return the mean over images of the standard deviation between seeds; NaN below two seeds."""
        spreads = [_sd(values_of(items, name)) for items in self.by_image.values()]
        finite = [spread for spread in spreads if isfinite(spread)]
        return float(np.mean(finite)) if finite else nan

    @property
    def failures(self) -> dict[str, int]:
        """Reason -> networks without a reconstruction."""
        return dict(Counter(item.reason for item in self.items if item.reason))

    @property
    def failed(self) -> int:
        """Images without any reconstruction."""
        return sum(all(item.reason for item in items) for items in self.by_image.values())

    @property
    def validity(self) -> tuple[ValidityIssue, ...]:
        """An issue of images without a reconstruction, if there are more than 1 % of them."""
        return tuple(failed_issues(self.failed, len(self.by_image), "images have no reconstruction"))

    def metrics(self) -> dict[str, Metric]:
        """Return the mean perceptual distance and the mean loss."""
        return {name: self._metric(name) for name in ("lpips", "loss")}

    def _metric(self, name: str) -> Metric:
        value, bounds = self.mean(name), self.intervals.get(name)
        if not isfinite(value):
            return Metric(nan, reason=self._undefined(name))
        if bounds is None:
            return Metric(value, reason=_ALONE)
        return Metric(value, bounds.low, bounds.high, bounds.reason)

    def _undefined(self, name: str) -> str:
        made = any(not item.reason for item in self.items)
        return self.setting.lpips_reason if name == "lpips" and made and self.setting.lpips_reason else _NONE

    def predictions(self) -> Predictions:
        """Return a row for each image, and a row for each network."""
        groups = list(self.by_image.values())
        spread = {
            f"{name}.{what}": np.array([of(values_of(items, name)) for items in groups], np.float64)
            for name in ("loss", "lpips")
            for what, of in (("mean", _mean), ("sd", _sd))
        }
        reasons = {"reason": [next((i.reason for i in items if i.reason), "") for items in groups]}
        rows = np.array(list(self.by_image), np.intp)
        numbers = {
            name: np.array([of(item) for item in self.items], np.float64) for name, of in _COLUMNS.items()
        }
        networks: dict[str, Column] = {
            "image_id": [item.image_id for item in self.items],
            "seed": np.array([item.seed for item in self.items], np.int64),
            **numbers,
            "reason": [item.reason for item in self.items],
        }
        return Predictions({"images": Table({**spread, **reasons}, {"": rows}), "networks": Table(networks)})

    @cached_property
    def report(self) -> JsonObject:
        """The JSON document: `{model, items, lpips, loss, by_image, curves, ...}`."""
        setting, options, work = self.setting, self.setting.options, self.work
        items: list[Json] = [item.to_dict() for item in self.items]
        return {
            "model": setting.model,
            "weights": setting.weights,
            "mode": options.mode,
            "items": items,
            "lpips": self._summary("lpips"),
            "loss": self._summary("loss"),
            "by_image": [self._image(group) for group in self.by_image.values()],
            "curves": self._curves(),
            "images": len(self.by_image),
            "failed": self.failed,
            "failures": {**self.failures},
            "steps": options.steps,
            "updates": options.updates,
            "seeds": options.count,
            "lr": options.lr,
            "layer": setting.layer,
            "shape": list(setting.shape),
            "side": setting.side,
            "noise": setting.noise,
            "precision": setting.precision,
            "device": setting.device,
            "key": setting.key,
            "notes": list(self.notes),
            "computed": work.computed,
            "abreast": work.abreast,
            "memory": work.memory,
            "estimate": work.estimate,
            "seconds": round(work.seconds, 4),
        }

    def _summary(self, name: str) -> JsonObject:
        value, bounds = self.mean(name), self.intervals.get(name)
        interval: JsonObject = {"low": nan, "high": nan, "reason": _ALONE}
        if bounds is not None:
            interval = {**bounds.to_dict(), "level": 0.95, "over": "images or patients"}
        body: JsonObject = {"mean": value, "seed_sd": self.seed_sd(name), "interval": interval}
        return body if isfinite(value) else {**body, "reason": self._undefined(name)}

    def _image(self, items: Sequence[Item]) -> JsonObject:
        body: JsonObject = {"image_id": items[0].image_id}
        for name in ("loss", "lpips"):
            values = values_of(items, name)
            body[name] = {"mean": _mean(values), "sd": _sd(values), "seeds": len(values)}
        return body

    def _curves(self) -> JsonObject:
        """Return losses at some steps: `{steps, losses: a list for each item with a reconstruction}`."""
        made = [item for item in self.items if len(item.losses)]
        last = self.setting.options.updates
        steps = sorted({0, *np.geomspace(1, last, _POINTS).round().astype(int).tolist()})
        losses: list[Json] = [[float(item.losses[step]) for step in steps] for item in made]
        names: list[Json] = [f"{item.image_id}, seed {item.seed}" for item in made]
        return {"steps": list(steps), "of": names, "losses": losses}

    def to_dict(self) -> JsonObject:
        """Return the report without the model's name and what depends on earlier runs."""
        return {name: value for name, value in self.report.items() if name not in _ASIDE}


#: Members of a report that are not results.
_ASIDE = (
    *("model", "computed", "abreast", "memory", "estimate", "seconds"),
    *("files", "validity", "record", "record_reason"),
)

#: Column of a network's row -> its value.
_COLUMNS: Mapping[str, Callable[[Item], float]] = {
    "loss": lambda item: item.loss,
    "initial_loss": lambda item: item.initial_loss,
    **{f"lpips.{net}": lambda item, net=net: item.lpips[net] for net in LPIPS},  # type: ignore[misc]
}


def values_of(items: Sequence[Item], name: str) -> NDArray[np.float64]:
    """Return the finite `loss`, or mean `lpips`, of an image's networks."""
    values = np.array([item.loss if name == "loss" else item.lpips["mean"] for item in items], np.float64)
    finite: NDArray[np.float64] = values[np.isfinite(values)]
    return finite


def means(items: Sequence[Item], name: str) -> tuple[list[int], NDArray[np.float64]]:
    """Return the rows of images that have a finite `loss` or `lpips`, and its mean over seeds."""
    rows: dict[int, list[Item]] = {}
    for item in items:
        rows.setdefault(item.row, []).append(item)
    known = {row: values for row, group in rows.items() if len(values := values_of(group, name))}
    return list(known), np.array([values.mean() for values in known.values()], np.float64)


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else nan


def _sd(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else nan
