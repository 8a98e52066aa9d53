"""What every decoder keeps to: order, batches of any size, reading ahead, cleaning up, choosing one."""

import gc
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.decode import (
    DecodedBatch,
    Decoder,
    ImageSource,
    Limits,
    available_decoders,
    decoder_name,
    make_decoder,
)
from engine.decode.parity import pixel_parity
from engine.decode.protocol import READ_AHEAD
from engine.errors import Refused
from engine.recipes import Recipe
from tests.corpus.images import (
    depth_ramp,
    dicom,
    jpeg,
    png,
    png_16,
    png_header,
    recrc,
    scene,
    with_rows,
    written,
)  # fmt: skip

RECIPE = Recipe(size=48, crop=40)
KINDS = [
    ("reference", "cpu"),
    ("turbo", "cpu"),
    ("dali", "cpu"),
    pytest.param(("turbo", "cuda:0"), marks=pytest.mark.gpu),
    pytest.param(("dali", "cuda:0"), marks=pytest.mark.gpu(needs="dali")),
]


@pytest.fixture(params=KINDS, ids=str)
def decoder(request: pytest.FixtureRequest) -> Iterator[Decoder]:
    name, device = request.param
    if reason := available_decoders()[name]:
        pytest.skip(reason)
    with make_decoder(name, RECIPE, device=device, threads=2, batch_size=4) as made:
        yield made


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> ImageSource:
    """Eleven pictures, each of its own brightness; row 5 is truncated, row 8 a TIFF."""
    root = tmp_path_factory.mktemp("images")
    for i in range(11):
        pixels = np.full((60, 70, 3), 20 * i, np.uint8)
        data = written(pixels, "TIFF" if i == 8 else ("PNG", "JPEG")[i % 2])
        (root / str(i)).write_bytes(data[:-20] if i == 5 else data)
    return ImageSource(root, [str(i) for i in range(11)])


def levels(batches: list[DecodedBatch]) -> list[int]:
    return [int(image.float().mean().round()) for batch in batches for image in batch.pixels]


def test_rows_in_order_and_batches_of_any_size(decoder: Decoder, source: ImageSource) -> None:
    asked = [[3, 1, 2], [10], [], [4, 5, 6, 7], [8], [5], [0, 0, 9]]
    batches = list(decoder.stream(source, asked))
    assert [list(batch.rows) for batch in batches] == asked
    assert levels(batches) == [0 if row == 5 else 20 * row for rows in asked for row in rows]
    assert [sorted(batch.failures) for batch in batches] == [[], [], [], [1], [], [0], []]
    for batch in batches:
        assert batch.pixels.shape == (len(batch.rows), 40, 40, 3)
        assert batch.pixels.dtype == torch.uint8
        assert batch.pixels.is_contiguous()
        sizes = [(source.root / source.uris[row]).stat().st_size for row in batch.rows]
        assert batch.bytes_read == sum(sizes)
        assert batch.seconds >= 0


def test_a_row_never_depends_on_its_batch(decoder: Decoder, source: ImageSource) -> None:
    alone = torch.cat([batch.pixels for batch in decoder.stream(source, [[i] for i in range(11)])])
    batches = [[0, 5, 9, 1], [8, 2, 3, 4], [10, 7, 6]]
    for batch in decoder.stream(source, batches):
        assert torch.equal(batch.pixels, alone[list(batch.rows)])


def test_reads_two_batches_ahead_and_no_more(decoder: Decoder, source: ImageSource) -> None:
    asked = []

    def batches() -> Iterator[list[int]]:
        for i in range(9):
            asked.append(i)
            yield [i]

    for i, _ in enumerate(decoder.stream(source, batches())):
        assert len(asked) <= i + 1 + READ_AHEAD
    assert len(asked) == 9


def test_stopping_early_and_starting_again(decoder: Decoder, source: ImageSource) -> None:
    for _ in range(3):
        stream = decoder.stream(source, [[1, 2], [3, 4], [6, 7], [8, 9]])
        assert levels([next(stream)]) == [20, 40]
        stream.close()  # type: ignore[attr-defined]
    assert levels(list(decoder.stream(source, [[9, 3]]))) == [180, 60]


@pytest.mark.slow
def test_closing_ends_the_threads(source: ImageSource) -> None:
    gc.collect()  # threads of earlier tests
    before = threading.active_count()
    for name in ("reference", "turbo", "dali"):
        if available_decoders()[name]:
            continue
        made = make_decoder(name, RECIPE, device="cpu", threads=3, batch_size=4)
        list(made.stream(source, [[1, 2]]))
        made.close()
        made.close()
    gc.collect()
    assert threading.active_count() == before


def test_errors_of_the_batches_reach_the_caller(decoder: Decoder, source: ImageSource) -> None:
    def batches() -> Iterator[list[int]]:
        yield [1]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(decoder.stream(source, batches()))
    assert levels(list(decoder.stream(source, [[2]]))) == [40]


def test_images_that_only_decoding_finds_bad(decoder: Decoder, tmp_path: Path) -> None:
    """Checksums are right, data are not: DALI's pipeline breaks on these and must recover, in mid stream."""
    good, bad = written(scene(90, 80)), with_rows(png(), 300)
    files = [good, bad, jpeg(), bad, png_header(9, 9) + recrc(png())[33:], good]
    for i, data in enumerate(files):
        (tmp_path / str(i)).write_bytes(data)
    source = ImageSource(tmp_path, [str(i) for i in range(len(files))])
    batches = list(decoder.stream(source, [[0, 1, 2], [5], [3, 0], [4], [2, 5]]))
    found = {batch.rows[slot] for batch in batches for slot in batch.failures}
    assert found == {1, 3, 4}
    alone = {row: next(decoder.stream(source, [[row]])).pixels[0] for row in (0, 2, 5)}
    for batch in batches:
        for slot, row in enumerate(batch.rows):
            assert torch.equal(batch.pixels[slot], alone.get(row, torch.zeros_like(alone[0])))


def test_pixel_limit_can_be_raised(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(written(scene(300, 200)))
    with make_decoder("turbo", RECIPE, device="cpu", threads=1, batch_size=1) as made:
        for limit, failed in ((59_999, True), (60_000, False)):
            (batch,) = made.stream(ImageSource(tmp_path, ["a"], limits=Limits(max_pixels=limit)), [[0]])
            assert bool(batch.failures) == failed


def test_names(source: ImageSource) -> None:
    def name(asked: str, device: str = "cpu", dct: bool = False) -> str:
        with make_decoder(asked, RECIPE, device=device, threads=1, batch_size=1, dct=dct) as made:
            assert made.name == decoder_name(asked, device, dct)  # known without making one
            return made.name

    assert name("auto") == "turbo"
    assert name("auto", dct=True) == "turbo-dct"
    assert name("reference") == "reference"
    for asked, dct in (("fast", False), ("reference", True), ("dali", True)):
        with pytest.raises(Refused) as caught:
            decoder_name(asked, "cpu", dct)
        assert "Remedy: " in str(caught.value)
        with pytest.raises(Refused):
            name(asked, dct=dct)
    if not available_decoders()["dali"]:
        assert name("dali") == "dali"


@pytest.mark.gpu(needs="dali")
def test_auto_on_cuda(source: ImageSource) -> None:
    with make_decoder("auto", RECIPE, device="cuda:0", threads=2, batch_size=4) as made:
        assert made.name == ("turbo" if available_decoders()["dali"] else "dali-mixed")
        assert made.name == decoder_name("auto", "cuda:0")
        (batch,) = made.stream(source, [[1, 2]])
        assert batch.pixels.device == torch.device("cuda:0")


def test_parity(decoder: Decoder, source: ImageSource) -> None:
    found = pixel_parity(source, list(range(11)), RECIPE, decoder, batch_size=4)
    assert (found["n"], found["failed"], found["disagreed"], found["passed"]) == (10, 1, 0, True)
    assert found["worst_image_mean"] <= 0.5
    if decoder.name == "reference":
        assert found["max"] == 0


def test_parity_finds_a_wrong_decoder(source: ImageSource) -> None:
    other = Recipe(size=60, crop=40)  # a zoom that the flat pictures do not show
    with make_decoder("turbo", other, device="cpu", threads=1, batch_size=4) as made:
        assert pixel_parity(source, [1, 2], RECIPE, made)["passed"]
    detailed = ImageSource(source.root, ["detailed"])
    (source.root / "detailed").write_bytes(written(scene()))
    with make_decoder("turbo", other, device="cpu", threads=1, batch_size=4) as made:
        assert not pixel_parity(detailed, [0], RECIPE, made)["passed"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_members_and_deep_images_are_like_files(kind: tuple[str, str], tmp_path: Path) -> None:
    """One batch of every way to an image: a JPEG in a ZIP, an array's row, a slice, DICOM of 12 bits."""
    pytest.importorskip("pydicom")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("in/0.jpg", jpeg())
    (tmp_path / "0.jpg").write_bytes(jpeg())
    deep = depth_ramp(4095)
    np.savez_compressed(tmp_path / "a.npz", deep=np.stack([deep] * 3), rgb=np.stack([scene()] * 3))
    (tmp_path / "rgb.png").write_bytes(png())
    (tmp_path / "deep.png").write_bytes(png_16(deep))
    (tmp_path / "deep.dcm").write_bytes(dicom(deep, 12))
    header = f"ObjectType = Image\nNDims = 3\nDimSize = {deep.shape[1]} {deep.shape[0]} 1\n"
    header += "ElementType = MET_USHORT\nElementDataFile = LOCAL\n"
    (tmp_path / "v.mha").write_bytes(header.encode() + deep.astype("<u2").tobytes())
    uris = ["0.jpg", "a.zip!/in/0.jpg", "rgb.png", "a.npz!/rgb/2"]
    uris += ["deep.png", "a.npz!/deep/1", "deep.dcm", "v.mha!/slice/0.5"]
    recipe = Recipe(size=48, crop=40, depth="window", window=(0, 4095))
    name, device = kind
    if reason := available_decoders()[name]:
        pytest.skip(reason)
    with make_decoder(name, recipe, device=device, threads=2, batch_size=8) as made:
        (batch,) = made.stream(ImageSource(tmp_path, uris), [range(8)])
    assert not batch.failures
    pixels = batch.pixels.cpu()
    for slot in (1, 3):
        assert torch.equal(pixels[slot], pixels[slot - 1]), uris[slot]
    for slot in (5, 6, 7):
        assert torch.equal(pixels[slot], pixels[4]), uris[slot]
