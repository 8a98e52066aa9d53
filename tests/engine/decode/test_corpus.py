"""Every image of the corpus is in its class under every decoder, and harms nobody else."""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import v2

from engine.decode import DecodedBatch, Decoder, ImageSource, available_decoders, make_decoder
from engine.decode.protocol import FAILURE_CODES
from engine.recipes import Recipe
from tests.corpus.images import BYTES, PLACES, Case, Place, jpeg, png

DECODERS = ("reference", "turbo", "turbo-dct", "dali")
CASES = [
    pytest.param(group, case, id=f"{group}-{case.name}") for group, cases in BYTES.items() for case in cases
]

#: Mean and largest difference to Pillow + torchvision, in levels of 255. The reference is Pillow.
TOLERANCES = {"reference": (0.0, 0), "turbo": (0.02, 2), "turbo-dct": (0.5, 40), "dali": (0.5, 30)}


class Decoders:
    """One decoder a name and recipe, made when first asked for."""

    def __init__(self) -> None:
        self.made: dict[tuple[str, str], Decoder] = {}

    def get(self, name: str, recipe: Recipe) -> Decoder:
        if reason := available_decoders()[name.removesuffix("-dct")]:
            pytest.skip(reason)
        key = name, recipe.digest
        if key not in self.made:
            self.made[key] = make_decoder(
                name.removesuffix("-dct"),
                recipe,
                device="cpu",
                threads=2,
                batch_size=4,
                dct=name == "turbo-dct",
            )
        return self.made[key]


@pytest.fixture(scope="module")
def decoders() -> Iterator[Decoders]:
    found = Decoders()
    yield found
    for decoder in found.made.values():
        decoder.close()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> ImageSource:
    """All files of the corpus, each once; the uri is group/number. Two good neighbours come first."""
    root = tmp_path_factory.mktemp("corpus")
    (root / "left.jpg").write_bytes(jpeg(quality=60))
    (root / "right.png").write_bytes(png())
    uris = ["left.jpg", "right.png"]
    for group, cases in BYTES.items():
        (root / group).mkdir()
        for i, case in enumerate(cases):
            uris.append(f"{group}/{i}.jpg")
            (root / uris[-1]).write_bytes(case.make())
    return ImageSource(root, uris)


def row_of(source: ImageSource, group: str, case: Case) -> int:
    return list(source.uris).index(f"{group}/{BYTES[group].index(case)}.jpg")


def decode(decoder: Decoder, source: ImageSource, rows: list[int]) -> DecodedBatch:
    (batch,) = decoder.stream(source, [rows])
    return batch


@pytest.mark.slow
@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize(("group", "case"), CASES)
def test_class_and_neighbours(
    name: str, group: str, case: Case, corpus: ImageSource, decoders: Decoders
) -> None:
    decoder = decoders.get(name, case.recipe)
    row = row_of(corpus, group, case)
    alone = decode(decoder, corpus, [0, 1])
    batch = decode(decoder, corpus, [0, row, 1])
    assert {slot: failure.code for slot, failure in batch.failures.items()} == (
        {1: case.code} if case.code else {}
    )
    assert torch.equal(batch.pixels[[0, 2]], alone.pixels), "a neighbour changed"
    if case.code:
        assert not batch.pixels[1].any()
        detail = batch.failures[1].detail
        assert detail.isprintable() and "0x" not in detail and len(detail) < 200
    assert case.code in ("", *FAILURE_CODES)


@pytest.mark.slow
@pytest.mark.parametrize(("group", "case"), [c for c in CASES if c.values[1].code])
def test_decoders_give_the_same_reason(
    group: str, case: Case, corpus: ImageSource, decoders: Decoders
) -> None:
    row = row_of(corpus, group, case)
    said = {
        decode(decoders.get(name, case.recipe), corpus, [row]).failures[0].detail
        for name in DECODERS
        if not available_decoders()[name.removesuffix("-dct")]
    }
    assert len(said) == 1


def expected_pixels(case: Case, source: ImageSource, row: int) -> np.ndarray:
    """Pillow and torchvision's own transforms, from the golden picture where there is one."""
    if case.golden is not None:
        image = Image.fromarray(case.golden())
    else:
        image = Image.open(source.root / source.uris[row])
        if case.recipe.exif:
            image = ImageOps.exif_transpose(image)
    if max(image.size) > 100 * min(image.size):  # would fill the memory; these are of one colour
        image = image.crop((0, 0, 1, 1))
    transform = v2.Compose([v2.Resize(224, v2.InterpolationMode.BICUBIC), v2.CenterCrop(224)])
    return np.asarray(transform(image.convert("RGB"))).astype(np.int16)


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize(("group", "case"), [c for c in CASES if not c.values[1].code])
def test_pixels_are_golden(
    name: str, group: str, case: Case, corpus: ImageSource, decoders: Decoders
) -> None:
    row = row_of(corpus, group, case)
    batch = decode(decoders.get(name, case.recipe), corpus, [row])
    difference = np.abs(batch.pixels[0].numpy().astype(np.int16) - expected_pixels(case, corpus, row))
    mean, largest = TOLERANCES[name]
    assert difference.mean() <= mean
    assert difference.max() <= largest


@pytest.mark.parametrize("name", DECODERS)
def test_digests_find_silent_damage(name: str, tmp_path: Path, decoders: Decoders) -> None:
    good = hashlib.sha256(jpeg()).hexdigest()
    for i, case in enumerate(BYTES["silent"]):
        (tmp_path / f"{i}.jpg").write_bytes(case.make())
    (tmp_path / "good.jpg").write_bytes(jpeg())
    uris = ["good.jpg", "good.jpg", "0.jpg", "1.jpg"]
    source = ImageSource(tmp_path, uris, [good, "", good, good.upper()])
    batch = decode(decoders.get(name, Recipe()), source, [0, 1, 2, 3])
    assert {slot: failure.code for slot, failure in batch.failures.items()} == {2: "digest", 3: "digest"}


@pytest.mark.parametrize("place", [pytest.param(place, id=place.name) for place in PLACES])
def test_places(place: Place, tmp_path: Path, decoders: Decoders) -> None:
    if place.name == "no permission" and os.geteuid() == 0:
        pytest.skip("root may read everything")
    root = tmp_path / "root"
    root.mkdir()
    uri = place.make(root)
    (root / "good.png").write_bytes(png())
    batch = decode(decoders.get("turbo", Recipe()), ImageSource(root, [uri, "good.png"]), [0, 1])
    assert {slot: failure.code for slot, failure in batch.failures.items()} == (
        {0: place.code} if place.code else {}
    )
    if place.code:
        assert "passwd" not in batch.failures[0].detail
        assert str(tmp_path) not in batch.failures[0].detail


@pytest.mark.parametrize("name", DECODERS)
def test_bombs_take_no_memory(name: str, corpus: ImageSource, decoders: Decoders) -> None:
    """The largest would unpack to 400 MB; the long thin ones are 3 GB on the way to a square."""
    decoder = decoders.get(name, Recipe())
    thin = [case for case in BYTES["modes"] if "20000" in case.name]
    rows = [row_of(corpus, "bombs", case) for case in BYTES["bombs"]]
    rows += [row_of(corpus, "modes", case) for case in thin]
    assert len(thin) == 2
    before = peak_bytes(reset=True)
    for row in rows:
        decode(decoder, corpus, [row])
    assert peak_bytes() - before < 60_000_000


def peak_bytes(*, reset: bool = False) -> int:
    """Largest resident size of this process since the last reset."""
    if reset:
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            pytest.skip("this system does not reset a process's memory peak")
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024
