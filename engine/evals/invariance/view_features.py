"""Features of transformed images: made in one pass, kept in the bank, resumable image by image.

On a device the host waits for two events of an image in a pass, whatever the number of transforms and views:
for whether the image is grey, which the decoding stream tells ahead, and, in the thread that writes the bank,
for its features. It never waits for all of the device.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from engine.embed.restore import Restored
from engine.errors import BadImage
from engine.evals.invariance.batch_norm import BatchNormEncoder
from engine.evals.invariance.resident_views import ResidentViews
from engine.evals.invariance.view_pixels import pictures, published_recipe, render
from engine.evals.invariance.view_store import REFERENCE, Views, ViewStore
from engine.kernels import transforms
from engine.models import ModelSpec
from engine.pipeline import PROGRESS_EVERY_S, PassProgress, Stages
from engine.runtime import DeviceEvent, HostCopy, device_faults, fix_flags, side_stream

#: Views that a forward pass takes.
_BATCH = {"cpu": 32, "cuda": 256}


@dataclass
class Pass:
    """What a pass did.

    Attributes:
        failures: row -> why it has no views.
        made: views encoded now; stored: read from the bank.
        seconds: wall.
    """

    failures: dict[int, BadImage] = field(default_factory=dict)
    made: int = 0
    stored: int = 0
    seconds: float = 0.0

    def plus(self, other: "Pass") -> "Pass":
        """Add two passes."""
        failures = self.failures | other.failures
        return Pass(
            failures, self.made + other.made, self.stored + other.stored, self.seconds + other.seconds
        )


@dataclass(frozen=True)
class _Decoded:
    row: int
    image: torch.Tensor
    grey: HostCopy
    ready: DeviceEvent


@dataclass(frozen=True)
class _Encoded:
    """Hold one image's features on their way to the store.

    Attributes:
        parts: the transforms, each with its number of views: none where they would not change a grey image.
        copy: float32 [views, d] of all parts, one after the other; None where there are none.
    """

    row: int
    grey: bool
    parts: list[tuple[Views, int]]
    copy: HostCopy | None = None


def make_views(
    store: ViewStore,
    backbone: Restored,
    rows: Sequence[int],
    wanted: Sequence[Views],
    on_progress: Callable[[PassProgress], None] | None = None,
    resident: ResidentViews | None = None,
) -> Pass:
    """Make sure that the views of the rows are in the store; each image is decoded once for all transforms.

    Args:
        rows: of the bank, each once.
        wanted: all with the same `published` and `batch_norm`.
        resident: holds the new features on the device, too.

    Raises:
        MachineFault: disk full, device lost. Finished files are kept, as they are after an interrupt.
    """
    start, done = time.perf_counter(), Pass()
    todo: dict[int, list[Views]] = {}
    for row in rows:
        for views in wanted:
            if store.read(views, row) is None:
                todo.setdefault(row, []).append(views)
            else:
                done.stored += views.count
    if todo:
        _Maker(store, backbone, todo, done, on_progress, start, resident).run()
    done.seconds = time.perf_counter() - start
    return done


class _Maker:
    """One pass over images whose views are missing."""

    def __init__(
        self,
        store: ViewStore,
        backbone: Restored,
        todo: dict[int, list[Views]],
        done: Pass,
        on_progress: Callable[[PassProgress], None] | None,
        started: float,
        resident: ResidentViews | None,
    ) -> None:
        self.resident = resident
        self.store, self.backbone, self.todo, self.done = store, backbone, todo, done
        self.on_progress, self.started, self.last = on_progress, started, 0.0
        self.total = sum(views.count for wanted in todo.values() for views in wanted)
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
        encoder = self.backbone.encoder(spec.recipe)
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
            images = pictures(self.backbone, list(self.todo), self.published, self.stages.first)
            for row, image in images:
                self.stages.first.images += 1
                if isinstance(image, BadImage):
                    self._lose(row, image)
                else:
                    grey = HostCopy(transforms.grey_flag(image))
                    yield _Decoded(row, image, grey, DeviceEvent(self.runtime.device))

    def _lose(self, row: int, why: BadImage) -> None:
        self.done.failures[row] = why
        self.lost += sum(views.count for views in self.todo[row])

    def _encode(self, item: _Decoded) -> _Encoded:
        item.ready.make_current_stream_wait(item.image)
        before = time.perf_counter()
        with device_faults(), torch.no_grad():
            grey, made = bool(item.grey.wait()), []
            for views in self.todo[item.row]:
                try:
                    made.append((views, self._features(item.image, views, grey)))
                except BadImage as error:
                    self._lose(item.row, error.with_traceback(None))
                    return _Encoded(item.row, grey, [])
                self.stages.second.images += views.count
            encoded = self._on_their_way(item.row, grey, made)
        self.stages.second.busy_s += time.perf_counter() - before
        return encoded

    def _features(self, image: torch.Tensor, views: Views, grey: bool) -> torch.Tensor | None:
        if views.transform == REFERENCE:
            return self.of_image(render(image, views, self.recipe))
        if grey and not views.published and transforms.find_transform(views.transform).needs_colour:
            return None
        return self.of_views(render(image, views, self.recipe))

    def _on_their_way(self, row: int, grey: bool, made: list[tuple[Views, torch.Tensor | None]]) -> _Encoded:
        """Start one copy of all features of an image to the host."""
        features = [part for _, part in made if part is not None]
        if self.resident is not None:
            for views, part in made:
                if part is not None:
                    self.resident.add(views, row, part)
        parts = [(views, 0 if part is None else len(part)) for views, part in made]
        return _Encoded(row, grey, parts, HostCopy(torch.cat(features)) if features else None)

    def _commit(self, item: _Encoded) -> None:
        every = np.empty((0, self.backbone.spec.dim), np.float32)
        if item.copy is not None:
            every = item.copy.wait().numpy()
        start = 0
        for views, count in item.parts:
            before = time.perf_counter()
            self.store.write(views, item.row, every[start : start + count], item.grey)
            start += count
            self.done.made += views.count
            self.stages.third.images += views.count
            self.stages.third.busy_s += time.perf_counter() - before
            self._report()

    def _report(self) -> None:
        now, done = time.perf_counter(), self.done.made + self.lost
        if self.on_progress and (done >= self.total or now - self.last >= PROGRESS_EVERY_S):
            self.last = now
            clocks = self.stages.first, self.stages.second, self.stages.third
            title, stored = self.store.features.title, self.done.stored
            self.on_progress(
                PassProgress(
                    (f"{title}, views",),
                    stored + done,
                    stored + self.total,
                    len(self.done.failures),
                    now - self.started,
                    *clocks,
                    stored,
                )
            )
