"""Banks in a bucket, against an S3 server on loopback: the same bytes as on disk, and the same promises."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.faults.bucket import begin, everything, false_markers, lasting
from benchmarks.faults.s3 import Server, environment
from stores.backends import leases, object_requests, private
from stores.backends.location import ObjectPath, Place, place
from stores.bank import integrity
from stores.bank.commit import Committer
from stores.bank.encode import encode
from stores.bank.reader import Bank
from stores.bank.records import RunRecord, read_all
from stores.bank.writer import FeatureWriter, open_or_create
from stores.errors import BankError, MachineFault
from stores.maintenance.verify import quarantine, verify
from stores.manifest.manifest import Manifest
from tests.buckets import serving
from tests.stores import banks
from tests.stores.banks import at_once, chunk_result, content, fill, make_key

ROWS, DIM, CHUNK = 150, 8, 64


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serving("bucket") as found, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(found.url).items():
            patch.setenv(name, value)
        object_requests.bucket_of.cache_clear()
        yield found
    object_requests.bucket_of.cache_clear()


@pytest.fixture
def root(server: Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ObjectPath:
    """A prefix of the test's own; what is read is kept in memory."""
    monkeypatch.setenv(private.CACHE_VARIABLE, "")
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)
    found = place(f"s3://bucket/{name}/bank")
    assert isinstance(found, ObjectPath)
    return found


def manifest() -> Manifest:
    """Of images that share nothing but `/` with any bank: its file is the same everywhere."""
    return banks.make_manifest(Path("/elsewhere"), ROWS)


def make_bank(where: Place, seed: int = 0) -> Bank:
    bank = open_or_create(where, manifest(), chunk_rows=CHUNK)
    fill(bank, make_key(bank.image_digest), DIM, seed)
    return bank


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Bank:
    return make_bank(tmp_path_factory.mktemp("disk") / "bank")


def keys(root: ObjectPath) -> list[str]:
    """Every key below a prefix, relative."""
    return sorted(everything(root))


def upload(folder: Path, root: ObjectPath) -> None:
    """What `aws s3 sync` does."""
    for path in folder.rglob("*"):
        if path.is_file():
            object_requests.replace(root / path.relative_to(folder).as_posix(), path.read_bytes())


def download(root: ObjectPath, folder: Path) -> None:
    for key, data in everything(root).items():
        (folder / key).parent.mkdir(parents=True, exist_ok=True)
        (folder / key).write_bytes(data)


def flip(path: ObjectPath, at: int = 100) -> None:
    data = bytearray(object_requests.read_if_there(path) or b"")
    data[at] ^= 16
    object_requests.replace(path, bytes(data))


def chunk(bank: Bank, index: int, array: str = "embedding") -> ObjectPath:
    name = bank.list()[0].name
    found = bank.path / (f"{name}/{array}/c/{index}" + ("/0" if array == "embedding" else ""))
    assert isinstance(found, ObjectPath)
    return found


def same_values(left: Bank, right: Bank) -> None:
    a, b = left.features(), right.features()
    np.testing.assert_array_equal(a.array.view(np.uint16), b.array.view(np.uint16))
    np.testing.assert_array_equal(a.norm, b.norm)
    np.testing.assert_array_equal(a.status, b.status)
    np.testing.assert_array_equal(a.labels, b.labels)
    assert a.failures() == b.failures()
    assert a.image_ids == b.image_ids
    assert a.info == b.info


# The same bank


def test_a_bank_in_a_bucket_has_the_bytes_of_one_on_disk(root: ObjectPath, disk: Bank) -> None:
    bank = make_bank(root)
    assert lasting(root) == content(disk.path)
    same_values(bank, disk)
    report = verify(root)
    assert report.ok
    assert report.chunks == bank.grid.chunks


@pytest.mark.slow
def test_a_copied_bank_is_a_bank_both_ways(root: ObjectPath, disk: Bank, tmp_path: Path) -> None:
    upload(disk.path, root)
    bank = Bank.open(str(root))
    assert verify(root).ok
    same_values(bank, disk)
    make_bank(root)  # Finds everything done, in spite of the lock files that came from a disk.
    download(root, tmp_path / "back")
    back = Bank.open(tmp_path / "back")
    assert verify(back).ok
    same_values(back, disk)
    make_bank(tmp_path / "back")


def test_plain_zarr_opens_it(root: ObjectPath, disk: Bank) -> None:
    import zarr
    from zarr.storage import ObjectStore

    make_bank(root)
    from obstore.store import from_url

    group = zarr.open_group(ObjectStore(from_url(str(root), client_options={"allow_http": True})), mode="r")
    feature = disk.features()
    stored = group[f"{feature.name}/embedding"][:]
    np.testing.assert_array_equal(stored.view(np.uint16), feature.array.view(np.uint16))


def test_records_and_descriptions(root: ObjectPath) -> None:
    bank = make_bank(root)
    record = RunRecord.now("test", asked={}, used={}, metrics={"x": 1}, seconds={})
    record.write(root)
    assert read_all(str(root)) == [record]
    name = bank.list()[0].name
    assert len(bank.describe(name, failures=True)["failures"]) == sum(map(banks.is_bad, range(ROWS)))
    assert bank.manifest().digest == manifest().digest
    assert bank.manifest().root == Path("/elsewhere/images")


def test_the_path_of_a_url(root: ObjectPath) -> None:
    make_bank(root)
    assert Bank.open(Path(str(root))).path == root  # pathlib makes one slash of two


def test_what_is_there_is_not_taken_for_an_empty_place(root: ObjectPath) -> None:
    object_requests.replace(root / "notes.txt", b"mine")
    with pytest.raises(BankError, match=r"holds notes\.txt and no embank\.json"):
        make_bank(root)
    assert keys(root) == ["notes.txt"]


@pytest.mark.parametrize(
    "url", ["s3://", "s3:///bank", "gs://b//x", "az://b/../x", "s3://b/a\nb", "ftp://b/x"]
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(BankError):
        place(url)


def test_names() -> None:
    path = place("s3://bucket/a/b/")
    assert isinstance(path, ObjectPath)
    assert str(path) == "s3://bucket/a/b"
    assert (path / "c/d").parent == path / "c"
    assert path.name == "b"
    assert str(place("gs://bucket")) == "gs://bucket"
    assert place("a/b") == Path("a/b")
    assert place("s3/b") == Path("s3/b")


# Damage


@pytest.mark.slow
@pytest.mark.parametrize("array", ["embedding", "norm", "status"])
def test_a_flipped_bit_is_found_and_mended(root: ObjectPath, disk: Bank, array: str) -> None:
    bank = make_bank(root)
    flip(chunk(bank, 1, array), at=10)
    with pytest.raises(BankError, match="Chunk 1 is damaged"):
        getattr(bank.features(), "array" if array == "embedding" else array)
    report = verify(root)
    assert [(d.chunk, d.path) for d in report.damaged] == [
        (1, chunk(bank, 1, array).relative_to(root).as_posix())
    ]
    assert list(quarantine(root, report).values()) == [[1]]
    with pytest.raises(BankError, match="not finished"):
        bank.features()
    make_bank(root)
    assert verify(root).ok
    assert lasting(root) == content(disk.path)
    assert sum("quarantine" in key for key in keys(root)) == 6  # seal, marker, and the chunk's four objects


@pytest.mark.slow
def test_a_missing_object_is_found_and_mended(root: ObjectPath, disk: Bank) -> None:
    bank = make_bank(root)
    object_requests.remove(chunk(bank, 2))
    with pytest.raises(BankError, match=r"No such file.*repair"):
        _ = bank.features().array
    quarantine(root, verify(root))
    make_bank(root)
    assert lasting(root) == content(disk.path)


@pytest.mark.slow
def test_every_object_flipped_is_found(root: ObjectPath) -> None:
    bank = make_bank(root)
    for key in lasting(root):
        flip(root / key, at=7)
        report = verify(bank)
        assert key in [each.path for each in report.damaged], key
        flip(root / key, at=7)
    assert verify(bank).ok


@pytest.mark.slow
@pytest.mark.parametrize("name", ["manifest", "embank", "zarr", "key", "seal", "columns", "000001"])
def test_a_damaged_document_is_put_back(root: ObjectPath, disk: Bank, name: str) -> None:
    make_bank(root)
    for key in lasting(root):
        if key.rpartition("/")[2].startswith(name):
            flip(root / key, at=40)
            quarantine(root, verify(root))
            make_bank(root)
            assert verify(root).ok, key
    assert lasting(root) == content(disk.path)


# Copies at hand


@pytest.mark.slow
def test_what_was_read_stays_at_hand(
    root: ObjectPath, disk: Bank, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(private.CACHE_VARIABLE, str(tmp_path / "cache"))
    bank = make_bank(root)
    same_values(bank, disk)
    with server.faulty(lambda count, method, path: None):
        same_values(Bank.open(root), disk)
        assert not [path for _, path in server.log if "/embedding/" in path]
    (copy,) = (tmp_path / "cache").rglob("embedding/c/1/0")
    data = bytearray(copy.read_bytes())
    data[5] ^= 1
    copy.write_bytes(data)
    same_values(Bank.open(root), disk)  # A damaged copy is fetched again ...
    assert bytes(data) != copy.read_bytes()
    flip(chunk(bank, 1))
    same_values(Bank.open(root), disk)  # ... and one that is whole hides damage in the bucket, which
    assert not verify(root).ok  # verify finds.


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_done_without(
    root: ObjectPath, disk: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv(private.CACHE_VARIABLE, str(tmp_path / "file"))
    assert private.cache_folder() is None
    same_values(make_bank(root), disk)


def test_the_usual_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(private.CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert private.cache_folder() == tmp_path / "embank"


def test_a_user_without_a_home_has_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in (private.CACHE_VARIABLE, "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "expanduser", homeless)
    assert private.cache_folder() is None
    monkeypatch.setenv(private.CACHE_VARIABLE, str(tmp_path / "cache"))
    assert private.cache_folder() == tmp_path / "cache"


def spoiler(how: str, cache: Path, elsewhere: Path) -> None:
    """Let others write to a cache, or to what lies in it."""
    (copy,) = cache.rglob("embedding/c/1/0")
    if how == "cache":
        cache.chmod(0o777)
    elif how == "folder":
        copy.parent.chmod(0o770)
    elif how == "file":
        copy.chmod(0o666)
    elif how == "link":
        copy.rename(elsewhere)
        copy.symlink_to(elsewhere)
    elif how == "linked folder":
        copy.parent.rename(elsewhere)
        copy.parent.symlink_to(elsewhere)
    elif os.geteuid() == 0:
        os.chown(copy if how == "another user's file" else cache / "banks", 12345, 12345)
    else:
        pytest.skip("only root can give a file away")


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    ["cache", "folder", "file", "link", "linked folder", "another user's file", "another user's folder"],
)
def test_a_cache_that_others_can_write_to_is_not_believed(
    root: ObjectPath,
    disk: Bank,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    how: str,
) -> None:
    """Were it believed, nothing would be fetched: the copies are right, and stamped."""
    cache = tmp_path / "cache"
    monkeypatch.setenv(private.CACHE_VARIABLE, str(cache))
    monkeypatch.setattr(integrity, "SETTLED_NS", 0)
    private.warn.cache_clear()
    bank = make_bank(root)
    for _ in range(2):
        time.sleep(0.02)
        same_values(bank, disk)
    assert capsys.readouterr().err == ""
    spoiler(how, cache, tmp_path / "elsewhere")
    for _ in range(2):
        with server.faulty(lambda count, method, path: None):
            same_values(Bank.open(root), disk)
            assert len([path for _, path in server.log if "/embedding/c/" in path]) == bank.grid.chunks
    assert capsys.readouterr().err.count("the cache is not used") == 1


@pytest.mark.slow
def test_a_cache_behind_a_link_of_ones_own(
    root: ObjectPath, disk: Bank, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where homes are small, the cache is elsewhere."""
    (tmp_path / "large").mkdir(mode=0o700)
    (tmp_path / "cache").symlink_to(tmp_path / "large")
    monkeypatch.setenv(private.CACHE_VARIABLE, str(tmp_path / "cache"))
    same_values(make_bank(root), disk)
    with server.faulty(lambda count, method, path: None):
        same_values(Bank.open(root), disk)
        assert not [path for _, path in server.log if "/embedding/c/" in path]


# Races


def prepared(root: ObjectPath) -> Committer:
    bank = open_or_create(root, manifest(), chunk_rows=CHUNK)
    with FeatureWriter(bank, make_key(bank.image_digest), DIM) as writer:
        return writer.committer


@pytest.mark.slow
@pytest.mark.parametrize("differing", [False, True], ids=["same bytes", "other bytes"])
def test_eight_committers_of_one_chunk(root: ObjectPath, server: Server, differing: bool) -> None:
    """The first to get as far as the norms is held up there, so that the others could overtake it."""
    committer = prepared(root)
    passed = threading.Event()

    def hold_up(count: int, method: str, path: str) -> None:
        if method == "PUT" and path.endswith("/norm/c/0") and not passed.is_set():
            passed.set()
            time.sleep(0.7)

    results = [chunk_result(0, 0, CHUNK, DIM, seed=each if differing else 0) for each in range(8)]
    with server.faulty(hold_up):
        said, errors = at_once([lambda result=result: committer.commit(result) for result in results])
    assert errors == []
    assert sum(map(bool, said)) == 1
    marker = json.loads(object_requests.read_if_there(root / committer.layout.marker(0)) or b"")
    found = {path: object_requests.read_if_there(root / path) for path in marker["files"]}
    written = [
        {path: bytes(data) for path, data in encode(r, committer.layout).files.items()} for r in results
    ]
    assert found in written, "a mixed chunk"
    assert {path: object_requests.digest(root / path) for path in found} == {
        path: (promise["size"], promise["sha256"]) for path, promise in marker["files"].items()
    }


def test_a_store_that_overwrites_is_refused(root: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = object_requests._put

    def careless(path: ObjectPath, data: bytes, mode: object) -> object:
        return honest(path, data, "overwrite")

    monkeypatch.setattr(leases, "_trusted", set())
    monkeypatch.setattr(object_requests, "_put", careless)
    with pytest.raises(BankError, match="overwrites objects that it was asked to create"):
        make_bank(root)


@pytest.mark.slow
def test_eight_makers_of_one_bank(root: ObjectPath, disk: Bank) -> None:
    said, errors = at_once([lambda: open_or_create(root, manifest(), chunk_rows=CHUNK) for _ in range(8)])
    assert errors == []
    assert len({bank.manifest_digest for bank in said}) == 1
    make_bank(root)
    assert lasting(root) == content(disk.path)


# Faults


def work(root: ObjectPath) -> None:
    bank = Bank.open(root)
    fill(bank, make_key(bank.image_digest), DIM)


@pytest.fixture
def empty(root: ObjectPath) -> dict[str, bytes]:
    """The objects of a bank without features, to begin from."""
    open_or_create(root, manifest(), chunk_rows=CHUNK)
    return everything(root)


_RUN = """
import sys
from stores.bank.reader import Bank
from tests.stores.banks import fill, make_key
bank = Bank.open(sys.argv[1])
fill(bank, make_key(bank.image_digest), int(sys.argv[2]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["before", "after"])
def test_kills_at_requests_of_a_run(
    root: ObjectPath, disk: Bank, empty: dict[str, bytes], server: Server, how: str
) -> None:
    """SIGKILL while the store does a request, before or after it is done; the next run waits for nobody."""
    with server.faulty(lambda count, method, path: None):
        work(root)
        total = server.count
    assert lasting(root) == content(disk.path)
    for at in range(20 if how == "before" else 30, total, total // 3):
        begin(root, empty)
        words = [sys.executable, "-c", _RUN, str(root), str(DIM)]
        run = subprocess.Popen(words, cwd=Path(__file__).parents[3])

        def kill(count: int, method: str, path: str, at: int = at, run: Any = run) -> str | None:
            if count == at:
                os.kill(run.pid, signal.SIGKILL)
                run.wait()
            return "403" if count == at and how == "before" else None

        with server.faulty(kill):
            assert run.wait(120) == -signal.SIGKILL
        assert false_markers(root) == []
        start = time.monotonic()
        work(root)
        assert time.monotonic() - start < leases.SECONDS / 2
        assert lasting(root) == content(disk.path)


READING = {
    "403": (BankError, "not allowed.*AWS_ACCESS_KEY_ID"),
    "404": (BankError, "repair"),
    "500": (MachineFault, "500 InternalError"),
    "503": (MachineFault, "503 SlowDown"),
    "short": (BankError, "bytes instead of"),
    "flip": (BankError, "SHA-256"),
    "cut": (MachineFault, "does not answer as it should"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", READING)
def test_no_bad_answer_becomes_data(root: ObjectPath, server: Server, impatient: None, kind: str) -> None:
    features = make_bank(root).features()
    error, said = READING[kind]
    with (
        server.faulty(lambda count, method, path: kind if "/embedding/c/1/" in path else None),
        pytest.raises(error, match=said),
    ):
        _ = features.array


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["500", "503", "cut", "short", "flip", "lost"])
def test_what_goes_wrong_once_is_asked_again(
    root: ObjectPath, disk: Bank, server: Server, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(object_requests, "PAUSES", (0.0, 0.0))
    bank, seen = make_bank(root), set()

    def first_time(count: int, method: str, path: str) -> str | None:
        if "/c/" not in path or path in seen:
            return None
        seen.add(path)
        return kind

    with server.faulty(first_time):
        same_values(bank, disk)
        assert len(seen) == 3 * bank.grid.chunks


@pytest.mark.slow
def test_a_store_that_does_not_answer(
    root: ObjectPath, server: Server, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bank(root)
    monkeypatch.setenv("AWS_TIMEOUT", "300ms")
    monkeypatch.setattr(server, "slow_s", 1.0)
    object_requests.bucket_of.cache_clear()
    with (
        server.faulty(lambda count, method, path: "slow"),
        pytest.raises(MachineFault, match="does not answer"),
    ):
        Bank.open(root)


def test_no_such_bucket_and_no_such_server(
    server: Server, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(BankError, match=r"(?s)NoSuchBucket.*create it"):
        make_bank(place("s3://nobody/bank"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    object_requests.bucket_of.cache_clear()
    with pytest.raises(MachineFault):
        make_bank(place("s3://bucket/bank"))


def test_a_store_that_gives_back_other_bytes_is_a_fault(root: ObjectPath, server: Server) -> None:
    committer = prepared(root)
    with (
        server.faulty(lambda count, method, path: "flip" if method == "GET" and "/norm/c/" in path else None),
        pytest.raises(MachineFault, match="reads back other bytes"),
    ):
        committer.commit(chunk_result(0, 0, CHUNK, DIM))
    assert object_requests.names(root / f".embank/{committer.layout.name}/markers") == []
    assert committer.commit(chunk_result(0, 0, CHUNK, DIM))


def test_local_banks_do_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; from stores.maintenance import relabel, verify; assert 'obstore' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.setitem(sys.modules, "obstore.exceptions", None)
    object_requests.bucket_of.cache_clear()
    with pytest.raises(BankError, match=r"install embank\[s3\]"):
        Bank.open("s3://bucket/bank")
