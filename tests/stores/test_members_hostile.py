"""Containers of hostile content: their own members fail, in bounded time and memory, and nothing else."""

import io
import os
import pickle
import signal
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from stores import members
from stores.errors import MachineFault
from stores.manifest.check import check
from stores.manifest.manifest import Manifest
from stores.members import Containers, MemberError
from stores.members.encode import png
from stores.members.pool import Readers, readers
from tests.stores.test_members import code, mha, npy, read, shown, tarred, zipped

pytestmark = pytest.mark.slow

PICTURE = np.random.default_rng(5).integers(0, 256, (20, 31, 3), np.uint8)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two seconds of processor time and half a GiB, so that tests end soon."""
    monkeypatch.setattr("stores.members.pool._SECONDS", 2.0)
    monkeypatch.setattr("stores.members.pool._BYTES", 1 << 29)
    yield


# ---- pickles


def memo_tuples(depth: int) -> bytes:
    """(t, t), ((t, t), (t, t)), ...: 2**depth leaves, of which each is hashed."""
    return b"\x80\2)" + b"".join(b"q\0h\0\x86" for _ in range(depth))


def as_key(value: bytes) -> bytes:
    """A dict that has the value as a key."""
    return b"\x80\2}" + value.removeprefix(b"\x80\2") + b"K\1s."


PICKLES: dict[str, bytes] = {
    "tuple as key": as_key(memo_tuples(60)),
    "deep list": b"\x80\2" + b"]q\0" + b"]h\0a" * 10 + b"(" * 10 + b".",
    "deep nesting": b"\x80\2" + b"(" * 1_000_000 + b"t" * 1_000_000 + b".",
    "deep key": b"\x80\2}" + b")" + b"\x85" * 200_000 + b"K\1s.",
    "long integer": b"\x80\2}U\6labels\x8b" + struct.pack("<i", 4_000_000) + b"\x7f" * 4_000_000 + b"s.",
    "integer as text": b"\x80\2}" + b"U\6labels" + b"]L" + b"9" * 2_000_000 + b"L\nas.",
    "frame of 2^62": b"\x80\4\x95" + struct.pack("<Q", 1 << 62) + b"}.",
    "bytes of 2^62": b"\x80\4\x8e" + struct.pack("<Q", 1 << 62) + b"}.",
    "bytearray of 2^62": b"\x80\5\x96" + struct.pack("<Q", 1 << 62) + b"}.",
    "minus lengths": b"\x80\2T\xff\xff\xff\xff.",
    "odd keys": b"\x80\4}" + b"\x8c\3\xed\xa0\x80K\1s" + b".",
    "float labels": pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [float("inf")]}, 2),
    "labels of 2^70": pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [1 << 70]}, 2),
    "minus labels": pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [-1]}, 2),
    "names that are none": pickle.dumps(
        {b"data": np.zeros((1, 3072), np.uint8), b"labels": [1], b"filenames": [7]}, 2
    ),
    "labels are a dict": pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": {3: 3}}, 2),
    "pops too far": b"\x80\0020000.",
    "nothing": b"",
    "stop": b".",
}
SLOW = {"tuple as key": "too_slow"}


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", PICKLES)
def test_pickles(name: str, tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(PICKLES[name])
    expected = (SLOW[name],) if name in SLOW else ("corrupt", "truncated", "decoder_died", "too_much_memory")
    assert code(tmp_path / "data_batch_1", "0") in expected


@pytest.mark.usefixtures("short")
def test_a_container_that_hangs_is_tried_once_and_costs_nobody_else(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(PICKLES["tuple as key"])
    good = tmp_path / "data_batch_2"
    good.write_bytes(pickle.dumps({b"data": np.full((3, 3072), 7, np.uint8), b"labels": [1, 2, 3]}, 2))
    containers, begun = Containers(), time.monotonic()
    for row in range(50):
        with pytest.raises(MemberError) as caught:
            read(tmp_path / "data_batch_1", str(row), containers=containers)
        assert caught.value.code == "too_slow" and "2 s" in caught.value.detail
    assert (shown(read(good, "1", containers=containers)) == 7).all()
    assert time.monotonic() - begun < 30, "fifty times two seconds would be more"


# ---- volumes

VOLUMES = {
    "header of 10^20": (mha(HeaderSize="99999999999999999999"), "truncated"),
    "header of 2^63": (mha(HeaderSize=str(1 << 63)), "truncated"),
    "header of 2^63, packed": (mha(HeaderSize=str(1 << 63), CompressedData="True"), "truncated"),
    "header longer than the file": (mha(HeaderSize="5000"), "truncated"),
    "sizes of 2^63": (mha(DimSize=f"{1 << 63} {1 << 63} {1 << 63}"), "corrupt"),
    "size of 4000 digits": (mha(DimSize=f"{'9' * 4000} {'9' * 4000} 1"), "corrupt"),
    "size of 5000 digits": (mha(DimSize=f"{'9' * 5000} 4 5"), "corrupt"),
    "no size": (mha(DimSize=""), "undecodable"),
    "sizes of nothing": (mha(DimSize="0 4 5"), "corrupt"),
    "minus sizes": (mha(DimSize="-3 -4 5"), "corrupt"),
    "no type": (mha(ElementType="MET_" + "\x1b[31m" * 50), "undecodable"),
    "sizes twice": (mha(DimSize="9 9 9\nDimSize = 3 4 5"), None),
    "packed into nothing": (mha(b"", CompressedData="True"), "truncated"),
    "packs better than it may": (
        mha(zlib.compress(bytes(10)), CompressedData="True", DimSize="2000000000 2000000000 5"), "too_large",
    ),
    "channels of 10^30": (mha(ElementNumberOfChannels="1" + "0" * 30), "undecodable"),
    "no name": (mha(**{"": ""}), None),
}  # fmt: skip


@pytest.mark.parametrize("name", VOLUMES)
def test_volumes(name: str, tmp_path: Path) -> None:
    data, expected = VOLUMES[name]
    (tmp_path / "v.mha").write_bytes(data)
    if expected is None:
        assert shown(read(tmp_path / "v.mha", "slice/0.5")).shape == (4, 3)
    else:
        assert code(tmp_path / "v.mha", "slice/0.5") == expected


# ---- arrays


def headed(text: bytes, data: bytes = bytes(16)) -> bytes:
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text + data


def test_arrays(tmp_path: Path) -> None:
    good = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1, 4, 4), }"
    hostile = {
        "brackets": headed(b"(" * 9000),
        "lists": headed(b"[" * 80 + b"]" * 80),
        "minuses": headed(b"-" * 9000 + b"1"),
        "digits": headed(good.replace(b"(1,", b"(" + b"9" * 9000 + b",")),
        "large": headed(good.replace(b"(1,", b"(" + b"9" * 4000 + b",")),
        "minus": headed(good.replace(b"(1, 4", b"(-1, -4")),
        "true": headed(good.replace(b"(1,", b"(2.0,")),
        "objects": headed(good.replace(b"|u1", b"|O")),
        "fields": headed(good.replace(b"'|u1'", b"[('a', '|u1'), ('b', '<f8')]")),
        "columns": headed(good.replace(b"False", b"True")),
        "void": headed(good.replace(b"|u1", b"|V9999999")),
        "nulls": headed(b"\0" * 500),
        "text": headed(good.replace(b"|u1", b"\\u202e" * 400)),
        "version": b"\x93NUMPY\x09\0" + bytes(100),
        "empty": b"",
        "header of 4 GB": b"\x93NUMPY\2\0" + b"\xff\xff\xff\xff" + bytes(100),
        "good": headed(good),
    }
    path = zipped(tmp_path / "a.npz", {f"{name}.npy": data for name, data in hostile.items()})
    for name in hostile:
        if name != "good":
            assert code(path, f"{name}/0") in ("corrupt", "undecodable", "truncated"), name
    assert shown(read(path, "good/0")).shape == (4, 4), "one bad array costs its own rows"


@pytest.mark.parametrize("name", ["a.npz", "a.zip"])
def test_zips(name: str, tmp_path: Path) -> None:
    member, path = ("x/0" if name == "a.npz" else "x.npy"), tmp_path / name
    for packing in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        zipped(path, {"x.npy": npy((1, 4, 4), bytes(16))}, packing)
        whole = path.read_bytes()
        central, end = whole.index(b"PK\1\2"), whole.index(b"PK\5\6")
        assert read(path, member)
        for at, form, values in (
            (central + 16, "<I", (0,)),  # checksum
            (central + 20, "<I", (0, 2**31, 2**32 - 1)),  # packed size; the last promises a zip64 size
            (central + 24, "<I", (0, 7, 2**31, 2**32 - 1)),  # size
            (central + 42, "<I", (7, 2**31, 2**32 - 2)),  # offset
            (central + 28, "<H", (65535,)),  # length of the name
            (central + 30, "<H", (65535,)),
            (end + 10, "<H", (0, 65535)),
            (end + 12, "<I", (0, 2**31, 2**32 - 1)),  # size of the directory
            (end + 16, "<I", (2**31, 2**32 - 1)),  # where it is
        ):
            for value in values:
                data = bytearray(whole)
                struct.pack_into(form, data, at, value)
                path.write_bytes(data)
                try:
                    read(path, member)
                except MemberError as error:
                    assert error.code in ("corrupt", "truncated", "too_large", "missing", "undecodable")


@pytest.mark.parametrize(
    ("size", "offset"), [(1 << 63, 0), ((1 << 64) - 1, 0), (16, 1 << 63), (16, (1 << 64) - 1)]
)
@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip64(packing: int, size: int, offset: int, tmp_path: Path) -> None:
    """A zip64 field of 2^63 and more, in an archive that is otherwise right."""
    name, data = b"x", bytes(16)
    local = (
        struct.pack("<4s5HIIIHH", b"PK\3\4", 45, 0, packing, 0, 0, zlib.crc32(data), 16, 16, 1, 0)
        + name
        + data
    )
    extra = struct.pack("<HHQQQ", 1, 24, size, size, offset)
    central = struct.pack(
        "<4s6HIIIHHHHHII", b"PK\1\2", 45, 45, 0, packing, 0, 0, zlib.crc32(data), *[0xFFFFFFFF] * 2, 1,
        len(extra), 0, 0, 0, 0, 0xFFFFFFFF,
    ) + name + extra  # fmt: skip
    end = struct.pack("<4s4HIIH", b"PK\5\6", 0, 0, 1, 1, len(central), len(local), 0)
    (tmp_path / "a.zip").write_bytes(local + central + end)
    assert code(tmp_path / "a.zip", "x", 1 << 64) in ("truncated", "corrupt", "too_large")


def test_zip_of_equal_and_overlapping_entries(tmp_path: Path) -> None:
    with pytest.warns(UserWarning), zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x", b"first")
        archive.writestr("x", b"second")
    assert read(tmp_path / "a.zip", "x") == b"second"
    # Both entries of the directory at one place.
    data = bytearray((tmp_path / "a.zip").read_bytes())
    at = data.rindex(b"PK\1\2")
    struct.pack_into("<I", data, at + 42, 0)
    (tmp_path / "a.zip").write_bytes(data)
    assert code(tmp_path / "a.zip", "x") == "corrupt"


# ---- TAR archives


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytearray:
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    field = b"%011o\0" % size if 0 <= size < 8**11 else _base_256(size)
    block[124:136] = field
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return block


def _base_256(size: int) -> bytes:
    return (b"\xff" if size < 0 else b"\x80") + (size % (1 << 88)).to_bytes(11, "big")


def pax(records: bytes) -> bytes:
    return bytes(header("p", len(records), tarfile.XHDTYPE)) + records + bytes(-len(records) % 512)


GOOD = bytes(header("good", 4)) + b"good" + bytes(508)
END = bytes(1024)
TARS: dict[str, bytes] = {
    "size of 2^63": GOOD + header("x", 1 << 63),
    "size of 2^80": GOOD + header("x", 1 << 80),
    "minus size": GOOD + header("x", -512) + END,
    "minus size that leads back": GOOD + header("x", -2048) + END,
    "pax of 2^62": GOOD + header("p", 1 << 62, tarfile.XHDTYPE),
    "pax of minus 2^62": GOOD + header("p", -(1 << 62), tarfile.XHDTYPE),
    "long name of 2^62": GOOD + header("l", 1 << 62, tarfile.GNUTYPE_LONGNAME),
    "pax that states a size of 2^63": GOOD + pax(b"28 size=9223372036854775808\n") + header("x", 4) + END,
    "pax that states a minus size": GOOD + pax(b"13 size=-1024\n") + header("x", 4) + END,
    "pax that states no number": GOOD + pax(b"14 size=number\n") + header("x", 4) + END,
    "pax record of no length": GOOD + pax(b"0 x=1\n" * 50) + header("x", 4) + END,
    "pax record of 10^20": GOOD + pax(b"99999999999999999999 x=1\n") + header("x", 4) + END,
    "pax without end": GOOD + pax(b"7 x=1\n") * 3,
    "sparse": GOOD + header("x", 4, tarfile.GNUTYPE_SPARSE) + bytes(512) + END,
    "sparse 1.0": GOOD + pax(b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n") + header("x", 512)
    + b"99999999999\n" * 40 + bytes(32) + END,
    "links": GOOD + header("x", 0, tarfile.SYMTYPE) + header("y", 0, tarfile.LNKTYPE)
    + header("z", 0, tarfile.CHRTYPE) + header("f", 0, tarfile.FIFOTYPE) + END,
    "volumes": GOOD + header("x", 1 << 40, b"M") + header("y", 1 << 40, b"V"),
}  # fmt: skip


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("name", TARS)
def test_tars(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(TARS[name])
    containers, bad = Containers(), ("corrupt", "truncated", "too_slow", "too_much_memory")
    try:
        assert read(tmp_path / "a.tar", "good", containers=containers) == b"good"
    except MemberError as error:
        assert error.code in bad
    with suppress(MemberError):
        assert read(tmp_path / "a.tar", "x", containers=containers) == b""


# ---- what a budget is for


@pytest.mark.parametrize("name", ["a.npz", "v.mha"])
def test_rows_within_their_limit_have_memory_enough(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is granted grows with the picture: 72 MB are read, copied and encoded beyond a small allowance."""
    monkeypatch.setattr("stores.members.pool._BYTES", 3 << 27)
    side = 6_000
    if name == "a.npz":
        np.savez_compressed(tmp_path / name, x=np.zeros((1, side, side), np.uint16))
        found = read(tmp_path / name, "x/0", 1 << 30)
    else:
        (tmp_path / name).write_bytes(
            mha(zlib.compress(bytes(2 * side * side), 1), DimSize=f"{side} {side} 1", ElementType="MET_SHORT",
                CompressedData="True")
        )  # fmt: skip
        found = read(tmp_path / name, "slice/0", 1 << 30)
    assert len(found) > 2 * side * side


def test_memory_of_a_child_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An array that unpacks to 128 MiB, in a child that is granted little more than its libraries take."""
    monkeypatch.setattr("stores.members.pool._BYTES", 1 << 28)
    labels = npy((1 << 27,), bytes(1 << 27), "|u1")
    path = zipped(tmp_path / "a.npz", {"x.npy": labels})
    file = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(MemberError) as caught:
            members.numbers(file, "x", 1 << 30)
        assert caught.value.code == "too_much_memory"
        with pytest.raises(MemberError) as caught:
            members.numbers(file, "x", 1 << 20)
        assert caught.value.code == "too_large"
    finally:
        os.close(file)


def test_a_child_that_is_killed_from_outside_marks_no_row(tmp_path: Path) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(PICKLES["tuple as key"])
    own = Readers()
    file = os.open(path, os.O_RDONLY)
    stop = threading.Event()

    def kill() -> None:
        while not stop.wait(0.05):
            child = own._seats[0].child
            if child is not None:
                child.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with pytest.raises(MachineFault, match="SIGKILL"):
            own.ask(file, "index", kind="batch")
    finally:
        stop.set()
        killer.join()
        os.close(file)


def test_abandoning_ends_what_is_read_at_once(tmp_path: Path) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(PICKLES["tuple as key"])
    own, file = Readers(), os.open(path, os.O_RDONLY)
    threading.Timer(1, own.abandon).start()
    begun = time.monotonic()
    try:
        with pytest.raises(MachineFault, match="interrupted"):
            own.ask(file, "index", kind="batch")
        assert time.monotonic() - begun < 30, "what is read by 2,000 rows would take hours"
        with pytest.raises(MachineFault, match="interrupted"):
            own.ask(file, "index", kind="batch")
    finally:
        os.close(file)


INTERRUPTED = """
import sys
from stores.manifest.manifest import Manifest
from stores.manifest.check import check
manifest = Manifest.from_columns({"uri": [f"data_batch_1!/{i}" for i in range(2000)]}, sys.argv[1])
print("begun", flush=True)
check(manifest, content=True)
"""


def test_ctrl_c_ends_a_check_at_once(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(PICKLES["tuple as key"])
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    assert process.stdout.readline() == b"begun\n"
    time.sleep(1.5)
    process.send_signal(signal.SIGINT)
    begun = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - begun < 30, "what is read by 2,000 rows would take hours"
    assert process.returncode in (1, 130, -signal.SIGINT) and b"KeyboardInterrupt" in errors


@pytest.mark.usefixtures("short")
def test_check_names_hostile_containers_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(PICKLES["tuple as key"])
    (tmp_path / "v.mha").write_bytes(VOLUMES["header of 10^20"][0])
    zipped(tmp_path / "a.zip", {"0.png": png(PICTURE), "1.png": png(PICTURE)})
    uris = ["data_batch_1!/0", "data_batch_1!/1", "v.mha!/slice/0", "a.zip!/0.png", "a.zip!/1.png"]
    found = {p.code: p for p in check(Manifest.from_columns({"uri": uris}, tmp_path), content=True).problems}
    assert found["archive"].count == 3
    assert found["duplicate_content"].examples == ("a.zip!/0.png = a.zip!/1.png",)


def test_a_pipe_is_no_container(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(MemberError):
        members.names(tmp_path / "a.tar")


def test_plain_members_are_read_in_this_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The members of TAR archives, and those stored in ZIP archives: once indexed, no child is asked."""
    asked: list[str] = []
    real: Callable[..., object] = readers.ask

    def ask(file: int, do: str, *rest: object, **more: object) -> object:
        asked.append(do)
        return real(file, do, *rest, **more)

    monkeypatch.setattr(readers, "ask", ask)
    containers = Containers()
    files = {"a": b"one", "b": b"two", "c": io.BytesIO(bytes(70_000)).getvalue()}
    tarred(tmp_path / "a.tar", files)
    zipped(tmp_path / "a.zip", files, zipfile.ZIP_STORED)
    for name, data in files.items():
        assert read(tmp_path / "a.tar", name, containers=containers) == data
        assert read(tmp_path / "a.zip", name, containers=containers) == data
    assert asked == ["index", "index"]
