"""A bank whose site gives the class away, and whose model knows nothing of it."""

from pathlib import Path

import numpy as np
import pandas as pd

from stores.bank.reader import Bank
from stores.bank.writer import open_or_create
from stores.manifest.manifest import Manifest
from tests.probe_banks import fill_with
from tests.stores.banks import make_key

ROWS, DIM = 160, 8
#: Features that know the label, features that are noise, and an untrained network's.
KNOWING, NOISE, UNTRAINED = "torchvision/resnet50", "torchvision/resnet18", "random/resnet50"
FAILED = (9,)


def table() -> pd.DataFrame:
    """160 images of 80 patients in three splits; the site is the class, the age nearly so."""
    every = np.arange(ROWS)
    label = every // 2 % 3
    age = np.random.default_rng(5).normal(40 + 10 * label, 8).round().astype(int)
    return pd.DataFrame(
        {
            "image_id": [f"image {row}" for row in every],
            "uri": [f"{row}.png" for row in every],
            "label": [("apple", "pear", "zebra")[code] for code in label],
            "split": [("train", "train", "val", "test")[row // 2 % 4] for row in every],
            "group": [f"patient {row // 2}" for row in every],
            "Patient_Age": ["" if row % 11 == 0 else f"{age[row]:03}Y" for row in every],
            "Site": [("north", "south", "")[code] for code in label],
            "edema": [str(row % 3 // 2) for row in every],
            "oedema": [str(row % 5 // 3) for row in every],
        }
    )


def make_control_bank(root: Path) -> Bank:
    """Three models: what each knows is in its name."""
    bank = open_or_create(root / "bank", Manifest.from_frame(table(), root / "images"), chunk_rows=64)
    label = np.arange(ROWS) // 2 % 3
    for seed, (model, weight) in enumerate({KNOWING: 4.0, NOISE: 0.0, UNTRAINED: 1.0}.items()):
        features = np.random.default_rng(seed).normal(size=(ROWS, DIM)).astype(np.float32)
        features[np.arange(ROWS), label] += weight
        name = model.partition("/")[2]
        key = make_key(bank.image_digest, model=model, architecture=f"torchvision/{name}")
        fill_with(bank, key, features, FAILED)
    return bank
