"""Preprocessing as frozen data. A recipe names what is done to an image; `engine.decode` renders it.

Preprocessing belongs to the weights: every model carries its recipe, and the recipe's digest is part of
the key under which its embeddings are stored.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Recipe:
    """One preprocessing specification.

    Attributes:
        resize: `short` scales the short side to `size` and keeps the aspect ratio (the long side becomes
            floor(long * size / short), as torchvision); `exact` scales both sides to `size`.
        size: pixels.
        crop: side of the central square kept after resizing, in pixels; None keeps everything
            (only with `resize="exact"`).
        interpolation: antialiased `bicubic` (a = -0.5, as Pillow) or `bilinear`.
        depth: what to do with more than 8 bits a channel: `refuse`; `scale` maps the full range of the
            file's sample type linearly to 0-255; `window` maps [window[0], window[1]] of stored sample values to 0-255, clipping.
        window: stored sample values (low, high) for `depth="window"`.
        exif: turn the image as its EXIF orientation says. Off as in Pillow's and the study's pipelines.
        normalise: `mean_sd` on values in 0-1; `none` leaves 0-1; `histogram` as MIMIC-CheXpert's
            (256 bins, cumulative, result in (0, 255]).
        mean, sd: per RGB channel, for `mean_sd`.
    """

    resize: Literal["short", "exact"] = "short"
    size: int = 224
    crop: int | None = 224
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    depth: Literal["refuse", "scale", "window"] = "refuse"
    window: tuple[float, float] | None = None
    exif: bool = False
    normalise: Literal["mean_sd", "none", "histogram"] = "mean_sd"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    sd: tuple[float, float, float] = IMAGENET_SD

    @property
    def side(self) -> int:
        """Side of the square the model sees, in pixels."""
        return self.size if self.crop is None else self.crop

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of all fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
