"""How long cells and embedding take: by measured rates where there are any, else by one machine's table."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median

from engine.errors import Refused
from engine.models.backbones import architecture_cache
from engine.models.catalog import lookup
from engine.study.cells import COMPARE
from engine.study.study import Cell, Model
from stores.bank.record_index import RecordEntry
from stores.json_types import JsonObject

#: What the table below was measured on.
MACHINE = "2 cores of an AMD EPYC, no GPU"
#: Architecture -> (seconds a forward pass of one image at 224 pixels in float32, length of the feature). The
#: first two while 120 X-rays were embedded (n = 1, November 2026, torch 2.15); the others by their ratio to
#: these in processor time (batches of 8, least of 4).
ARCHITECTURES = {
    "timm/tf_efficientnet_lite0": (0.0079, 1280),
    "torchvision/resnet18": (0.0134, 512),
    "torchvision/resnet50": (0.0282, 2048),
    "torchvision/densenet121": (0.0240, 1024),
    "torchvision/shufflenet_v2_x0_5": (0.0019, 1024),
}
#: Seconds to decode one of these X-rays.
DECODE = 0.0087
#: Views of transforms that fix their number.
_FIXED_VIEWS = {"h_flip": 2, "v_flip": 2, "grayscale": 2, "invert": 2, "equalize": 2, "posterize": 7}
#: Longest time that is estimated: a year.
_LONGEST = 365 * 86400.0


@dataclass(frozen=True)
class Rates:
    """What was measured in the records of a study's banks.

    Attributes:
        forward: measured seconds of encoders by the table's, median over passes; None without any.
        decode: median seconds an image; None where nothing was measured.
        cells: (kind, model) -> median of measured seconds by those of the table; model "" is over all.
    """

    forward: float | None = None
    decode: float | None = None
    cells: Mapping[tuple[str, str], float] = field(default_factory=dict)


@dataclass(frozen=True)
class Estimate:
    """Seconds that something takes; `measured` says whether by rates of this study's own records."""

    seconds: float
    measured: bool


def architecture_of(model: Model) -> str:
    """Return the architecture of a model, without its modifier."""
    return lookup.find(model.slug).architecture.partition("+")[0]


def dimension_of(model: Model, side: int | None) -> int | None:
    """Return the length of a model's feature; None where the architecture would have to be built to know."""
    architecture = lookup.find(model.slug).architecture
    if (known := ARCHITECTURES.get(architecture.partition("+")[0])) is not None:
        return known[1]
    try:
        return architecture_cache.dimension(architecture, side or 224)
    except (Refused, ValueError):
        return None


def forward_seconds(model: Model, side: int) -> float:
    """Return the table's seconds an image; unknown architectures take as long as a ResNet-50."""
    known = ARCHITECTURES.get(architecture_of(model), ARCHITECTURES["torchvision/resnet50"])
    return known[0] * (side / 224) ** 2


def rates_of(
    embedded: Iterable[RecordEntry], timed: Iterable[tuple[Cell, RecordEntry, float]], side: int
) -> Rates:
    """Collect the rates of records.

    Args:
        embedded: records of embedding.
        timed: cells that are done, their records, and the table's seconds for each.
        side: of the inputs in pixels.
    """
    forward: list[float] = []
    decode: list[float] = []
    for stages, slugs in _passes(embedded):
        table = sum(_table_forward(slug, side) for slug in slugs)
        if (rate := _busy_seconds(stages.get("encode"))) is not None and table > 0:
            forward.append(rate / table)
        if (rate := _busy_seconds(stages.get("decode"))) is not None:
            decode.append(rate)
    ratios: dict[tuple[str, str], list[float]] = {}
    for cell, entry, table in timed:
        assert entry.record is not None
        total = entry.record.seconds.get("total")
        if isinstance(total, (int, float)) and total > 0 and table > 0:
            for model in (cell.model, ""):
                ratios.setdefault((cell.kind, model), []).append(total / table)
    return Rates(
        median(forward) if forward else None,
        median(decode) if decode else None,
        {key: median(values) for key, values in ratios.items()},
    )


def _passes(embedded: Iterable[RecordEntry]) -> list[tuple[JsonObject, list[str]]]:
    """Return the stages of each decode pass, and the models that shared it: their records say the same."""
    passes: list[tuple[JsonObject, list[str]]] = []
    for entry in embedded:
        assert entry.record is not None
        stages, slug = _object(entry.record.seconds.get("stages")), str(entry.record.asked.get("model"))
        same = [slugs for other, slugs in passes if other == stages]
        if same:
            same[0].append(slug)
        elif stages:
            passes.append((stages, [slug]))
    return passes


def _table_forward(slug: str, side: int) -> float:
    """Return the table's seconds an image of a model; 0 for one that is not known here."""
    try:
        return forward_seconds(Model(slug, slug), side)
    except Refused:
        return 0.0


def _busy_seconds(stage: object) -> float | None:
    """Return the busy seconds an image of a stage."""
    members = _object(stage)
    busy, images = members.get("busy_s"), members.get("images")
    if isinstance(busy, (int, float)) and isinstance(images, (int, float)) and images > 0:
        return float(busy) / float(images)
    return None


def _object(value: object) -> JsonObject:
    return value if isinstance(value, dict) else {}


def pass_estimate(models: Iterable[Model], images: int, side: int | None, rates: Rates) -> Estimate:
    """Estimate one decode pass that embeds images with several models, by the slower of its stages."""
    decode = rates.decode if rates.decode is not None else DECODE
    encode = sum(forward_seconds(model, side or 224) for model in models)
    measured = rates.decode is not None and rates.forward is not None
    encode *= rates.forward if rates.forward is not None else 1.0
    return Estimate(min(images * max(decode, encode), _LONGEST), measured)


def cell_estimate(cell: Cell, table: float, rates: Rates) -> Estimate:
    """Scale the table's seconds by what was measured for this kind and model, or this kind."""
    for model in (cell.model, ""):
        if (ratio := rates.cells.get((cell.kind, model))) is not None:
            return Estimate(min(table * ratio, _LONGEST), True)
    return Estimate(min(table, _LONGEST), False)


class _Numbers:
    """Reads numbers of a cell's options."""

    def __init__(self, cell: Cell) -> None:
        self._options = cell.options

    def __call__(self, name: str, usual: float) -> float:
        value = self._options.get(name, usual)
        return float(value) if isinstance(value, (int, float)) else usual


def table_seconds(cell: Cell, rows: int, forward: float, side: int) -> float:
    """Return the seconds that a cell would take on `MACHINE`, roughly.

    Args:
        rows: images of the data set; forward: seconds a forward pass (`forward_seconds`).
        side: of the model's input in pixels.
    """
    number = _Numbers(cell)
    if cell.kind == COMPARE:
        return 1.0 + rows * 1e-4
    if cell.kind == "fewshot":
        return 0.4 + number("episodes", 600) * 5e-4 + rows * 1e-6
    if cell.kind in ("knn", "audit"):
        return 0.2 + rows**2 * 1e-8
    if cell.kind == "probe":
        repeats = number("folds", 1) * number("repeats", 1)
        return 1.5 + rows * 8e-4 * repeats * number("values", 45) / 45
    if cell.kind == "multiview":
        return 2.0
    if cell.kind == "finetune":
        return number("steps", 5000) * (number("batch_size", 64) * 8 * forward)
    return 1.0 + _of_images(cell, number, forward, side)


def _of_images(cell: Cell, number: _Numbers, forward: float, side: int) -> float:
    """Return the seconds of kinds that open images, by their forward passes."""
    published = cell.mode == "as-published"
    if cell.kind == "invariance":
        transforms = cell.options.get("transforms")
        name = str(transforms[0]) if isinstance(transforms, list) and transforms else ""
        views = _FIXED_VIEWS.get(name, number("views", 256))
        return number("images", 100) * views * forward
    if cell.kind == "saliency":
        stride = 1 if published else number("stride", 8)
        places = ((math.ceil(side * 242 / 224) - number("size", 10)) // stride + 1) ** 2
        return _images(cell, number, 1 if published else 8) * places * forward
    networks = 1 if published else number("networks", 3)
    return _images(cell, number, 4) * networks * number("steps", 3000) * (0.1 + 3 * forward)


def _images(cell: Cell, number: _Numbers, usual: int) -> float:
    ids = cell.options.get("ids")
    return len(ids) if isinstance(ids, list) else number("images", usual)
