"""A small bank of pictures for the invariance tests: coloured and grey ones, patients, studies, views."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from engine.embed.run import EmbedOptions, embed
from engine.models import ModelSpec, resolve
from engine.recipes import Recipe
from engine.runtime import Runtime
from stores.bank.reader import Bank
from stores.manifest.manifest import Manifest

MODEL = "random/resnet18"
RUNTIME = Runtime(device="cpu", precision="fp32", threads=1)


def picture(seed: int, side: int = 40, grey: bool = False) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, : side + 6] / 6
    waves = np.stack([np.sin(x * a + y * b + c) for a, b, c in rng.uniform(-2, 2, (3, 3))], -1)
    values = (128 + 80 * waves + rng.normal(0, 15, waves.shape)).clip(0, 255).astype(np.uint8)
    return np.repeat(values[..., :1], 3, axis=2) if grey else values


def spec(recipe: Recipe | None = None) -> ModelSpec:
    """The model of the bank."""
    return resolve(MODEL, recipe=recipe or Recipe(size=32, crop=32))


def build(root: Path, count: int = 48, *, grey: int = 8, recipe: Recipe | None = None) -> Bank:
    """`count` PNGs, every second patient with two, the first `grey` of them grey; frontals and laterals."""
    images = root / "images"
    images.mkdir(parents=True)
    for row in range(count):
        Image.fromarray(picture(row, grey=row < grey)).save(images / f"{row:03}.png")
    frame = pd.DataFrame(
        {
            "uri": [f"{row:03}.png" for row in range(count)],
            "label": ["ab"[row % 2] for row in range(count)],
            "group": [f"patient {row // 2}" for row in range(count)],
            "study": [f"study {row // 2}" for row in range(count)],
            "view": [("frontal", "lateral")[row % 2] for row in range(count)],
        }
    )
    manifest = Manifest.from_frame(frame, images)
    embed(manifest, [spec(recipe)], root / "bank", runtime=RUNTIME, options=EmbedOptions(decoder="turbo"))
    return Bank.open(root / "bank")
