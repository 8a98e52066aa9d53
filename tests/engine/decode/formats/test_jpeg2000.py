"""JPEG 2000: the samples of the code stream, or a refusal by name; imagecodecs encodes, and is the oracle."""

import importlib.util
from itertools import product

import imagecodecs
import numpy as np
import pytest
from PIL import Image

from engine.decode import pillow
from engine.decode.formats import jpeg2000
from engine.decode.formats.header import Header
from engine.decode.formats.sniff import sniff
from engine.decode.source import Limits
from engine.errors import BadImage
from engine.recipes import Recipe
from tests.corpus.jpeg2000 import (
    channels,
    coded,
    ends,
    jp2,
    palette,
    resized,
    samples,
    subsampled,
)

SCALE = Recipe(depth="scale")


def shown(data: bytes, recipe: Recipe = SCALE) -> np.ndarray:
    """As bytes, grey images in one channel."""
    found = np.asarray(pillow.picture_here(data, sniff(data, recipe, Limits()), recipe))
    return found[:, :, 0] if found.ndim == 3 and (found == found[:, :, :1]).all() else found


def refused(data: bytes, recipe: Recipe = SCALE) -> str:
    with pytest.raises(BadImage) as error:
        shown(data, recipe)
    return str(error.value)


def as_bytes(values: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.rint((values.astype(np.float64) - low) * 255 / (high - low)).clip(0, 255)


@pytest.mark.parametrize("container", ["j2k", "jp2"])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_samples_of_every_depth_are_those_stored(container: str, count: int) -> None:
    for bits, signed in product(range(1, 17), (False, True)):
        stored = samples(bits, signed, count)
        data = coded(stored, bits, container)
        # The oracle is another program's reading of the very file, and what was written into it.
        np.testing.assert_array_equal(imagecodecs.jpeg2k_decode(data), stored)
        colours = stored if count == 1 else stored[:, :, 0] if count == 2 else stored[:, :, :3]
        low, high = ends(bits, signed)
        recipe = Recipe(depth="window", window=(low, high)) if signed else SCALE
        np.testing.assert_array_equal(shown(data, recipe), as_bytes(colours, low, high), str((bits, signed)))
        # A window within the range, in the unit of the samples as stored.
        if high - low > 2 and (signed or bits > 8):
            low, high = low + (high - low) // 4, high - (high - low) // 4
            within = Recipe(depth="window", window=(low, high))
            np.testing.assert_array_equal(shown(data, within), as_bytes(colours, low, high))


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8])
def test_up_to_8_bits_need_no_rule(bits: int) -> None:
    stored = samples(bits, False, 1)
    data = coded(stored, bits, "jp2")
    header = sniff(data, Recipe(), Limits())
    assert (header.bits, header.deep, header.plain) == (8, False, False)
    np.testing.assert_array_equal(shown(data, Recipe()), as_bytes(stored, 0, 2**bits - 1))


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_a_palette_is_looked_up(bits: int) -> None:
    index = samples(bits, False, 1)
    entries = np.random.default_rng(1).integers(0, 256, (2**bits, 3)).astype(np.uint8)
    data = jp2(coded(index, bits), 1, bits, 16, palette(entries, (0, 1, 2)))
    np.testing.assert_array_equal(imagecodecs.jpeg2k_decode(data), entries[index])
    np.testing.assert_array_equal(shown(data, Recipe()), entries[index])
    turned = jp2(coded(index, bits), 1, bits, 16, palette(entries, (2, 1, 0)))
    np.testing.assert_array_equal(shown(turned, Recipe()), entries[index][:, :, ::-1])


@pytest.mark.parametrize("bits", [8, 12])
def test_channels_are_ordered_by_their_definition(bits: int) -> None:
    stored = samples(bits, False, 3)
    data = jp2(coded(stored, bits), 3, bits, 16, channels((0, 0, 3), (1, 0, 2), (2, 0, 1)))
    np.testing.assert_array_equal(imagecodecs.jpeg2k_decode(data), stored[:, :, ::-1])
    np.testing.assert_array_equal(shown(data), as_bytes(stored[:, :, ::-1], 0, 2**bits - 1))
    alpha_first = jp2(coded(stored[:, :, :2], bits), 2, bits, 17, channels((0, 1, 0), (1, 0, 1)))
    np.testing.assert_array_equal(shown(alpha_first), as_bytes(stored[:, :, 1], 0, 2**bits - 1))


def test_8_bits_in_sycc_are_converted() -> None:
    stored = samples(8, False, 3)
    expected = np.asarray(Image.fromarray(stored, "YCbCr").convert("RGB"))
    np.testing.assert_array_equal(shown(jp2(coded(stored, 8), 3, 8, 18), Recipe()), expected)


@pytest.mark.parametrize("recipe", [Recipe(), SCALE, Recipe(deep=("scale",))])
def test_what_is_not_read_is_refused_by_name(recipe: Recipe) -> None:
    """No rule is offered as a remedy that would not help."""
    grey12, rgb12, rgb8 = samples(12, False, 1), samples(12, False, 3), samples(8, False, 3)
    made = {
        "of colour space 14": jp2(coded(rgb8, 8), 3, 8, 14),
        "in sYCC of 12 bits": jp2(coded(rgb12, 12), 3, 12, 18),
        "of 5 components": coded(samples(8, False, 5), 8),
        "of 17 bits a sample; the most is 16": resized(coded(grey12, 12), 17),
        "components of unequal depth": resized(coded(rgb12, 12), 11),
        "subsampled": subsampled(coded(grey12, 12)),
        "a palette of other than 8 bits": jp2(
            coded(samples(4, False, 1), 4), 1, 4, 16, palette(np.zeros((16, 3), np.uint8), (0, 1, 2), 12)
        ),
        "a palette that is mapped in part": jp2(
            coded(samples(4, False, 1), 4), 1, 4, 16, palette(np.zeros((16, 3), np.uint8), (0, 1, 7))
        ),
        "2 colours by its channel definition": jp2(
            coded(rgb8, 8), 3, 8, 16, channels((0, 0, 1), (1, 0, 2), (2, 1, 0))
        ),
    }
    for name, data in made.items():
        said = refused(data, recipe)
        assert said.startswith("undecodable: "), name
        assert name in said


def test_deep_colour_waits_for_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openjpeg" else find(name))
    with pytest.raises(BadImage, match="pip install 'pylibjpeg-openjpeg'") as error:
        sniff(coded(samples(12, False, 3), 12), SCALE, Limits())
    assert (error.value.code, error.value.pending) == ("needs_package", True)
    assert shown(coded(samples(12, False, 1), 12)).shape == (9, 7)  # grey needs none


def test_damage_is_found_in_colour_as_well() -> None:
    data = coded(samples(12, False, 3), 12)
    at = data.index(b"\xff\x90")
    assert refused(data[: at + 20] + b"\xff\xd9").split(":")[0] in ("corrupt", "truncated")
    assert refused(jp2(data, 3, 12)[:120]).startswith("truncated")


@pytest.mark.parametrize("cut", [20, 30, 60, 80])
def test_a_file_that_ends_in_its_header_is_truncated(cut: int) -> None:
    data = jp2(coded(samples(4, False, 1), 4), 1, 4, 16, palette(np.zeros((16, 3), np.uint8), (0, 1, 2)))
    with pytest.raises(BadImage, match=r"truncated|corrupt"):
        sniff(data[:cut], SCALE, Limits())


def test_the_stream_is_that_of_its_box() -> None:
    """Not the first bytes that look like one: a comment before it may hold some."""
    stored = samples(12, False, 1)
    data = jp2(coded(stored, 12), 1, 12, 17)
    at = data.index(b"jp2h") - 4
    decoy = coded(samples(3, False, 1), 3)[:60]
    length = (8 + len(decoy)).to_bytes(4, "big")
    hidden = data[:at] + length + b"xml " + decoy + data[at:]
    assert jpeg2000.read(hidden).bits == 12
    np.testing.assert_array_equal(shown(hidden), as_bytes(stored, 0, 4095))


def test_no_header_of_it_is_plain() -> None:
    """So that DALI and turbo hand it to the reference, which decodes it in a child process."""
    from engine.decode import isolated_process

    for bits in (4, 8, 12):
        header = sniff(coded(samples(bits, False, 1), bits), SCALE, Limits())
        assert isinstance(header, Header)
        assert not header.plain
        assert isolated_process.is_wanted(header)
