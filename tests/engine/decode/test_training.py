"""Random crops decoded: torchvision's pixels on the same parameters, whatever the batch and the threads."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from engine.decode import (
    ImageSource,
    RandomCrops,
    TrainingBatch,
    TrainingDecoder,
    available_decoders,
    decoder_name,
    make_training_decoder,
    pillow,
)
from engine.decode import torchvision as turbo
from engine.decode.formats.sniff import sniff
from engine.decode.protocol import READ_AHEAD
from engine.decode.random_crops import Crop
from engine.errors import MachineFault, Refused
from engine.recipes import Recipe
from tests.corpus.images import depth_ramp, half, jpeg, png, png_16, scene, with_rows, written

SIDE = 32
RECIPE = Recipe(size=SIDE, crop=SIDE)
CROPS = RandomCrops(3)
MODES = {"bicubic": InterpolationMode.BICUBIC, "bilinear": InterpolationMode.BILINEAR}
KINDS = [
    ("reference", "cpu"),
    ("turbo", "cpu"),
    ("dali", "cpu"),
    pytest.param(("turbo", "cuda:0"), marks=pytest.mark.gpu),
    pytest.param(("dali", "cuda:0"), marks=pytest.mark.gpu(needs="dali")),
]
#: Mean difference of an image from torchvision's pixels, and the largest of a pixel, in levels of 255. Pillow
#: and DALI round at other steps of a resize; nvJPEG also decodes differently.
TOLERANCE = {"turbo": (0.0, 0), "reference": (0.15, 3), "dali": (0.4, 8), "dali-mixed": (1.0, 64)}


def exif(orientation: int) -> bytes:
    data = Image.Exif()
    data[0x0112] = orientation
    return data.tobytes()


FILES = {
    "rgb.jpg": jpeg(),
    "odd.jpg": written(scene(77, 53), "JPEG", subsampling=0),
    "grey.jpg": written(scene(90, 61, 1), "JPEG"),
    "small.jpg": written(scene(9, 14), "JPEG", quality=95),
    "one.jpg": written(scene(1, 1), "JPEG"),
    "line.png": written(scene(1, 40)),
    "rgb.png": written(scene(50, 83)),
    "grey.png": written(scene(64, 64, 1)),
    "turned.jpg": written(scene(60, 90), "JPEG", exif=exif(6)),
}
BAD = {"truncated.jpg": half(jpeg()), "rows.png": with_rows(png(), 300), "deep.png": png_16(depth_ramp(4095))}
NAMES = [*FILES, *BAD]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ImageSource:
    root = tmp_path_factory.mktemp("crops")
    for name, data in (FILES | BAD).items():
        (root / name).write_bytes(data)
    return ImageSource(root, NAMES)


@pytest.fixture(params=KINDS, ids=str)
def decoder(request: pytest.FixtureRequest) -> Iterator[TrainingDecoder]:
    name, device = request.param
    if reason := available_decoders()[name]:
        pytest.skip(reason)
    with make_training_decoder(name, RECIPE, CROPS, device=device, threads=2, batch_size=12) as made:
        yield made


def upright(data: bytes, rotate: bool = False) -> torch.Tensor:
    """The complete RGB image [3, h, w]: JPEG by torchvision, everything else by Pillow."""
    if data[:2] == b"\xff\xd8":
        encoded = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return torch.ops.image.decode_jpeg(encoded, 3, rotate)
    import io

    return F.pil_to_tensor(Image.open(io.BytesIO(data)).convert("RGB"))


def torchvisions(image: torch.Tensor, crop: Crop, recipe: Recipe) -> np.ndarray:
    """The crop by torchvision's functions, uint8 [side, side, 3]."""
    box = (crop.top, crop.left, crop.height, crop.width)
    side = [recipe.side, recipe.side]
    image = F.resized_crop(image, *box, side, MODES[recipe.interpolation], antialias=True)
    return (F.horizontal_flip(image) if crop.flip else image).permute(1, 2, 0).numpy()


def drawn(data: bytes, row: int, epoch: int) -> np.ndarray:
    image = upright(data)
    return torchvisions(image, CROPS.crop(row, epoch, *image.shape[1:]), RECIPE)


def test_pixels_are_torchvisions(decoder: TrainingDecoder, source: ImageSource) -> None:
    mean, largest = TOLERANCE[decoder.name]
    rows = range(len(FILES))
    batches = decoder.stream(source, [TrainingBatch(rows, epoch) for epoch in range(5)])
    for epoch, batch in enumerate(batches):
        assert not batch.failures
        for row, pixels in zip(rows, batch.pixels.cpu().numpy(), strict=True):
            expected = drawn(FILES[NAMES[row]], row, epoch)
            difference = np.abs(pixels.astype(int) - expected)
            assert difference.mean() <= mean and difference.max() <= largest, (NAMES[row], epoch)


@given(st.data(), st.sampled_from(["rgb.jpg", "grey.jpg", "small.jpg", "grey.png"]))
def test_any_box(data: st.DataObject, name: str) -> None:
    """Both renderers on every box, side and interpolation: equal to torchvision on tensors and on Pillow."""
    image = upright(FILES[name])
    height, width = image.shape[1:]
    h, w = data.draw(st.integers(1, height)), data.draw(st.integers(1, width))
    top, left = data.draw(st.integers(0, height - h)), data.draw(st.integers(0, width - w))
    crop = Crop(top, left, h, w, data.draw(st.booleans()))
    side = data.draw(st.integers(1, 50))
    recipe = Recipe(size=side, crop=side, interpolation=data.draw(st.sampled_from(["bicubic", "bilinear"])))
    header = sniff(FILES[name], recipe, ImageSource(Path(), []).limits)
    pixels, fallback = turbo.render_crop(FILES[name], header, recipe, lambda *size: crop)
    np.testing.assert_array_equal(pixels, torchvisions(image, crop, recipe))
    assert not fallback
    picture = pillow.picture(FILES[name], header, recipe).convert("RGB")
    box = F.resized_crop(picture, top, left, h, w, [side, side], MODES[recipe.interpolation])
    expected = np.asarray(F.horizontal_flip(box) if crop.flip else box)
    np.testing.assert_array_equal(
        pillow.render_crop(FILES[name], header, recipe, lambda *size: crop)[0], expected
    )


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_rotation_comes_before_the_crop(kind: tuple[str, str], source: ImageSource) -> None:
    name, device = kind
    recipe = Recipe(size=SIDE, crop=SIDE, exif=True)
    row = NAMES.index("turned.jpg")
    image = upright(FILES["turned.jpg"], rotate=True)
    assert image.shape == (3, 90, 60)
    with make_training_decoder(name, recipe, CROPS, device=device, threads=1, batch_size=1) as made:
        for epoch, batch in enumerate(made.stream(source, [TrainingBatch([row], e) for e in range(4)])):
            expected = torchvisions(image, CROPS.crop(row, epoch, 90, 60), recipe)
            difference = np.abs(batch.pixels[0].cpu().numpy().astype(int) - expected)
            assert difference.mean() <= 0.5


def test_failed_rows_are_zeros(decoder: TrainingDecoder, source: ImageSource) -> None:
    rows = [0, *range(len(FILES), len(NAMES)), 1]
    (batch,) = decoder.stream(source, [TrainingBatch(rows, 0)])
    codes = {slot: failure.code for slot, failure in batch.failures.items()}
    assert codes == {1: "truncated", 2: "truncated", 3: "depth"}
    assert not batch.pixels[1:4].any() and batch.pixels[0].any() and batch.pixels[4].any()
    assert batch.pixels.shape == (5, SIDE, SIDE, 3) and batch.pixels.dtype == torch.uint8


def test_deep_images_follow_the_recipes_rule(source: ImageSource) -> None:
    """A ramp from 0 to 4095 through a window of its lower half, as float64 arithmetic says."""
    values = depth_ramp(4095)
    grey = np.rint((values.astype(np.float64) * 255 / 2047).clip(0, 255)).astype(np.uint8)
    image = torch.from_numpy(grey).expand(3, -1, -1)
    recipe = Recipe(size=SIDE, crop=SIDE, depth="window", window=(0, 2047))
    row = NAMES.index("deep.png")
    for name in ("turbo", "reference"):
        with make_training_decoder(name, recipe, CROPS, device="cpu", threads=1, batch_size=1) as made:
            (batch,) = made.stream(source, [TrainingBatch([row], 1)])
        expected = torchvisions(image, CROPS.crop(row, 1, *grey.shape), recipe)
        assert np.abs(batch.pixels[0].numpy().astype(int) - expected).max() <= 1


def decoded(
    decoder: TrainingDecoder, source: ImageSource, layout: list[list[int]], epoch: int
) -> dict[int, bytes]:
    """Row -> its pixels."""
    done = list(decoder.stream(source, [TrainingBatch(rows, epoch) for rows in layout]))
    assert [list(batch.rows) for batch in done] == layout
    return {
        row: batch.pixels[slot].cpu().numpy().tobytes()
        for batch in done
        for slot, row in enumerate(batch.rows)
    }


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_neither_batches_nor_threads_matter(kind: tuple[str, str], source: ImageSource) -> None:
    name, device = kind
    all_rows = list(range(12))
    layouts = [[all_rows], [[i] for i in all_rows], [[11, 3, 0], [], [5, 4], [1, 2, 10, 9], [8, 7, 6]]]
    seen = []
    for threads, layout, epoch in zip((1, 3, 2, 2), [*layouts, [all_rows]], (6, 6, 6, 7), strict=True):
        with make_training_decoder(
            name, RECIPE, CROPS, device=device, threads=threads, batch_size=12
        ) as made:
            seen.append(decoded(made, source, layout, epoch))
    assert seen[0] == seen[1] == seen[2]
    assert seen[0][0] != seen[3][0]  # another epoch


def test_reads_two_batches_ahead_and_stops_early(decoder: TrainingDecoder, source: ImageSource) -> None:
    started = []

    def batches() -> Iterator[TrainingBatch]:
        for i in range(9):
            started.append(i)
            yield TrainingBatch([i], 0)

    stream = decoder.stream(source, batches())
    for i in range(3):
        next(stream)
        assert len(started) <= i + 1 + READ_AHEAD
    stream.close()  # type: ignore[attr-defined]
    (batch,) = decoder.stream(source, [TrainingBatch([0], 0)])
    assert batch.pixels.any()


def test_a_fault_of_the_machine_ends_the_stream(
    decoder: TrainingDecoder, source: ImageSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: str, *args: object, **options: object) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("engine.decode.source.os.open", full)
    with pytest.raises(MachineFault):
        list(decoder.stream(source, [TrainingBatch([0], 0)]))


def test_names_are_those_of_the_decoders(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("auto", "turbo", "reference"):
        with make_training_decoder(name, RECIPE, CROPS, device="cpu", threads=1, batch_size=1) as made:
            assert made.name == decoder_name(name, "cpu")
    with pytest.raises(Refused):
        make_training_decoder("fast", RECIPE, CROPS, device="cpu", threads=1, batch_size=1)
    monkeypatch.setattr("engine.decode.DECODERS", ("turbo", "own"))  # one without a renderer of crops
    with pytest.raises(Refused, match="random crops with decoder 'own'"):
        make_training_decoder("own", RECIPE, CROPS, device="cpu", threads=1, batch_size=1)
