"""Repair: every kind of file damaged in turn, and the bank is what it was."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.errors import Refused
from engine.extract import EmbedOptions, embed
from engine.models import resolve
from engine.recipes import Recipe
from engine.repair import repair
from engine.runtime import Runtime
from stores.manifest import Manifest
from stores.verify import verify
from tests.stores.banks import flip

SMALL = replace(Recipe(), size=32, crop=32)


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for i in range(20):
        path = tmp_path / "images" / f"c{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (40, 40), np.uint8)).save(path)
    spec = resolve("random/resnet18", recipe=SMALL, seed=3)
    options = EmbedOptions(chunk_rows=8, batch_size=8)
    runtime = Runtime.resolve("cpu", seed=3)
    embed(
        Manifest.from_folder(tmp_path / "images"), [spec], tmp_path / "bank", runtime=runtime, options=options
    )
    return tmp_path / "bank"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("pattern", "recomputed"),
    [
        ("*/embedding/c/1/0", 1),
        ("*/norm/c/2", 1),
        ("*/status/zarr.json", 0),
        (".embank/*/markers/000000.json", 1),
        (".embank/*/seal.json", 0),
        (".embank/*/key.json", 0),
        (".embank/columns/label.npy", 0),
        ("embank.json", 0),
        ("zarr.json", 0),
    ],
)
def test_one_flipped_bit_is_found_and_mended(bank: Path, pattern: str, recomputed: int) -> None:
    (path,) = bank.glob(pattern)
    before = _digest(path)
    flip(path)
    assert not verify(bank).ok
    result = repair(bank, device="cpu")
    assert result["ok"]
    assert result["recomputed"] == recomputed
    assert _digest(path) == before


def test_a_repair_without_the_images_says_so(bank: Path) -> None:
    (path,) = bank.glob("*/embedding/c/1/0")
    before = path.read_bytes()
    path.unlink()
    bank.parent.joinpath("images").rename(bank.parent / "moved")
    repair(bank, root=bank.parent / "moved", device="cpu")
    assert path.read_bytes() == before


def test_other_settings_are_refused_instead_of_mixed(
    bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    next(iter(bank.glob("*/embedding/c/0/0"))).unlink()
    import engine.restore

    other = resolve("random/resnet18", recipe=SMALL, seed=4)
    monkeypatch.setattr(engine.restore, "resolve", lambda *_, **__: other)
    with pytest.raises(Refused, match="were made with"):
        repair(bank, device="cpu")
