"""Features of transformed images: made in one pass, kept in the bank, resumable image by image.

One file holds the features of all views of one image under one transform. Its key names everything that they
depend on, so that a file is reused only for what it is, and a run that was stopped goes on at the next file.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from engine.decode import make_decoder, reference
from engine.decode.geometry import plan as plan_geometry
from engine.decode.sniff import sniff
from engine.errors import BadImage
from engine.evals.backbone import Backbone
from engine.evals.batch_norm import BatchNormEncoder
from engine.kernels import transforms, warps
from engine.kernels.transforms import Frame, Parameters
from engine.models import ModelSpec, load
from engine.pipeline import StageClock, Stages
from engine.recipes import Recipe
from engine.runtime import DeviceEvent, HostCopy, device_faults, fix_flags, side_stream
from stores import arrays, documents
from stores.read import FeatureSet

BatchNorm = Literal["eval", "train"]
#: Changes whenever views come out otherwise; part of every key.
VERSION = 1
#: The image itself, as what its views are compared with.
REFERENCE = "reference"
#: Images decoded at a time; pixels of views made at a time; views a forward pass takes.
_DECODED, _PIXELS, _BATCH = 8, 1 << 22, {"cpu": 32, "cuda": 256}
_PROGRESS_EVERY_S = 0.25


@dataclass(frozen=True)
class Views:
    """What is asked of every image.

    Attributes:
        transform: a name of `engine.kernels.transforms`, or `REFERENCE`.
        parameters: one entry a view.
        published: transform the full-size picture, then resize and crop; else transform the pixels that the
            bank's recipe renders.
        batch_norm: `train` normalises each image's views by their own statistics.
    """

    transform: str
    parameters: tuple[Parameters, ...] = ()
    published: bool = False
    batch_norm: BatchNorm = "eval"

    @property
    def count(self) -> int:
        return len(self.parameters) or 1


@dataclass(frozen=True)
class Progress:
    """A look at a running pass, in views."""

    models: tuple[str, ...]
    done: int
    total: int
    failed: int
    seconds: float
    decode: StageClock
    encode: StageClock
    commit: StageClock

    @property
    def img_per_s(self) -> float:
        return self.done / self.seconds if self.seconds > 0 else float("nan")

    @property
    def seconds_left(self) -> float:
        return (self.total - self.done) / self.img_per_s if self.done else float("nan")


@dataclass(frozen=True)
class Kept:
    """View features of one image.

    Attributes:
        features: [views, d] in the bank's dtype; no views where the image is grey and the transform changes
            colours alone.
        grey: whether the image has no colour.
    """

    features: NDArray[Any]
    grey: bool


class ViewStore:
    """View features in a bank, under `views` in its side folder. They may be deleted at any time.

    Args:
        features: whose backbone they come from.

    Attributes:
        damaged: files found broken, and made again.
    """

    def __init__(self, features: FeatureSet) -> None:
        self.features = features
        self.damaged: list[str] = []

    def _key(self, views: Views, row: int) -> dict[str, Any]:
        return {
            "version": VERSION,
            "feature": self.features.key.digest,
            "transform": views.transform,
            "parameters": [list(each) for each in views.parameters],
            "published": views.published,
            "batch_norm": views.batch_norm,
            "row": row,
        }

    def _path(self, views: Views, row: int) -> str:
        body = {**self._key(views, row), "row": None}
        digest = hashlib.sha256(documents.canonical(body)).hexdigest()[:12]
        return f"views/{self.features.name}/{views.transform}.{digest}/{row:08d}.arrays"

    def read(self, views: Views, row: int) -> "Kept | None":
        """What is kept of the row, or None: not there, or damaged, which is as good as not there."""
        path = self._path(views, row)
        try:
            found = arrays.read(self.features.bank.path, path, self._key(views, row))
        except documents.BrokenDocument:
            if path not in self.damaged:
                self.damaged.append(path)
            return None
        return None if found is None else Kept(found["features"], bool(found["grey"]))

    def write(self, views: Views, row: int, found: NDArray[np.float32], grey: bool) -> None:
        """Keep the features [views, d], rounded as the bank's own are."""
        kept = {"features": found.astype(self.features.key.dtype), "grey": np.array(grey, np.uint8)}
        arrays.write(self.features.bank.path, self._path(views, row), self._key(views, row), kept)


@dataclass
class Pass:
    """What a pass did.

    Attributes:
        failures: row -> why it has no views.
        made: views encoded now; kept: found in the bank.
        seconds: wall.
    """

    failures: dict[int, BadImage] = field(default_factory=dict)
    made: int = 0
    kept: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class _Decoded:
    row: int
    image: torch.Tensor
    ready: DeviceEvent


@dataclass(frozen=True)
class _Encoded:
    """One image's features on their way to the store; None where there is nothing to make views of."""

    row: int
    grey: bool
    copies: list[tuple[Views, HostCopy | None]]


def make_views(
    store: ViewStore,
    backbone: Backbone,
    rows: Sequence[int],
    asked: Sequence[Views],
    on_progress: Callable[[Progress], None] | None = None,
) -> Pass:
    """Make sure that the views of the rows are in the store; each image is decoded once for all transforms.

    Args:
        rows: of the bank, each once.
        asked: all with the same `published` and `batch_norm`.

    Raises:
        MachineFault: disk full, device lost. Finished files are kept, as they are after an interrupt.
    """
    start, found = time.perf_counter(), Pass()
    todo: dict[int, list[Views]] = {}
    for row in rows:
        for views in asked:
            if store.read(views, row) is None:
                todo.setdefault(row, []).append(views)
            else:
                found.kept += views.count
    if todo:
        _Maker(store, backbone, todo, found, on_progress, start).run()
    found.seconds = time.perf_counter() - start
    return found


class _Maker:
    """One pass over images whose views are missing."""

    def __init__(
        self,
        store: ViewStore,
        backbone: Backbone,
        todo: dict[int, list[Views]],
        found: Pass,
        on_progress: Callable[[Progress], None] | None,
        started: float,
    ) -> None:
        self.store, self.backbone, self.todo, self.found = store, backbone, todo, found
        self.on_progress, self.started, self.last = on_progress, started, 0.0
        self.total = sum(views.count for each in todo.values() for views in each)
        self.lost = 0
        example = next(iter(todo.values()))[0]
        self.published, self.batch_norm = example.published, example.batch_norm
        self.runtime = backbone.runtime
        self.stages: Stages[_Decoded, _Encoded] = Stages()

    def run(self) -> None:
        fix_flags(self.runtime)
        spec = self.backbone.spec
        self.recipe = published_recipe(spec) if self.published else spec.recipe
        self.of_views = self._encoder(replace(spec, recipe=self.recipe))
        own = replace(self.recipe, normalise=spec.recipe.normalise)
        # The study normalised the image as the model wants it, its views never by histogram.
        self.of_image = self.of_views if own == self.recipe else self._encoder(replace(spec, recipe=own))
        self.stages.run(self._decode, self._encode, self._commit)

    def _encoder(self, spec: ModelSpec) -> Callable[[torch.Tensor], torch.Tensor]:
        if self.batch_norm == "train":
            return BatchNormEncoder(spec, self.runtime)
        encoder = load(spec, self.runtime)
        size = _BATCH[self.runtime.torch_device.type]
        fixed = self.runtime.on_cuda or self.runtime.compile

        def encode(pixels: torch.Tensor) -> torch.Tensor:
            parts = []
            for part in pixels.split(size):
                # Where arithmetic may depend on the batch size, all batches have one.
                missing = size - len(part) if fixed else 0
                full = torch.cat([part, part.new_zeros(missing, *part.shape[1:])]) if missing else part
                parts.append(encoder(full)[: len(part)])
            return torch.cat(parts)

        return encode

    def _decode(self) -> Iterator[_Decoded]:
        with side_stream(self.runtime.device):
            images = pictures(
                self.store.features, self.backbone, list(self.todo), self.published, self.stages.first
            )
            for row, image in images:
                self.stages.first.images += 1
                if isinstance(image, BadImage):
                    self._lose(row, image)
                else:
                    yield _Decoded(row, image, DeviceEvent(self.runtime.device))

    def _lose(self, row: int, why: BadImage) -> None:
        self.found.failures[row] = why
        self.lost += sum(views.count for views in self.todo[row])

    def _encode(self, item: _Decoded) -> _Encoded:
        item.ready.make_current_stream_wait(item.image)
        before = time.perf_counter()
        with device_faults(), torch.no_grad():
            found = _Encoded(item.row, transforms.is_grey(item.image), [])
            for views in self.todo[item.row]:
                try:
                    found.copies.append((views, self._features(item.image, views, found.grey)))
                except BadImage as error:
                    self._lose(item.row, error.with_traceback(None))
                    return replace(found, copies=[])
                self.stages.second.images += views.count
        self.stages.second.busy_s += time.perf_counter() - before
        return found

    def _features(self, image: torch.Tensor, views: Views, grey: bool) -> HostCopy | None:
        if views.transform == REFERENCE:
            return HostCopy(self.of_image(render(image, views, self.recipe)))
        if grey and not views.published and transforms.find(views.transform).colour:
            return None
        return HostCopy(self.of_views(render(image, views, self.recipe)))

    def _commit(self, item: _Encoded) -> None:
        for views, copy in item.copies:
            none = np.empty((0, self.backbone.spec.dim), np.float32)
            features = none if copy is None else copy.wait().numpy()
            before = time.perf_counter()
            self.store.write(views, item.row, features, item.grey)
            self.found.made += views.count
            self.stages.third.images += views.count
            self.stages.third.busy_s += time.perf_counter() - before
            self._report()

    def _report(self) -> None:
        now, done = time.perf_counter(), self.found.made + self.lost
        if self.on_progress and (done >= self.total or now - self.last >= _PROGRESS_EVERY_S):
            self.last = now
            clocks = self.stages.first, self.stages.second, self.stages.third
            slug = self.store.features.key.model
            self.on_progress(
                Progress(
                    (f"{slug}, views",),
                    done,
                    self.total,
                    len(self.found.failures),
                    now - self.started,
                    *clocks,
                )
            )


def pictures(
    features: FeatureSet,
    backbone: Backbone,
    rows: Sequence[int],
    published: bool,
    clock: StageClock | None = None,
) -> Iterator[tuple[int, torch.Tensor | BadImage]]:
    """What transforms are applied to: uint8 [H, W, 3] on the device, or why there is none, row by row.

    Args:
        published: full-size pictures, decoded by Pillow as in the study; else the pixels that the bank's
            decoder gave to the backbone.
        clock: gets the seconds of decoding.
    """
    clock = clock or StageClock()
    return _full_size(backbone, rows, clock) if published else _rendered(features, backbone, rows, clock)


def _rendered(
    features: FeatureSet, backbone: Backbone, rows: Sequence[int], clock: StageClock
) -> Iterator[tuple[int, torch.Tensor | BadImage]]:
    name, _, scaled = features.key.decoder.partition("-")
    decoder = make_decoder(
        name,
        backbone.spec.recipe.rendering,
        device=backbone.runtime.device,
        threads=backbone.runtime.threads,
        batch_size=_DECODED,
        dct=scaled == "dct",
    )
    batches = [rows[i : i + _DECODED] for i in range(0, len(rows), _DECODED)]
    with closing(decoder):
        for batch in decoder.stream(backbone.images, batches):
            clock.busy_s += batch.seconds
            for slot, row in enumerate(batch.rows):
                yield row, batch.failures.get(slot, batch.pixels[slot])


def _full_size(
    backbone: Backbone, rows: Sequence[int], clock: StageClock
) -> Iterator[tuple[int, torch.Tensor | BadImage]]:
    recipe = backbone.spec.recipe.rendering
    for row in rows:
        before = time.perf_counter()
        try:
            data = backbone.images.read(row)
            header = sniff(data, recipe, backbone.images.limits)
            picture = reference.to_rgb(reference.load(data, header, recipe), header, recipe)
            pixels = torch.from_numpy(np.array(picture.convert("RGB")))
            image: torch.Tensor | BadImage = pixels.to(backbone.runtime.torch_device)
        except BadImage as error:
            image = error.with_traceback(None)
        clock.busy_s += time.perf_counter() - before
        yield row, image


def published_recipe(spec: ModelSpec) -> Recipe:
    """Short side 256, centre crop 224 (other inputs in proportion), bilinear; never histogram."""
    own = spec.recipe
    side = own.side
    common: dict[str, Any] = {"size": side * 256 // 224, "crop": side, "interpolation": "bilinear"}
    if own.normalise == "histogram":
        return Recipe(**common)
    return Recipe(**common, normalise=own.normalise, mean=own.mean, sd=own.sd)


def render(image: torch.Tensor, views: Views, recipe: Recipe) -> torch.Tensor:
    """Pixels of the views of one image, as the backbone takes them.

    Args:
        image: uint8 [H, W, 3]: the rendered square, or the full-size picture for `published`.
        views: what to make; `REFERENCE` gives the image itself.
        recipe: for `published`, how full-size views become squares.

    Returns:
        uint8 [views, side, side, 3].

    Raises:
        BadImage: too small for the transform.
    """
    if views.transform == REFERENCE:
        return _finish(image[None], recipe) if views.published else image[None]
    transform = transforms.find(views.transform)
    frame = Frame(1.0, recipe.side, 1.0) if views.published else Frame(recipe.side / 256, recipe.side)
    step = max(1, _PIXELS // (image.shape[0] * image.shape[1]))
    parts = []
    for start in range(0, len(views.parameters), step):
        made = transform.render(image, views.parameters[start : start + step], frame)
        whole = views.published and views.transform != "resized_crop"
        parts.append(_finish(made, recipe) if whole else made)
    return torch.cat(parts)


def show(
    features: FeatureSet, backbone: Backbone, views: Views, rows: Sequence[int], chosen: Sequence[int]
) -> list[NDArray[np.uint8]]:
    """The pixels that the backbone sees: uint8 [1 + chosen, S, S, 3] of each row, the image first."""
    recipe = published_recipe(backbone.spec) if views.published else backbone.spec.recipe
    some = replace(views, parameters=tuple(views.parameters[i] for i in chosen))
    found = []
    for _, image in pictures(features, backbone, rows, views.published):
        if isinstance(image, BadImage):
            raise image
        own = render(image, replace(views, transform=REFERENCE, parameters=()), recipe)
        found.append(torch.cat([own, render(image, some, recipe)]).cpu().numpy())
    return found


def _finish(views: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Full-size uint8 [V, H, W, 3], resized and cropped."""
    to = plan_geometry(views.shape[1], views.shape[2], recipe)
    if to.extreme:
        raise BadImage("too_large", f"{to.width} x {to.height} pixels after resizing")
    return warps.resize(views, to.height, to.width, (to.top, to.left, to.side))
