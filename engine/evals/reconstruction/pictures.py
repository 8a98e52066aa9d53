"""Reconstructions as picture files, and their perceptual distance from the originals."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.errors import WeightsError
from engine.evals.reconstruction.result import LPIPS
from engine.models import perceptual
from stores.json_types import Json

#: Endings of files that are written in their own format; sources of other kinds give PNG.
ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
#: Who wrote a PNG, as `stores.outputs.written_by` looks for it.
_AUTHOR = "embank reconstruct"


def ending_for(uri: str, mode: str) -> str:
    """Return the ending of a reconstruction's file: PNG, and as published that of its source."""
    ending = Path(uri).suffix.lower()
    return ending if mode == "as-published" and ending in ENDINGS else ".png"


def file_name(position: int, image_id: str, seed: int, ending: str) -> str:
    """Return the name of a reconstruction's file, e.g. `000-chest-1-seed0.png`."""
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in image_id)[-100:]
    return f"{position:03d}-{name}-seed{seed}{ending}"


def encode(image: NDArray[np.uint8], ending: str) -> bytes:
    """Return uint8 [S, S, 3] as a file, with Pillow's defaults: JPEG at quality 75."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    buffer, settings = io.BytesIO(), dict[str, Any]()
    if ending == ".png":
        settings["pnginfo"] = PngInfo()
        settings["pnginfo"].add_text("Software", _AUTHOR)
    Image.fromarray(image).save(buffer, format=Image.registered_extensions()[ending], **settings)
    return buffer.getvalue()


def reopened(data: bytes) -> NDArray[np.uint8]:
    """Return the pixels of a file as RGB, uint8 [S, S, 3]."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB")).copy()


class Similarity:
    """LPIPS by the nets whose trunks are on this machine; NaN by the others, with a reason.

    Args:
        device: `cpu` or `cuda:N`. side: of the images, pixels.
        trunks: net -> file of its trunk, instead of those in the caches.

    Attributes:
        reason: why a net or the mean is not known, with the remedy; "" if all are.
        trunks: facts on the weights in use.
    """

    def __init__(self, device: str, side: int, trunks: Mapping[str, Path] | None = None) -> None:
        self._distance: perceptual.PerceptualDistance | None = None
        self.reason = ""
        try:
            here = tuple(trunks) if trunks else perceptual.available()
            nets = [net for net in here if side >= perceptual.MIN_SIDE[net]]
            if nets:
                self._distance = perceptual.PerceptualDistance(nets, device, trunks)
        except WeightsError as error:
            self.reason = f"LPIPS is not known: {error.found}. Remedy: {error.remedy}"
            return
        if absent := [net for net in perceptual.NETS if net not in here]:
            fetch = ", ".join(f"`embank models fetch {perceptual.SLUGS[net]}`" for net in absent)
            self.reason = (
                f"LPIPS by {', '.join(absent)}, and the mean, are not known: the ImageNet weights are not on "
                f"this machine. Remedy: {fetch}, then the same command; reconstructions are kept"
            )
        elif len(nets) < len(here):
            needed = max(perceptual.MIN_SIDE.values())
            self.reason = f"LPIPS by all nets needs images of {needed} pixels or more, not {side}"

    @property
    def trunks(self) -> list[Json]:
        """Facts on the weights in use."""
        return [trunk.to_dict() for trunk in self._distance.trunks] if self._distance else []

    def __call__(
        self, original: NDArray[np.uint8], images: Sequence[NDArray[np.uint8]]
    ) -> list[dict[str, float]]:
        """Return net -> distance of each image from the original, and the plain mean of all three nets."""
        unknown = dict.fromkeys(LPIPS, float("nan"))
        if self._distance is None or not images:
            return [dict(unknown) for _ in images]
        a = torch.from_numpy(np.stack([original] * len(images)))
        by_net = {
            net: values.cpu().tolist()
            for net, values in self._distance.distance(a, torch.from_numpy(np.stack(images))).items()
        }
        lines = [{net: values[i] for net, values in by_net.items()} for i in range(len(images))]
        complete = set(by_net) == set(perceptual.NETS)
        return [
            {**unknown, **line, **({"mean": float(np.mean(list(line.values())))} if complete else {})}
            for line in lines
        ]
