"""Banks of a table's rows with features that know the label: what an evaluation makes of the table's text."""

from pathlib import Path

import numpy as np

from stores.bank.reader import Bank
from stores.bank.writer import open_or_create
from stores.manifest.manifest import Manifest
from tests.probe_banks import fill_with
from tests.stores.banks import make_key

EDGES = Path(__file__).parent / "data" / "edges"
MODEL = "torchvision/resnet18"


def bank_of(manifest: Manifest, root: Path) -> Bank:
    """A bank with one sealed feature of 8 numbers, nearly parted by label."""
    codes, names = manifest.codes("label")
    features = np.random.default_rng(0).normal(size=(len(manifest), 8)).astype(np.float32)
    features += 1.5 * np.eye(8, dtype=np.float32)[codes % len(names)]
    bank = open_or_create(root / "bank", manifest, chunk_rows=64)
    fill_with(bank, make_key(bank.image_digest, model=MODEL), features)
    return bank


def as_earlier(manifest: Manifest) -> Manifest:
    """The manifest as earlier versions read it: its text as it stands in the file."""
    return manifest if manifest.before is None else Manifest(manifest.before, manifest.root)
