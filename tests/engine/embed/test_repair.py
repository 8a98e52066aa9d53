"""Repair: every kind of file damaged in turn, and the bank is what it was."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.embed.repair import repair
from engine.embed.run import EmbedOptions, InputChecks, embed
from engine.errors import BankError, Refused
from engine.models import resolve
from engine.recipes import Recipe
from engine.runtime import Runtime
from stores.bank.keys import ChunkResult
from stores.bank.reader import Bank
from stores.maintenance.heal import heal_chunk, promise_of_chunk
from stores.maintenance.quarantine import seal_complete
from stores.maintenance.verify import verify
from stores.manifest.manifest import Manifest
from tests.stores.banks import flip

pytestmark = pytest.mark.slow

SMALL = replace(Recipe(), size=32, crop=32)


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for i in range(20):
        path = tmp_path / "images" / f"c{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (40, 40), np.uint8)).save(path)
    spec = resolve("random/squeezenet1_1", recipe=SMALL, seed=3)
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


def _state(bank: Path) -> dict[str, str]:
    """Digest of every file but caches and locks."""
    return {
        str(path.relative_to(bank)): _digest(path)
        for path in sorted(bank.rglob("*"))
        if path.is_file() and path.name not in ("stamps.json", "lock", "commit.lock")
    }


def _draw(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (40, 40), np.uint8)).save(path)


def test_an_ok_row_never_becomes_a_failed_one(bank: Path) -> None:
    """Chunk 1 is damaged, and the images are away."""
    flip(next(iter(bank.glob("*/embedding/c/1/0"))))
    before = _state(bank)
    (bank.parent / "images").rename(bank.parent / "away")
    with pytest.raises(Refused, match="chunk 1 of random-squeezenet1_1"):
        repair(bank, device="cpu")
    assert _state(bank) == before
    (bank.parent / "away").rename(bank.parent / "images")
    assert repair(bank, device="cpu")["ok"]


def test_several_chunks_that_cannot_be_put_back_change_nothing(bank: Path) -> None:
    manifest = Bank.open(bank).manifest()
    for index, row in ((0, 2), (2, 17)):
        flip(next(iter(bank.glob(f"*/embedding/c/{index}/0"))))
        _draw(bank.parent / "images" / manifest.uris[row], 300 + row)
    before = _state(bank)
    with pytest.raises(Refused, match=r"chunk 0 of \S+; chunk 2 of"):
        repair(bank, device="cpu")
    assert _state(bank) == before


def test_a_missing_image_leaves_its_chunk_and_mends_the_others(bank: Path) -> None:
    manifest = Bank.open(bank).manifest()
    paths = [next(iter(bank.glob(f"*/embedding/c/{index}/0"))) for index in (0, 1)]
    good = [path.read_bytes() for path in paths]
    for path in paths:
        flip(path)
    bad = paths[1].read_bytes()
    (bank.parent / "images" / manifest.uris[9]).unlink()
    result = repair(bank, device="cpu")
    assert not result["ok"]
    assert [(each["feature"], each["chunks"]) for each in result["unrepaired"]] == [
        (paths[0].relative_to(bank).parts[0], [1])
    ]
    assert [path.read_bytes() for path in paths] == [good[0], bad]
    assert result["quarantined"] == [str(paths[0].relative_to(bank))]
    assert not verify(bank).ok


@pytest.mark.parametrize("with_contents", [True, False])
def test_another_picture_is_not_put_in_place(
    bank: Path, with_contents: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With contents the changed image is named; without them (an early bank) the chunk's digest differs."""
    manifest = Bank.open(bank).manifest()
    flip(next(iter(bank.glob("*/embedding/c/1/0"))))
    _draw(bank.parent / "images" / manifest.uris[9], 100)
    before = _state(bank)
    if not with_contents:
        nothing = np.zeros((20, 32), np.uint8)
        monkeypatch.setattr("engine.embed.worker.contents_of_bank", lambda *_, **__: nothing)
    with pytest.raises(Refused, match=manifest.uris[9] if with_contents else "is not what it was"):
        repair(bank, device="cpu")
    assert _state(bank) == before


def test_another_folder_s_pictures_are_not_put_in_place(bank: Path, tmp_path: Path) -> None:
    manifest = Bank.open(bank).manifest()
    for row, uri in enumerate(manifest.uris):
        _draw(tmp_path / "decoy" / uri, 200 + row)
    flip(next(iter(bank.glob("*/embedding/c/1/0"))))
    before = _state(bank)
    with pytest.raises(Refused, match="not the image"):
        repair(bank, root=tmp_path / "decoy", device="cpu")
    assert _state(bank) == before


def test_a_lost_marker_is_written_again_without_the_images(bank: Path) -> None:
    (path,) = bank.glob(".embank/*/markers/000001.json")
    before = path.read_bytes()
    path.unlink()
    (bank.parent / "images").rename(bank.parent / "away")
    assert repair(bank, device="cpu")["ok"]
    assert path.read_bytes() == before


def test_recorded_failures_are_repeated_although_the_file_is_there_now(bank: Path, tmp_path: Path) -> None:
    """What was missing then does not become ok by a repair: that is for `embed`."""
    images, manifest = bank.parent / "images", Bank.open(bank).manifest()
    path = images / manifest.uris[9]
    path.rename(tmp_path / "away.png")
    spec = resolve("random/mobilenet_v3_small", recipe=SMALL)
    options = EmbedOptions(chunk_rows=8, batch_size=8)
    checks = InputChecks(max_missing=1)
    embed(manifest, [spec], bank, runtime=Runtime.resolve("cpu"), options=options, checks=checks)
    (tmp_path / "away.png").rename(path)
    (embedding,) = bank.glob("*mobilenet*/embedding/c/1/0")
    before = embedding.read_bytes()
    flip(embedding)
    assert repair(bank, device="cpu")["ok"]
    assert embedding.read_bytes() == before
    assert Bank.open(bank).features("random/mobilenet_v3_small").info.pending == 1


def test_on_a_device_a_chunk_may_differ_by_rounding_and_no_more(bank: Path) -> None:
    """`min_cosine` is for arithmetic that does not repeat to the bit; here the difference is made."""
    features = Bank.open(bank).features()
    name, layout = features.name, features.layout
    values, ok = np.asarray(features.array[8:16], np.float32), np.ones(8, bool)
    content = np.array(features.contents[8:16])
    flip(bank / layout.chunk_file("embedding", 1))
    promise = promise_of_chunk(layout, 1)
    assert promise is not None
    noise = np.random.default_rng(0).normal(size=values.shape).astype(np.float32)
    close, far = values * (1 + 1e-3 * noise), values + noise * np.abs(values).max()
    for wrong in (ChunkResult(1, far, ok, (), content), ChunkResult(1, close, ok, (), content[::-1].copy())):
        with pytest.raises(BankError, match="is not what it was"):
            heal_chunk(layout, promise, wrong, min_cosine=0.999)
    with pytest.raises(BankError, match="is not what it was"):
        heal_chunk(layout, promise, ChunkResult(1, close, ok, (), content))
    assert not verify(bank).ok
    heal_chunk(layout, promise, ChunkResult(1, close, ok, (), content), min_cosine=0.999)
    seal_complete(Bank.open(bank), name)
    assert verify(bank).ok
    np.testing.assert_array_equal(Bank.open(bank).features(name).array[8:16], close.astype(np.float16))


def test_other_settings_are_refused_instead_of_mixed(
    bank: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    next(iter(bank.glob("*/embedding/c/0/0"))).unlink()
    import engine.embed.restore

    other = resolve("random/squeezenet1_1", recipe=SMALL, seed=4)
    monkeypatch.setattr(engine.embed.restore, "resolve", lambda *_, **__: other)
    with pytest.raises(Refused, match="were made with"):
        repair(bank, device="cpu")
