"""Small pictures of two colours with findings, patients and splits, and a tiny network to train on them."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from engine.evals.finetune.options import FinetuneOptions
from engine.models import ModelSpec, resolve
from engine.recipes import Recipe
from engine.runtime import Runtime
from stores.manifest.manifest import Manifest

#: 350,000 weights, with BatchNorm; the least of torchvision's.
MODEL = "random/shufflenet_v2_x0_5"
RUNTIME = Runtime("cpu", "fp32", 1)
#: Patients of four images each; every fourth is tested, every other fourth validates.
SPLITS = ("train", "val", "train", "test")


def write_images(root: Path, count: int = 32, side: int = 36) -> Manifest:
    """Write PNGs whose red channel is their class; `left` and `right` are findings with empty cells."""
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for row in range(count):
        pixels = rng.integers(40, 216, (side, side + 4, 3)).astype(np.int64)
        pixels[..., 0] += 90 if row % 2 else -90
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"{row:02}.png")
    rows = range(count)
    frame = pd.DataFrame(
        {
            "uri": [f"{row:02}.png" for row in rows],
            "label": ["ab"[row % 2] for row in rows],
            "group": [f"patient {row // 4}" for row in rows],
            "split": [SPLITS[row // 4 % 4] for row in rows],
            "left": [("1", "0", "", "-1", "0", "1")[row % 6] for row in rows],
            "right": [("0", "1", "0", "1", "1")[row % 5] for row in rows],
            "never": ["0" for row in rows],
        }
    )
    return Manifest.from_frame(frame, root)


def spec(side: int = 32) -> ModelSpec:
    return resolve(MODEL, recipe=Recipe(size=side, crop=side))


def quick(**more: object) -> FinetuneOptions:
    """Options of a run of a second."""
    given = {"steps": 6, "batch_size": 6, "validate_every": 2, "bootstrap": 30, **more}
    return FinetuneOptions(**given)  # type: ignore[arg-type]
