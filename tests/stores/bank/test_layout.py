"""The bank as others see it: zarr alone, xarray, and zarr's own idea of the metadata."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr
from zarr.codecs import Crc32cCodec

from stores.bank.reader import Bank
from stores.bank.writer import FeatureWriter, open_or_create
from tests.stores.banks import chunk_result, embeddings, fill, is_bad, make_bank, make_key, make_manifest

ROWS, DIM = 150, 24


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    bank = make_bank(tmp_path_factory.mktemp("layout") / "bank", ROWS, DIM)
    fill(bank, make_key(bank.image_digest, model="other", dtype="float32"), 7, seed=3)
    return bank


def expected(dim: int, dtype: type, seed: int = 0) -> np.ndarray:
    values = embeddings(ROWS, dim, seed).astype(dtype)
    # Chunks are drawn one by one from the same seed, so row by row they equal one long draw.
    values[[is_bad(row) for row in range(ROWS)]] = np.nan
    return values


@pytest.mark.filterwarnings("error")
def test_zarr_alone_reads_everything(bank: Bank) -> None:
    group = zarr.open_group(bank.path, mode="r")
    assert group.metadata.consolidated_metadata is not None
    arrays = {name for name, node in group.members(max_depth=None) if isinstance(node, zarr.Array)}
    names = [info.name for info in bank.list()]
    each = ("embedding", "norm", "status", "content")
    assert arrays == {f"{name}/{array}" for name in names for array in each}
    for info in bank.list():
        node = group[info.name]
        values = expected(
            info.dim, np.float16 if info.dtype == "float16" else np.float32, 3 if info.dim == 7 else 0
        )
        np.testing.assert_array_equal(node["embedding"][:], values)
        assert node["embedding"].dtype == info.dtype
        bad = np.array([is_bad(row) for row in range(ROWS)])
        np.testing.assert_array_equal(node["status"][:], np.where(bad, 2, 1))
        norms = np.linalg.norm(
            embeddings(ROWS, info.dim, 3 if info.dim == 7 else 0).astype(np.float64), axis=1
        )
        np.testing.assert_allclose(node["norm"][:], np.where(bad, np.nan, norms), rtol=1e-6)
        assert node["embedding"].fill_value != node["embedding"].fill_value


@pytest.mark.filterwarnings("error")
def test_a_feature_opens_by_itself(bank: Bank) -> None:
    for info in bank.list():
        group = zarr.open_group(bank.path / info.name, mode="r")
        assert sorted(group.array_keys()) == ["content", "embedding", "norm", "status"]
        assert group.attrs["feature_key"] == info.key.digest


def test_xarray_sees_images_and_features(bank: Bank) -> None:
    info = bank.list()[-1]
    with xarray.open_zarr(bank.path, group=info.name, chunks=None) as data:
        assert data["embedding"].dims == ("image", "feature")
        assert data["norm"].dims == data["status"].dims == ("image",)
        assert dict(data.sizes) == {"image": ROWS, "feature": info.dim, "byte": 32}
        assert data["status"].dtype == np.uint8
        np.testing.assert_array_equal(data["embedding"].values, expected(info.dim, np.float16))


@pytest.mark.parametrize(("dim", "rows"), [(8, 100), (3, 1), (1, 65)])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_metadata_are_what_zarr_would_write(tmp_path: Path, dim: int, rows: int, dtype: str) -> None:
    bank = make_bank(tmp_path / "bank", rows, dim, dtype=dtype)
    ours = bank.path / bank.list()[0].name
    oracle = zarr.create_group(tmp_path / "oracle")
    for name, shape, kind, fill_value in (
        ("embedding", (rows, dim), dtype, np.nan),
        ("norm", (rows,), "float32", np.nan),
        ("status", (rows,), "uint8", 0),
        ("content", (rows, 32), "uint8", 0),
    ):
        array = oracle.create_array(
            name,
            shape=shape,
            chunks=(64, *shape[1:]),
            dtype=kind,
            fill_value=fill_value,
            compressors=[Crc32cCodec()],
            dimension_names=("image", "byte" if name == "content" else "feature")[: len(shape)],
            config={"write_empty_chunks": True},
        )
        array[:] = zarr.open_array(ours / name, mode="r")[:]
        wanted = json.loads((tmp_path / "oracle" / name / "zarr.json").read_bytes())
        found = json.loads((ours / name / "zarr.json").read_bytes())
        wanted["attributes"] = found["attributes"]
        assert found == wanted
        # And the chunk files are, byte for byte, those that zarr makes of the same values.
        for chunk in (tmp_path / "oracle" / name / "c").rglob("*"):
            if chunk.is_file():
                assert (ours / chunk.relative_to(tmp_path / "oracle")).read_bytes() == chunk.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zarr warns whenever it consolidates.
        zarr.consolidate_metadata(tmp_path / "oracle")
    wanted = json.loads((tmp_path / "oracle" / "zarr.json").read_bytes())["consolidated_metadata"]
    found = json.loads((ours / "zarr.json").read_bytes())["consolidated_metadata"]
    for node in found["metadata"].values():
        node["attributes"] = {}
    assert found == wanted


def test_pending_rows_read_as_pending(tmp_path: Path) -> None:
    bank = open_or_create(tmp_path / "bank", make_manifest(tmp_path, ROWS), chunk_rows=64)
    key = make_key(bank.image_digest)
    with FeatureWriter(bank, key, DIM) as writer:
        writer.commit(chunk_result(1, *writer.bounds(1), DIM))
    node = zarr.open_group(bank.path / key.name, mode="r")
    assert set(node["status"][:64]) == {0}
    assert set(node["status"][64:128]) == {1, 2}
    assert np.isnan(node["embedding"][:64]).all()
    assert list(zarr.open_group(bank.path, mode="r").group_keys()) == []
    info = bank.list()[0]
    assert (info.ok + info.failed, info.pending, info.sealed) == (64, ROWS - 64, False)
