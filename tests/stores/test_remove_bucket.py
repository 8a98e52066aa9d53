"""Names, removal and pruning of a bank in a bucket, against an S3 server on loopback."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from benchmarks.faults.bucket import everything
from benchmarks.faults.s3 import Server, environment
from stores.backends import object_requests, private
from stores.backends.location import ObjectPath, place
from stores.bank import array_cache
from stores.bank.caches import prune
from stores.bank.layout import SIDE
from stores.bank.names import give
from stores.bank.reader import Bank
from stores.bank.writer import FeatureWriter, open_or_create
from stores.errors import Refused
from stores.maintenance.remove import removable, remove
from stores.maintenance.verify import verify
from tests.buckets import serving
from tests.stores import banks
from tests.stores.banks import fill, make_key

ROWS, DIM = 150, 8


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("bucket") as found, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(found.url).items():
            patch.setenv(name, value)
        object_requests.bucket_of.cache_clear()
        yield found
    object_requests.bucket_of.cache_clear()


def kept(root: ObjectPath) -> dict[str, bytes]:
    """Every object but free leases, which say nothing."""
    found = everything(root)
    return {name: data for name, data in found.items() if not name.endswith(("/lock", "/commit.lock"))}


@pytest.mark.slow
def test_a_feature_in_a_bucket_is_named_and_removed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(private.CACHE_VARIABLE, str(tmp_path / "cache"))
    root = place("s3://bucket/study/bank")
    assert isinstance(root, ObjectPath)
    bank = open_or_create(root, banks.make_manifest(Path("/elsewhere"), ROWS), chunk_rows=64)
    fill(bank, make_key(bank.image_digest), DIM)
    beside = place("s3://bucket/study/bank2/x")  # a name that begins alike is no part of the bank
    assert isinstance(beside, ObjectPath)
    object_requests.replace(beside, b"x")
    before = kept(root)
    key = make_key(bank.image_digest, weights="b" * 64)
    fill(bank, key, DIM, seed=1)
    give(root, {key.name: "mine"})
    assert bank.features("mine").name == key.name
    np.testing.assert_array_equal(bank.features("mine").array, Bank.open(root).features(key.name).array)
    for relative in (f"views/{key.name}/t/1.arrays", "statistics/1.arrays"):
        array_cache.write(root, relative, {"feature": key.digest}, {"x": np.zeros(10)})
    seal = object_requests.read_if_there(root / SIDE / key.name / "seal.json")
    assert seal is not None
    copy = tmp_path / "cache" / "banks" / hashlib.sha256(seal).hexdigest()
    assert copy.is_dir()
    with (
        FeatureWriter(bank, key, DIM),
        pytest.raises(Refused, match="is being written"),
    ):
        remove(removable(root, "mine"))
    chosen = removable(root, "mine")
    assert chosen.bytes > ROWS * DIM * 2
    remove(chosen)
    assert kept(root) == before
    assert not copy.exists()
    assert verify(bank).ok
    assert object_requests.read_if_there(beside) == b"x"


def test_caches_in_a_bucket(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(private.CACHE_VARIABLE, str(tmp_path / "cache"))
    root = place("s3://bucket/pruned/bank")
    assert isinstance(root, ObjectPath)
    bank = open_or_create(root, banks.make_manifest(Path("/elsewhere"), ROWS), chunk_rows=64)
    fill(bank, make_key(bank.image_digest), DIM)
    before = kept(root)
    _ = bank.features().array
    array_cache.write(root, "saliency/0/1.arrays", {"a": 1}, {"x": np.zeros(10)})
    assert prune(root, 10**9)["removed_bytes"] == 0
    told = prune(root)
    assert (told["removed"]["saliency"]["files"], told["removed"]["buckets"]["files"]) == (1, 1)
    assert kept(root) == before
    assert list((tmp_path / "cache" / "banks").iterdir()) == []
    assert bank.features().array.shape == (ROWS, DIM), "it is fetched again"
