"""Images inside other files: right bytes from each kind, the right reason from hostile ones, no code run."""

import hashlib
import io
import os
import pickle
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stores import members
from stores.manifest.check import check
from stores.manifest.manifest import Manifest
from stores.members import Containers, MemberError
from stores.members.encode import png, tiff
from stores.members.parts import Packed

RNG = np.random.default_rng(3)
PICTURE = RNG.integers(0, 256, (20, 31, 3), np.uint8)


def read(path: Path, member: str, max_bytes: int = 1 << 24, containers: Containers | None = None) -> bytes:
    file = os.open(path, os.O_RDONLY)
    try:
        return (containers or Containers()).of(file, str(path)).read(file, member, max_bytes)
    finally:
        os.close(file)


def code(path: Path, member: str, max_bytes: int = 1 << 24) -> str:
    with pytest.raises(MemberError) as caught:
        read(path, member, max_bytes)
    assert caught.value.detail.isprintable() and str(path) not in caught.value.detail
    return caught.value.code


def shown(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return np.asarray(image)


# ---- names


@pytest.mark.parametrize(
    ("uri", "file", "member"),
    [
        ("a/b.png", "a/b.png", ""),
        ("a.zip!/b/c.png", "a.zip", "b/c.png"),
        ("x/A.ZIP!/c.png", "x/A.ZIP", "c.png"),
        ("a.tar!/b.zip!/c.png", "a.tar", "b.zip!/c.png"),
        ("wow!/c.png", "wow!/c.png", ""),
        ("wow!/a.tar!/c.png", "wow!/a.tar", "c.png"),
        ("cifar-10-batches-py/data_batch_3!/9", "cifar-10-batches-py/data_batch_3", "9"),
        ("test_batch!/9", "test_batch", "9"),
        ("my_test_batch!/9", "my_test_batch!/9", ""),
        ("a.zip!/", "a.zip!/", ""),
        ("a.npz!/train_images/0", "a.npz", "train_images/0"),
        ("data/mha/12.mha!/slice/0.5", "data/mha/12.mha", "slice/0.5"),
    ],
)
def test_splitting(uri: str, file: str, member: str) -> None:
    assert members.split(uri) == (file, member)


# ---- archives


def zipped(path: Path, files: dict[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, files: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


FILES = {"a/b.png": png(PICTURE), "Röntgen 肺.bin": bytes(100_000), "n" * 200 + ".bin": b"long", "empty": b""}


@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip(packing: int, tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", FILES, packing)
    assert {name: read(path, name) for name in FILES} == FILES
    assert members.names(path) == list(FILES)
    assert code(path, "a/c.png") == "missing"
    # Something before it, as in self-extracting archives.
    path.write_bytes(b"#!/bin/sh\n" * 9 + path.read_bytes())
    assert read(path, "a/b.png") == FILES["a/b.png"]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar(form: int, tmp_path: Path) -> None:
    files = {k: v for k, v in FILES.items() if form != tarfile.USTAR_FORMAT or len(k) < 100}
    path = tarred(tmp_path / "a.tar", {"./" + name: data for name, data in files.items()}, form)
    assert {name: read(path, name) for name in files} == files
    assert members.names(path) == list(files)
    assert code(path, "a") == "missing"


def test_links_and_folders_are_no_members(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, kind, to in (
            ("l", tarfile.SYMTYPE, "/etc/passwd"),
            ("h", tarfile.LNKTYPE, "l"),
            ("d", tarfile.DIRTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, to
            archive.addfile(info)
    assert members.names(tmp_path / "a.tar") == []
    zipped(tmp_path / "a.zip", {"d/": b"", "f": b"1"})
    assert members.names(tmp_path / "a.zip") == ["f"]


def test_limit_is_on_what_it_unpacks_to(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", {"bomb": bytes(10_000_000)})
    assert path.stat().st_size < 20_000
    assert code(path, "bomb", 9_999_999) == "too_large"
    assert len(read(path, "bomb", 10_000_000)) == 10_000_000
    assert code(tarred(tmp_path / "a.tar", {"x": bytes(11)}), "x", 10) == "too_large"


def patched(path: Path, old: bytes, new: bytes) -> Path:
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new))
    return path


def test_zip_that_lies_about_its_size(tmp_path: Path) -> None:
    """100 bytes promised, 10 MB packed: never unpacked past the promise."""
    path = zipped(tmp_path / "a.zip", {"bomb": bytes(10_000_000)})
    patched(path, struct.pack("<I", 10_000_000), struct.pack("<I", 100))
    assert code(path, "bomb", 1000) == "too_large" or code(path, "bomb") == "corrupt"
    assert code(path, "bomb", 20_000) == "corrupt"


def test_damaged_archives(tmp_path: Path) -> None:
    files = {"a": RNG.bytes(5000), "b": RNG.bytes(5000)}
    stored = zipped(tmp_path / "a.zip", files, zipfile.ZIP_STORED)
    flipped = bytearray(stored.read_bytes())
    flipped[flipped.index(files["a"]) + 9] ^= 1
    (tmp_path / "flip.zip").write_bytes(flipped)
    assert code(tmp_path / "flip.zip", "a") == "corrupt"
    assert read(tmp_path / "flip.zip", "b") == files["b"]
    (tmp_path / "half.zip").write_bytes(stored.read_bytes()[:5000])
    assert code(tmp_path / "half.zip", "a") == "corrupt"
    tar = tarred(tmp_path / "a.tar", files)
    (tmp_path / "half.tar").write_bytes(tar.read_bytes()[: tar.read_bytes().index(files["b"]) + 100])
    assert read(tmp_path / "half.tar", "a") == files["a"]
    assert code(tmp_path / "half.tar", "b") == "truncated"
    for name in ("x.zip", "x.tar", "x.npz", "x.mha", "data_batch_1"):
        for data in (b"", b"hello", RNG.bytes(3000)):
            (tmp_path / name).write_bytes(data)
            assert code(tmp_path / name, "slice/0") in ("corrupt", "missing")
    (tmp_path / "gz.tar").write_bytes(zlib.compress(tar.read_bytes(), wbits=31))
    assert code(tmp_path / "gz.tar", "a") == "corrupt"


def test_zip_of_other_packings_and_encrypted(tmp_path: Path) -> None:
    assert code(zipped(tmp_path / "a.zip", {"a": b"x" * 99}, zipfile.ZIP_BZIP2), "a") == "undecodable"
    path = zipped(tmp_path / "b.zip", {"a": b"x" * 99})
    data = bytearray(path.read_bytes())
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    assert code(path, "a") == "undecodable"


# ---- random access to packed data


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_packed_is_the_unpacked(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    size = data.draw(st.integers(1, 3000))
    whole = data.draw(st.sampled_from([bytes(size), RNG.bytes(size), (b"abc" * size)[:size]]))
    bits = data.draw(st.sampled_from([15, -15]))
    packer = zlib.compressobj(wbits=bits)
    stream = packer.compress(whole) + packer.flush()
    path = tmp_path_factory.mktemp("p") / "f"
    path.write_bytes(b"before" + stream + b"after")
    packed = Packed(6, len(stream), size, bits=bits, kept=2)
    packed.BLOCK = data.draw(st.sampled_from([1, 7, 512, 5000]))  # type: ignore[misc]
    with path.open("rb") as file:
        for _ in range(5):
            start = data.draw(st.integers(0, size - 1))
            length = data.draw(st.integers(0, size - start))
            assert packed.read(file.fileno(), start, length) == whole[start : start + length]
        with pytest.raises(MemberError):
            packed.read(file.fileno(), size - 1, 2)


# ---- arrays


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_rows(save: Callable[..., None], tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "train_images": RNG.integers(0, 256, (7, 28, 27), np.uint8),
        "rgb": RNG.integers(0, 256, (300, 12, 13, 3), np.uint8),
        "one": RNG.integers(0, 256, (3, 5, 6, 1), np.uint8),
        "deep": RNG.integers(0, 65536, (3, 9, 8), np.uint16),
        "big": RNG.integers(0, 65536, (3, 9, 8)).astype(">u2"),
    }
    save(tmp_path / "a.npz", **arrays, labels=np.zeros((7, 1), np.uint8))
    containers = Containers()
    for name, array in arrays.items():
        for row in (len(array) - 1, 0, len(array) // 2):
            pixels = shown(read(tmp_path / "a.npz", f"{name}/{row}", containers=containers))
            np.testing.assert_array_equal(pixels, array[row].squeeze(-1) if name == "one" else array[row])
        assert code(tmp_path / "a.npz", f"{name}/{len(array)}") == "missing"
    for member in ("train_images", "train_images/-1", "train_images/1/2", "nope/0", "train_images/٣"):
        assert code(tmp_path / "a.npz", member) == "missing"
    assert code(tmp_path / "a.npz", "labels/0") == "undecodable"
    assert code(tmp_path / "a.npz", "rgb/0", 467) == "too_large"


class Ran(BaseException):
    """Code from a file was run. No `except Exception` hides it."""


def explode(*_: object) -> None:
    raise Ran


class Bomb:
    def __reduce__(self) -> tuple[Callable[..., None], tuple[()]]:
        return explode, ()


def test_npz_runs_nothing(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.array([Bomb()], object), y=RNG.integers(0, 9, (2, 3, 4)))
    assert code(tmp_path / "a.npz", "x/0") == "undecodable"
    assert code(tmp_path / "a.npz", "y/0") == "undecodable"


def npy(shape: tuple[int, ...], data: bytes, dtype: str = "|u1") -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": dtype, "fortran_order": False, "shape": shape})
    return out.getvalue() + data


def test_npz_that_lies(tmp_path: Path) -> None:
    path = zipped(
        tmp_path / "a.npz",
        {
            "short.npy": npy((10**9, 28, 28), bytes(784)),
            "huge.npy": npy((1, 65535, 65535), bytes(100)),
            "minus.npy": npy((-3, 28, 28), bytes(784)),
            "text.npy": b"\x93NUMPY\1\0" + struct.pack("<H", 8) + b"__import",
            "fine.npy": npy((1, 4, 4), bytes(16)),
        },
    )
    for name in ("short", "huge", "minus", "text"):
        assert code(path, f"{name}/0") == "corrupt"
    assert shown(read(path, "fine/0")).shape == (4, 4)


# ---- CIFAR-10


BATCH = {
    b"data": RNG.integers(0, 256, (12, 3072), np.uint8),
    b"labels": [i % 10 for i in range(12)],
    b"filenames": [b"boat_%d.png" % i for i in range(12)],
}


def python_2_batch() -> bytes:
    """As the published files are: protocol 2, text as bytes, opcode by opcode."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def array(values: np.ndarray) -> bytes:
        shape = b"".join(b"M" + struct.pack("<H", size) for size in values.shape)
        dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\0K\1\x87R(K\3" + text(b"|") + b"NNNJ" + b"\xff" * 4
        return (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85" + text(b"b") + b"\x87R(K\1"
            + shape + b"\x86" + dtype + b"J" + b"\xff" * 4 + b"K\0tb\x89T" + struct.pack("<i", values.size)
            + values.tobytes() + b"tb"
        )  # fmt: skip

    labels = b"](" + b"".join(b"K" + bytes([label]) for label in BATCH[b"labels"]) + b"e"
    names = b"](" + b"".join(text(name) for name in BATCH[b"filenames"]) + b"e"
    return (
        b"\x80\2}(" + text(b"data") + array(BATCH[b"data"]) + text(b"labels") + labels + text(b"filenames")
        + names + b"u."
    )  # fmt: skip


@pytest.mark.parametrize("protocol", ["Python 2", 2, 3, 4])
def test_cifar(protocol: int | str, tmp_path: Path) -> None:
    made = python_2_batch() if protocol == "Python 2" else pickle.dumps(BATCH, protocol=protocol)  # type: ignore[arg-type]
    (tmp_path / "data_batch_1").write_bytes(made)
    if protocol == "Python 2":  # it is what it should be
        assert (pickle.loads(made, encoding="bytes")[b"data"] == BATCH[b"data"]).all()
    for row in (0, 11):
        expected = BATCH[b"data"][row].reshape(3, 32, 32).transpose(1, 2, 0)
        np.testing.assert_array_equal(shown(read(tmp_path / "data_batch_1", str(row))), expected)
    for member in ("12", "-1", "", "1e0", "٣"):
        assert code(tmp_path / "data_batch_1", member) == "missing"


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(BATCH | {b"x": Bomb()}),
        pickle.dumps({b"data": Bomb()}),
        b"cos\nsystem\n(S'false'\ntR.",
        b"cbuiltins\nexec\n(S'raise SystemExit'\ntR.",
        b"\x80\4\x8c\x08builtins\x94\x8c\x04eval\x94\x93.",
        b"cnumpy\nndarray\n(J\xff\xff\xff\x7ftR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"\x80\2J\0\0\0\x7fr\xff\xff\xff\x7f.",
        pickle.dumps({b"data": np.zeros((3, 3072)), b"labels": [1, 2, 3]}, protocol=2),
        pickle.dumps({b"data": np.array([Bomb()], object), b"labels": [1]}, protocol=2),
        pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, protocol=2),
        pickle.dumps([1, 2]),
        pickle.dumps(BATCH, protocol=2)[:-900],
    ],
)
def test_cifar_runs_nothing(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "test_batch").write_bytes(data)
    assert code(tmp_path / "test_batch", "0") in ("corrupt", "undecodable")


# ---- volumes


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [np.int16, np.uint8, np.uint16, np.float32, np.int32, np.int8])
def test_volume_slices_are_those_of_simpleitk(packed: bool, kind: type, tmp_path: Path) -> None:
    sitk = pytest.importorskip("SimpleITK")
    values = RNG.integers(0, 100, (41, 30, 21)).astype(kind) - kind(50 * (kind not in (np.uint8, np.uint16)))
    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "v.mha"), packed)
    truth = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "v.mha")))
    for member, index in (("slice/0.5", 20), ("slice/0", 0), ("slice/40", 40), ("slice/0.99", 40)):
        found = shown(read(tmp_path / "v.mha", member))
        found = found.view(np.int16) if found.dtype == np.uint16 and kind in (np.int8, np.int16) else found
        np.testing.assert_array_equal(found, truth[index])
    for member in ("slice/41", "slice/1.0", "slice", "slice/-1", "slice/0.5/1", "0.5"):
        assert code(tmp_path / "v.mha", member) == "missing"


def mha(data: bytes = bytes(60), **changed: str) -> bytes:
    fields = {
        "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "CompressedData": "False",
        "DimSize": "3 4 5", "ElementType": "MET_UCHAR", "ElementDataFile": "LOCAL",
    }  # fmt: skip
    fields |= changed
    last = {"ElementDataFile": fields.pop("ElementDataFile")}
    return "".join(f"{k} = {v}\n" for k, v in (fields | last).items()).encode() + data


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (mha(bytes(20)), "truncated"),
        (mha(ElementDataFile="../../etc/passwd"), "undecodable"),
        (mha(ElementDataFile="LIST"), "undecodable"),
        (mha(DimSize="65535 65535 65535"), "too_large"),
        (mha(DimSize="3 4"), "undecodable"),
        (mha(DimSize="3 4 -5"), "corrupt"),
        (mha(DimSize="3 four 5"), "corrupt"),
        (mha(ElementType="MET_OTHER"), "undecodable"),
        (mha(ElementNumberOfChannels="3"), "undecodable"),
        (mha(HeaderSize="x"), "corrupt"),
        (mha(b"not zlib" * 9, CompressedData="True"), "corrupt"),
        (mha(zlib.compress(bytes(20)), CompressedData="True"), "truncated"),
        (b"ObjectType = Image\n" * 9000, "corrupt"),
    ],
)
def test_hostile_volumes(data: bytes, expected: str, tmp_path: Path) -> None:
    (tmp_path / "v.mha").write_bytes(data)
    assert code(tmp_path / "v.mha", "slice/0.5") == expected


def test_packed_volume_is_unpacked_no_further_than_needed(tmp_path: Path) -> None:
    (tmp_path / "v.mha").write_bytes(
        mha(zlib.compress(bytes(60))[:-6] + b"damage", CompressedData="True", DimSize="3 4 2")
    )
    assert shown(read(tmp_path / "v.mha", "slice/0")).shape == (4, 3)


# ---- what comes out


@pytest.mark.parametrize("shape", [(1, 1), (5, 3), (40, 3000)])
@pytest.mark.parametrize("kind", ["i2", "i4", "f4", "u2"])
def test_tiff_is_read_back_by_pillow(kind: str, shape: tuple[int, ...]) -> None:
    values = RNG.integers(0, 30_000, shape).astype(kind)
    np.testing.assert_array_equal(shown(tiff(values)), values)


# ---- the index


def test_index_follows_the_file(tmp_path: Path) -> None:
    containers, path = Containers(), tmp_path / "a.zip"
    zipped(path, {"a": b"one"})
    assert read(path, "a", containers=containers) == b"one"
    path.unlink()
    zipped(path, {"b": b"second"})
    assert read(path, "b", containers=containers) == b"second"


def test_index_is_made_once_and_few_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = members.index
    monkeypatch.setattr(members, "index", lambda *asked: opened.append("zip") or real(*asked))  # type: ignore[func-returns-value]
    containers = Containers(kept=2)
    paths = [zipped(tmp_path / f"{i}.zip", {"a": b"%d" % i}) for i in range(3)]
    threads = [
        threading.Thread(target=read, args=(paths[0], "a"), kwargs={"containers": containers})
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 1
    for path in (*paths, paths[2], paths[1]):
        read(path, "a", containers=containers)
    assert len(opened) == 3
    read(paths[0], "a", containers=containers)
    assert len(opened) == 4
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0  # noqa: PTH208
    for _ in range(50):
        read(paths[0], "a", containers=containers)
    assert not before or len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208


def test_containers_travel_to_other_processes() -> None:
    assert isinstance(pickle.loads(pickle.dumps(Containers())), Containers)


# ---- manifest check


def test_check_looks_into_containers(tmp_path: Path) -> None:
    picture, other = png(PICTURE), png(PICTURE[::-1])
    zipped(tmp_path / "a.zip", {"0.png": picture, "1.png": picture, "2.png": other, "empty.png": b""})
    (tmp_path / "bad.zip").write_bytes(b"nothing")
    (tmp_path / "3.png").write_bytes(picture)
    (tmp_path / "out.zip").symlink_to("/etc/passwd")
    uris = ["a.zip!/0.png", "a.zip!/1.png", "a.zip!/2.png", "3.png"]
    digests = [hashlib.sha256(picture).hexdigest(), "", "0" * 64, ""]
    good = check(Manifest.from_columns({"uri": uris, "sha256": digests}, tmp_path), content=True)
    found = {problem.code: problem for problem in good.problems}
    assert found["duplicate_content"].examples == ("a.zip!/0.png = a.zip!/1.png = 3.png",)
    assert found["digest"].examples == ("a.zip!/2.png",)
    assert not {"missing", "archive", "empty"} & set(found)
    worse = ["a.zip!/9.png", "bad.zip!/0.png", "none.zip!/0.png", "a.zip!/empty.png", "out.zip!/0.png"]
    found = {p.code: p for p in check(Manifest.from_columns({"uri": worse}, tmp_path)).problems}
    assert found["missing"].examples == ("a.zip!/9.png", "none.zip!/0.png")
    assert found["archive"].examples == ("bad.zip!/0.png",)
    assert found["empty"].examples == ("a.zip!/empty.png",)
    assert found["outside_root"].examples == ("out.zip!/0.png",)
