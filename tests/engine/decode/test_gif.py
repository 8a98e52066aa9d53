"""Of an animated GIF the first frame is taken, and whoever decodes it is told so."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from engine.decode import ImageSource, Limits, available_decoders, make_decoder
from engine.decode.formats.sniff import sniff
from engine.embed.run import EmbedOptions, embed
from engine.errors import BadImage
from engine.models import resolve
from engine.recipes import Recipe
from engine.runtime import Runtime
from stores.bank import records
from stores.manifest.manifest import Manifest
from tests.corpus.images import frames, half, png, scene, written

pytestmark = pytest.mark.slow

RECIPE = Recipe(size=32, crop=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first frame alone, an animated GIF, a GIF of one frame, a PNG."""
    root = tmp_path_factory.mktemp("gifs")
    first = np.asarray(Image.fromarray(scene()).convert("P").convert("RGB"))
    for name, data in {
        "a.png": written(first), "b.gif": frames("GIF"), "c.gif": written(scene(), "GIF"), "d.png": png(),
    }.items():  # fmt: skip
        (root / name).write_bytes(data)
    return root


@pytest.mark.parametrize("name", ["reference", "turbo", "dali"])
def test_first_frames_are_counted(folder: Path, name: str) -> None:
    if reason := available_decoders()[name]:
        pytest.skip(reason)
    with make_decoder(name, RECIPE, device="cpu", threads=1, batch_size=4) as decoder:
        source = ImageSource(folder, ["a.png", "b.gif", "c.gif", "d.png"])
        few, none = decoder.stream(source, [[0, 1, 2, 3], [0, 2, 3]])
    assert not few.failures and (few.first_frames, none.first_frames) == (1, 0)
    if name != "dali":
        assert torch.equal(few.pixels[0], few.pixels[1])


def test_embedding_says_so(folder: Path, tmp_path: Path) -> None:
    runtime = Runtime(device="cpu", precision="fp32", threads=1)
    options = EmbedOptions(batch_size=4, chunk_rows=4)
    spec = resolve("random/resnet18", recipe=RECIPE)
    manifest = Manifest.from_folder(folder)
    (report,) = embed(manifest, [spec], tmp_path / "bank", runtime=runtime, options=options)
    said = "1 GIF holds several frames: the first frame was embedded, the others were not"
    assert (report.ok, report.notes) == (4, (said,))
    (record,) = records.read_all(tmp_path / "bank")
    assert record.metrics["first_frames"] == 1
    (again,) = embed(manifest, [spec], tmp_path / "bank", runtime=runtime, options=options)
    assert (again.embedded, again.notes) == (0, ())


def test_frames_are_counted_and_later_damage_is_found() -> None:
    assert sniff(frames("GIF"), Recipe(), Limits()).frames == 3
    assert sniff(written(scene(), "GIF"), Recipe(), Limits()).frames == 1
    for data in (frames("GIF")[:-2], half(frames("GIF"))):
        with pytest.raises(BadImage) as caught:
            sniff(data, Recipe(), Limits())
        assert caught.value.code == "truncated"
