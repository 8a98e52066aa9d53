"""A small bank to probe: labels, findings, parts and patients, two models whose features know the labels."""

from pathlib import Path

import numpy as np
import pandas as pd

from stores.bank.keys import ChunkResult, Failure, FeatureKey
from stores.bank.reader import Bank
from stores.bank.writer import FeatureWriter, open_or_create
from stores.manifest.manifest import Manifest
from tests.stores.banks import make_key

ROWS, DIM = 240, 12
FIRST, SECOND = "torchvision/resnet18", "timm/other"
FAILED = (5, 77, 200)
LABELS = ("pear", "apple", "zebra", "pear", "")
CELLS = ("1.0", "0.0", "-1.0", "", "0.0", "1.0", "0.0")


def make_probe_bank(root: Path, *, views: bool = False) -> Bank:
    """240 images, 80 patients, parts train, val and test; `label` of three classes; two findings.

    With `views` a patient has two frontals and a lateral; the rows that failed are laterals.
    """
    every = np.arange(ROWS)
    frame = pd.DataFrame(
        {
            "image_id": [f"image {row}" for row in every],
            "uri": [f"{row}.png" for row in every],
            "label": [LABELS[row % 5] for row in every],
            "split": [("train", "train", "val", "test")[row // 3 % 4] for row in every],
            "group": [f"patient {row // 3}" for row in every],
            "edema": [CELLS[row % 7] for row in every],
            "oedema": [("0.0", "1.0")[row // 2 % 2] for row in every],
        }
    )
    if views:
        frame["view"] = [("frontal", "frontal", "lateral")[row % 3] for row in every]
    bank = open_or_create(root / "bank", Manifest.from_frame(frame, root / "images"), chunk_rows=64)
    for seed, model in enumerate((FIRST, SECOND)):
        features = np.random.default_rng(seed).normal(size=(ROWS, DIM)).astype(np.float32)
        features[every, every % 5] += 1.0
        fill_with(bank, make_key(bank.image_digest, model=model), features, FAILED)
    return bank


def fill_with(bank: Bank, key: FeatureKey, features: np.ndarray, failed: tuple[int, ...] = ()) -> None:
    """Commit and seal features [rows, d], with some rows failed."""
    with FeatureWriter(bank, key, features.shape[1]) as writer:
        for index in writer.todo:
            start, stop = writer.bounds(index)
            fine = np.array([row not in failed for row in range(start, stop)])
            reasons = tuple(Failure(start + int(at), "truncated", "cut off") for at in np.flatnonzero(~fine))
            writer.commit(ChunkResult(index, features[start:stop], fine, reasons))
        writer.seal()
