"""Pixels of transformed images, as the backbone takes them."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from engine.decode import pillow
from engine.decode.formats.sniff import sniff
from engine.decode.geometry import plan as plan_geometry
from engine.embed.restore import Restored
from engine.errors import BadImage
from engine.evals.invariance.view_store import REFERENCE, Views
from engine.kernels import geometric, transforms
from engine.kernels.transforms import Frame
from engine.models import ModelSpec
from engine.pipeline import StageClock
from engine.recipes import Recipe
from engine.runtime import HostCopy, placed

#: Images decoded at a time; pixels of views made at a time.
_DECODED, _PIXELS = 8, 1 << 22


def pictures(
    backbone: Restored,
    rows: Sequence[int],
    published: bool,
    clock: StageClock | None = None,
) -> Iterator[tuple[int, torch.Tensor | BadImage]]:
    """Give what transforms are applied to: uint8 [H, W, 3] on the device, or why there is none, row by row.

    Args:
        published: full-size pictures, decoded by Pillow as in the study; else the pixels that the bank's
            decoder gave to the backbone.
        clock: gets the seconds of decoding.
    """
    clock = clock or StageClock()
    return _full_size(backbone, rows, clock) if published else _rendered(backbone, rows, clock)


def _rendered(
    backbone: Restored, rows: Sequence[int], clock: StageClock
) -> Iterator[tuple[int, torch.Tensor | BadImage]]:
    batches = [rows[i : i + _DECODED] for i in range(0, len(rows), _DECODED)]
    with closing(backbone.decoder(_DECODED)) as decoder:
        for batch in decoder.stream(backbone.images, batches):
            clock.busy_s += batch.seconds
            for slot, row in enumerate(batch.rows):
                yield row, batch.failures.get(slot, batch.pixels[slot])


def _full_size(
    backbone: Restored, rows: Sequence[int], clock: StageClock
) -> Iterator[tuple[int, torch.Tensor | BadImage]]:
    recipe = backbone.spec.recipe.rendering
    for row in rows:
        before = time.perf_counter()
        try:
            data = backbone.images.read(row)
            header = sniff(data, recipe, backbone.images.limits)
            picture = pillow.picture(data, header, recipe)
            pixels = np.array(picture.convert("RGB"))
            image: torch.Tensor | BadImage = placed(pixels, backbone.runtime.device)
        except BadImage as error:
            image = error.with_traceback(None)
        clock.busy_s += time.perf_counter() - before
        yield row, image


def published_recipe(spec: ModelSpec) -> Recipe:
    """Return short side 256, centre crop 224 (other inputs in proportion), bilinear; never histogram."""
    own = spec.recipe
    side = own.side
    recipe = Recipe(size=side * 256 // 224, crop=side, interpolation="bilinear")
    if own.normalise == "histogram":
        return recipe
    return replace(recipe, normalise=own.normalise, mean=own.mean, sd=own.sd)


def render(image: torch.Tensor, views: Views, recipe: Recipe) -> torch.Tensor:
    """Render the views of one image as the backbone takes them.

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
    transform = transforms.find_transform(views.transform)
    frame = Frame(1.0, recipe.side, 1.0) if views.published else Frame(recipe.side / 256, recipe.side)
    step = max(1, _PIXELS // (image.shape[0] * image.shape[1]))
    parts = []
    for start in range(0, len(views.parameters), step):
        made = _made(transform, image, views.parameters[start : start + step], frame)
        full_size = views.published and views.transform != "resized_crop"
        parts.append(_finish(made, recipe) if full_size else made)
    return torch.cat(parts)


def _made(
    transform: transforms.Transform,
    image: torch.Tensor,
    parameters: Sequence[transforms.Parameters],
    frame: Frame,
) -> torch.Tensor:
    """Make views; refuse a picture that the transform cannot be applied to, naming the transform."""
    try:
        return transform.render(image, parameters, frame)
    except BadImage as error:
        raise BadImage(error.code, f"{transform.name}: {error.detail}", pending=error.pending) from None


def show(
    backbone: Restored, views: Views, rows: Sequence[int], positions: Sequence[int]
) -> list[NDArray[np.uint8] | str]:
    """Render the pixels that the backbone sees, row by row: uint8 [1 + len(positions), S, S, 3].

    The image itself comes first, then its views at these positions of `views`.

    An image whose features are kept, but that cannot be read any more, gives the reason instead.
    """
    recipe = published_recipe(backbone.spec) if views.published else backbone.spec.recipe
    drawn = replace(views, parameters=tuple(views.parameters[i] for i in positions))
    shown: list[HostCopy | str] = []
    for _, image in pictures(backbone, rows, views.published):
        if isinstance(image, BadImage):
            shown.append(image.code)
            continue
        own = render(image, replace(views, transform=REFERENCE, parameters=()), recipe)
        shown.append(HostCopy(torch.cat([own, render(image, drawn, recipe)])))
    return [one if isinstance(one, str) else one.wait().numpy() for one in shown]


def _finish(views: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Resize and crop full-size views, uint8 [V, H, W, 3]."""
    to = plan_geometry(views.shape[1], views.shape[2], recipe)
    if to.extreme:
        raise BadImage("too_large", f"{to.width} x {to.height} pixels after resizing")
    return geometric.resize(views, to.height, to.width, (to.top, to.left, to.side))
