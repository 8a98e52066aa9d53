"""The TensorFlow checkpoint reader against a writer of its own, published checksums, and damage."""

import contextlib
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.errors import WeightsError
from engine.models.checkpoints.formats import sstable, tf_checkpoint
from tests.engine.models import tables

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "base_model/conv2d/kernel": RANDOM.normal(size=(7, 7, 3, 4)).astype(np.float32),
    **{f"base_model/batch_normalization_{i}/gamma": np.arange(i, dtype=np.float32) for i in range(30)},
    "global_step": np.array(5, np.int64),
    "half": RANDOM.normal(size=(2, 3)).astype(np.float16),
    "double": RANDOM.normal(size=(5,)),
    "flag": np.array([True, False]),
}


def _write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / next(n for n in files if n.endswith(".index"))


def _read(path: Path, wanted: list[str] | None = None, pattern: str = ".*") -> dict[str, np.ndarray]:
    with tf_checkpoint.opened(path, pattern) as opened:
        return opened.tensors(wanted or list(opened.entries))


def test_checksums_are_the_published_ones() -> None:
    """RFC 3720, B.4, masked as LevelDB's crc32c_test demands: unmasking gives the value back."""
    for data, crc in ((bytes(32), 0x8A9136AA), (b"\xff" * 32, 0x62A8AB43), (bytes(range(32)), 0x46DD794E)):
        masked = sstable.crc32c(data)
        rotated = (masked - 0xA282EAD8) % 2**32
        assert ((rotated >> 17) | (rotated << 15)) % 2**32 == crc
        assert masked == tables.masked_crc(data)


@pytest.mark.parametrize("snappy", [False, True])
@pytest.mark.parametrize("shards", [1, 3])
def test_every_variable_comes_back(snappy: bool, shards: int, tmp_path: Path) -> None:
    index = _write(tmp_path, tables.bundle(ARRAYS, "model.ckpt-9", shards, snappy, fast=False))
    found = _read(index)
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


def test_only_what_is_wanted_is_read(tmp_path: Path) -> None:
    files = tables.bundle(ARRAYS, "m")
    data = bytearray(files["m.data-00000-of-00001"])
    data[-1] ^= 1  # the last of the sorted names is `half`
    files["m.data-00000-of-00001"] = bytes(data)
    index = _write(tmp_path, files)
    assert set(_read(index, ["global_step", "double"])) == {"global_step", "double"}
    with pytest.raises(WeightsError, match="checksum of half"):
        _read(index, ["half"])


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.binary(min_size=1, max_size=9), st.binary(max_size=40), max_size=60),
    st.integers(1, 20),
    st.booleans(),
)
def test_any_table(entries: dict[bytes, bytes], per_block: int, snappy: bool) -> None:
    assert sstable.read(tables.table(entries, per_block, snappy)) == entries


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**64 - 1))
def test_numbers(n: int) -> None:
    assert sstable.varint(tables.varint(n) + b"x", 0) == (n, len(tables.varint(n)))


def test_every_flipped_bit_of_an_index_is_found() -> None:
    """All blocks carry checksums; only the footer's padding and the empty meta-index' handle do not."""
    good = tables.table({f"name/{i}".encode(): bytes([i]) * 9 for i in range(40)})
    whole = sstable.read(good)
    places = random.Random(0).sample(range(8 * (len(good) - sstable.FOOTER_BYTES)), 300)
    missed = 0
    for bit in places:
        bad = bytearray(good)
        bad[bit // 8] ^= 1 << bit % 8
        try:
            missed += sstable.read(bytes(bad)) != whole
        except sstable.Malformed:
            continue
    assert missed == 0


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_refused_not_crashed(noise: bytes) -> None:
    magic = (0xDB4775248B80FB57).to_bytes(8, "little")
    for data in (noise, noise.ljust(48, b"\0") + magic):
        with pytest.raises(sstable.Malformed):
            sstable.read(data)
    with contextlib.suppress(sstable.Malformed):
        tf_checkpoint._fields(noise)


# --- in a zip ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_in_place_within_a_zip(compression: int, tmp_path: Path) -> None:
    files = tables.bundle(ARRAYS, "ResNet50_1x/model.ckpt-225206", shards=2)
    other = tables.bundle({"x": np.zeros(2, np.float32)}, "ResNet50_1x/hub/variables/variables")
    path = tables.zipped(
        {**other, **files, "ResNet50_1x/checkpoint": b"text"}, tmp_path / "w.zip", compression
    )
    found = _read(path, pattern=r"model\.ckpt-\d+")
    assert all(np.array_equal(found[name], array) for name, array in ARRAYS.items())
    assert [p.name for p in tmp_path.iterdir()] == ["w.zip"]


def test_names_that_lead_out_are_harmless(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    path = tables.zipped(tables.bundle(ARRAYS, "../../model.ckpt-1"), folder / "w.zip")
    assert set(_read(path)) == set(ARRAYS)
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["w.zip"]


INDEX, DATA = "model.ckpt-1.index", "model.ckpt-1.data-00000-of-00001"
GOOD = tables.bundle(ARRAYS, "model.ckpt-1")
_LYING = tables.entry(np.zeros(3, np.float32), 0, 0, 0).replace(b"\x08\x03", b"\x08\x7f")
#: What is wrong -> the files within the zip.
DAMAGED = {
    "no data": {INDEX: GOOD[INDEX]},
    "short data": {**GOOD, DATA: GOOD[DATA][:-9]},
    "cut index": {**GOOD, INDEX: GOOD[INDEX][:-9]},
    "two checkpoints": {**GOOD, **tables.bundle(ARRAYS, "model.ckpt-2")},
    "no checkpoint": {"readme.txt": b"nothing"},
    "no header": {**GOOD, INDEX: tables.table({b"a": b""})},
    "big-endian": {**GOOD, INDEX: tables.table({b"": b"\x08\x01\x10\x01"})},
    "slices": {**GOOD, INDEX: tables.table({b"": b"\x08\x01", b"x": b"\x08\x01\x3a\x00"})},
    "text": {**GOOD, INDEX: tables.table({b"": b"\x08\x01", b"x": b"\x08\x07"})},
    "lying shape": {**GOOD, INDEX: tables.table({b"": b"\x08\x01", b"x": _LYING})},
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damage_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        _read(tables.zipped(DAMAGED[kind], tmp_path / "w.zip"))
    assert caught.value.remedy


def test_damaged_zips_are_refused(tmp_path: Path) -> None:
    path = tables.zipped(GOOD, tmp_path / "w.zip")
    good = path.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 3] ^= 4
    for bad in (good[:-40], b"these are no weights", bytes(flipped)):
        path.write_bytes(bad)
        with pytest.raises(WeightsError):
            _read(path)


def test_absent_variables_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"lacks 1 variables.*base_model/nothing"):
        _read(_write(tmp_path, tables.bundle(ARRAYS, "m")), ["base_model/nothing", "half"])
