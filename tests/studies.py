"""A small study on disk: images of two classes, a manifest with splits, a bank of an untrained network."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from stores.manifest.manifest import Manifest
from tests.command import embank

MODEL = "random/squeezenet1_1"


def make_study(root: Path, count: int) -> Path:
    """Make `images`, `m.parquet`, `recipe.json` and `bank` below `root`; return `root`."""
    generator = np.random.default_rng(0)
    for i in range(count):
        path = root / "images" / f"c{i % 2}" / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (40, 40, 3), np.uint8)).save(path)
    frame = Manifest.from_folder(root / "images").frame
    frame["split"] = [("train", "train", "val", "test")[i // 2 % 4] for i in range(len(frame))]
    Manifest.from_frame(frame, root / "images").write(root / "m.parquet")
    (root / "recipe.json").write_text(json.dumps({"size": 32, "crop": 32}))
    words = ("--model", MODEL, "--recipe", root / "recipe.json", "--device", "cpu", "--threads", 1)
    ran = embank("embed", root / "m.parquet", "--bank", root / "bank", *words)
    assert ran.code == 0, ran.err
    return root
