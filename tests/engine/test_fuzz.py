"""Recipes and images of any content: an error of ours, a failure code, or the right value; nothing else."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.decode import Limits, pillow
from engine.decode import torchvision as turbo
from engine.decode.formats.sniff import sniff
from engine.decode.protocol import FAILURE_CODES
from engine.errors import BadImage, EmbankError
from engine.recipes import Recipe, load_recipe
from tests.corpus.images import BYTES, jpeg, png, png_chunk, scene, written

pytestmark = pytest.mark.slow

FUZZ = settings(deadline=None, suppress_health_check=list(HealthCheck))
FIELDS = list(Recipe().to_dict())
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
#: Of what a recipe takes, and around it.
VALUES = JSON | st.sampled_from(
    ["short", "exact", "bicubic", "bilinear", "refuse", "scale", "window", "mean_sd", "none", "histogram",
     1, 224, 8192, 8193, 10**400, [0, 1], [1, 0], [0.5, 0.5, 0.5], [1e400, 0, 0], [float("nan")] * 3, True],
)  # fmt: skip


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path_factory.mktemp("recipes") / "recipe.json"


def read_recipe(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    with suppress(EmbankError):
        recipe = load_recipe(file)
        assert Recipe.from_dict(recipe.to_dict()) == recipe
        assert json.loads(json.dumps(recipe.to_dict(), allow_nan=False)) == recipe.to_dict()
        assert 1 <= recipe.side <= 8192


@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(max_size=5), VALUES, max_size=5))
@settings(FUZZ, max_examples=300)
def test_recipes_of_any_fields(file: Path, values: dict[str, Any]) -> None:
    read_recipe(file, json.dumps(values).encode())


@given(
    st.binary(max_size=99)
    | st.sampled_from([b"[" * 100_000, b'{"a":' * 100_000, b"1" * 10_000, b"\xff\xfe{\0"])
)
@settings(FUZZ, max_examples=100)
def test_recipes_of_any_bytes(file: Path, data: bytes) -> None:
    read_recipe(file, data)


# ---- images

RECIPES = st.sampled_from([Recipe(size=16, crop=16), Recipe(size=16, crop=16, depth="scale", exif=True)])
LIMITS = Limits(max_pixels=1 << 20)
SMALL = [
    written(scene(20, 30), "PNG"),
    written(scene(20, 30, 1), "PNG"),
    written(scene(20, 30), "PNG", "P"),
    written(scene(40, 60), "JPEG"),
    written(scene(40, 60, 1), "JPEG", progressive=True),
    written(scene(40, 60), "JPEG", subsampling=0, restart_marker_blocks=2),
]
#: Of the formats that are decoded in child processes, only the header is read here.
FOREIGN = [written(scene(20, 30), format) for format in ("TIFF", "WEBP", "BMP", "JPEG2000", "GIF")]
MAGIC = [data[:16] for data in (*SMALL, *FOREIGN)] + [b"RIFF\0\0\0\0WEBPVP8X", b"MM\0+", b"II+\0", b"GIF87a"]


@st.composite
def spoilt(draw: st.DrawFn, files: list[bytes]) -> bytes:
    """A file with a few bytes changed, inserted, cut out or doubled."""
    data = draw(st.sampled_from(files))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        skip = draw(st.integers(0, 8))
        piece = draw(
            st.binary(max_size=6) | st.just(data[at : at + 40]) | st.just(b"\xff" * 4) | st.just(b"\0" * 4)
        )
        data = data[:at] + piece + data[at + skip :]
    return data


def render(data: bytes, recipe: Recipe) -> None:
    try:
        header = sniff(data, recipe, LIMITS)
        assert header.width * header.height <= LIMITS.max_pixels
        if header.format not in ("PNG", "JPEG") or not (header.plain or header.format == "PNG"):
            return
        for pixels in (pillow.render(data, header, recipe), turbo.render(data, header, recipe)[0]):
            assert pixels.shape == (16, 16, 3) and pixels.dtype == np.uint8
    except BadImage as bad:
        assert bad.code in FAILURE_CODES
        assert bad.detail.isprintable() and len(bad.detail) < 200, bad.detail


@given(spoilt(SMALL), RECIPES)
@settings(FUZZ, max_examples=400)
def test_jpeg_and_png_spoilt(data: bytes, recipe: Recipe) -> None:
    render(data, recipe)


@given(spoilt(FOREIGN), RECIPES)
@settings(FUZZ, max_examples=300)
def test_headers_of_other_formats_spoilt(data: bytes, recipe: Recipe) -> None:
    render(data, recipe)


@given(st.sampled_from(MAGIC), st.binary(max_size=200), RECIPES)
@settings(FUZZ, max_examples=300)
def test_anything_behind_a_magic_number(magic: bytes, data: bytes, recipe: Recipe) -> None:
    render(magic + data, recipe)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(lambda: png()[:33] + png_chunk(b"teXt", b"") * 3_000_000, id="PNG of small chunks"),
        pytest.param(lambda: b"\xff\xd8" + b"\xff\0" * 20_000_000, id="JPEG of no segments"),
        pytest.param(lambda: jpeg()[:2] + b"\xff" * 40_000_000, id="JPEG of fill bytes"),
        pytest.param(
            lambda: b"GIF89a\x09\0\x09\0" + bytes(3) + b"!\xfe" + b"\1a" * 20_000_000,
            id="GIF of small pieces",
        ),
        pytest.param(lambda: BYTES["modes"][0].make() + bytes(40_000_000), id="40 MB behind a JPEG"),
    ],
)
def test_large_files_are_not_walked_for_long(data: Any) -> None:
    """40 MB each; a gigabyte is the limit. Counted in steps of the interpreter, not in time."""
    import sys

    steps = 0

    def count(frame: Any, event: str, argument: Any) -> Any:
        nonlocal steps
        steps += event == "line"
        return count

    content = data()
    sys.settrace(count)
    try:
        sniff(content, Recipe(), Limits())
    except BadImage as bad:
        assert bad.code in ("too_large", "truncated")
    finally:
        sys.settrace(None)
    assert steps < 5_000_000
