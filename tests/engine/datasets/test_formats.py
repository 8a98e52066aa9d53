"""Adapters of other layouts, from trees that the tests build in them: rows, labels, splits, and refusals."""

import hashlib
import io
import json
import pickle
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine import datasets
from engine.errors import EmbankError, PathRefused, Refused
from stores.manifest.check import check
from stores.manifest.manifest import Manifest
from tests.command import embank
from tests.corpus.images import dicom, half, png, scene, written

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(11)
WINDOW = {"depth": "window", "window": [-1000, 250], "size": 32, "crop": 32}


def pictures(count: int, *shape: int) -> np.ndarray:
    return RNG.integers(0, 256, (count, *shape), np.uint8)


def embedded(
    name: str, root: Path, tmp_path: Path, *options: str, recipe: dict[str, Any] | None = None
) -> dict[str, Any]:
    """What `manifest build`, then `embed` with random weights, print."""
    (tmp_path / "recipe.json").write_text(json.dumps(recipe or {"size": 32, "crop": 32}))
    manifest, bank = tmp_path / "m.parquet", tmp_path / "bank"
    words = [word for option in options for word in ("-O", option)]
    built = embank("manifest", "build", name, root, "-o", manifest, *words, "--json")
    assert built.code == 0, built.err
    ran = embank(
        "embed", manifest, "--model", "random/squeezenet1_1", "--bank", bank,
        "--recipe", tmp_path / "recipe.json", "--device", "cpu", "--threads", 1, "--max-failed", 1, "--json",
    )  # fmt: skip
    assert ran.code == 0, ran.err
    return ran.json if isinstance(ran.json, dict) else ran.json[0]


# ---- STOIC


@pytest.fixture(scope="module")
def stoic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sitk = pytest.importorskip("SimpleITK")
    root = tmp_path_factory.mktemp("stoic")
    (root / "metadata").mkdir()
    (root / "data" / "mha").mkdir(parents=True)
    lines = ["PatientID,probCOVID,probSevere"]
    for i in range(10):
        volume = RNG.integers(-1500, 1500, (7 + i, 40, 40)).astype(np.int16)
        sitk.WriteImage(sitk.GetImageFromArray(volume), str(root / f"data/mha/{100 + i}.mha"), i % 2 == 0)
        lines.append(f"{100 + i},{i % 2},{i % 3 == 0:d}")
    (root / "metadata" / "reference.csv").write_text("\n".join(lines) + "\n")
    return root


def test_stoic(stoic: Path) -> None:
    manifest = datasets.build("stoic", stoic)
    assert manifest.uris[3] == "data/mha/103.mha!/slice/0.5"
    assert manifest.classes == {"negative": 5, "positive": 5}
    assert manifest.column("group") == manifest.image_ids == [str(i) for i in range(100, 110)]
    assert manifest.column("severe")[:4] == ["1", "0", "0", "1"]
    assert not {p.code for p in check(manifest).problems if p.severity == "error"}
    again = datasets.build("stoic", stoic, "as-published")
    order = np.random.RandomState(42).permutation(10)
    assert again.image_ids == [str(100 + i) for i in order]
    assert again.column("split") == ["train"] * 8 + ["test"] * 2
    assert datasets.build("stoic", stoic, options={"slice": "5"}).uris[0] == "data/mha/100.mha!/slice/5"
    for options in ({"slice": "../x"}, {"slice": "1.5"}, {"slice": ""}):
        with pytest.raises(Refused, match="slice"):
            datasets.build("stoic", stoic, options=options)


def test_stoic_pixels_are_the_studys(stoic: Path) -> None:
    """floor(0.5 depth), clipped to [-1000, 250], to 8 bits; by SimpleITK and numpy."""
    import SimpleITK as sitk

    from engine.decode import ImageSource, make_decoder
    from engine.recipes import Recipe

    manifest = datasets.build("stoic", stoic)
    recipe = Recipe(size=40, crop=40, depth="window", window=(-1000, 250))
    for name in ("reference", "turbo"):
        with make_decoder(name, recipe, device="cpu", threads=2, batch_size=10) as decoder:
            (batch,) = decoder.stream(ImageSource(stoic, manifest.uris), [range(10)])
        assert not batch.failures
        for row in range(10):
            volume = sitk.GetArrayFromImage(sitk.ReadImage(str(stoic / f"data/mha/{100 + row}.mha")))
            middle = volume[int(np.floor(0.5 * len(volume)))].astype(np.float64)
            expected = np.rint((middle.clip(-1000, 250) + 1000) * 255 / 1250)
            np.testing.assert_array_equal(batch.pixels[row].numpy(), np.repeat(expected[:, :, None], 3, 2))


def test_stoic_embeds_under_its_window_alone(stoic: Path, tmp_path: Path) -> None:
    assert embedded("stoic", stoic, tmp_path, recipe=WINDOW)["failed"] == 0
    (tmp_path / "other").mkdir()
    found = embedded("stoic", stoic, tmp_path / "other")
    assert (found["ok"], found["failed"]) == (0, 10)


def test_stoic_refuses(stoic: Path, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"reference\.csv"):
        (tmp_path / "data" / "mha").mkdir(parents=True)
        datasets.build("stoic", tmp_path)
    (tmp_path / "reference.csv").write_text("PatientID,probCOVID,probSevere\n1,maybe,0\n")
    with pytest.raises(Refused, match="maybe"):
        datasets.build("stoic", tmp_path)


# ---- CIFAR-10


def cifar(root: Path, images: int = 4) -> dict[str, np.ndarray]:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    made = {}
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        made[name] = pictures(images, 3072)
        batch = {
            "batch_label": name, "data": made[name], "labels": [i % 10 for i in range(images)],
            "filenames": [f"{name}_{i}.png" for i in range(images)],
        }  # fmt: skip
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))
    return made


def test_cifar10_is_what_torchvision_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torchvision.datasets

    cifar(tmp_path)
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    (tmp_path / "cifar-10-batches-py" / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(torchvision.datasets.cifar, "check_integrity", lambda *_: True)
    manifest = datasets.build("cifar10", tmp_path)
    assert Counter(manifest.column("split")) == {"train": 20, "test": 4}
    from engine.decode import ImageSource

    source = ImageSource(tmp_path, manifest.uris)
    rows = {
        split: [i for i, s in enumerate(manifest.column("split")) if s == split]
        for split in ("train", "test")
    }
    for split in rows:
        truth = torchvision.datasets.CIFAR10(tmp_path, train=split == "train")
        assert len(truth) == len(rows[split])
        for row, (image, label) in zip(rows[split], truth, strict=True):
            np.testing.assert_array_equal(
                np.asarray(Image.open(io.BytesIO(source.read(row)))), np.asarray(image)
            )
            assert manifest.column("label")[row] == truth.classes[label]
    assert manifest.column("filename")[5] == "data_batch_2_1.png"


def test_cifar10_embeds(tmp_path: Path) -> None:
    cifar(tmp_path / "root")
    assert embedded("cifar10", tmp_path / "root", tmp_path)["ok"] == 24


def test_cifar10_refuses(tmp_path: Path) -> None:
    cifar(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(Refused, match=r"data_batch_3.*may run code"):
        datasets.build("cifar10", tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(Refused, match="data_batch_3 is missing"):
        datasets.build("cifar10", tmp_path)


# ---- MedMNIST


def medmnist(
    path: Path, shape: tuple[int, ...] = (28, 28), tasks: int = 1, **changed: Any
) -> dict[str, np.ndarray]:
    made: dict[str, Any] = {}
    for split, count in (("train", 7), ("val", 3), ("test", 5)):
        made[f"{split}_images"] = pictures(count, *shape)
        made[f"{split}_labels"] = RNG.integers(0, 2, (count, tasks)).astype(np.uint8)
    path.parent.mkdir(exist_ok=True)
    np.savez_compressed(path, **(made | changed))
    return made


@pytest.mark.parametrize("shape", [(28, 28), (64, 64, 3)])
def test_medmnist(shape: tuple[int, ...], tmp_path: Path) -> None:
    made = medmnist(tmp_path / "root" / "pneumoniamnist.npz", shape)
    manifest = datasets.build("medmnist", tmp_path / "root")
    assert manifest.column("split") == ["train"] * 7 + ["val"] * 3 + ["test"] * 5
    labels = np.concatenate([made[f"{split}_labels"] for split in ("train", "val", "test")])
    assert manifest.column("label") == [str(label) for label in labels[:, 0]]
    assert manifest.uris[9] == "pneumoniamnist.npz!/val_images/2"
    assert any("4,708" in note for note in manifest.notes)
    assert embedded("medmnist", tmp_path / "root", tmp_path)["ok"] == 15


def test_medmnist_of_several_labels(tmp_path: Path) -> None:
    made = medmnist(tmp_path / "chestmnist_64.npz", tasks=14)
    medmnist(tmp_path / "pathmnist.npz")
    with pytest.raises(Refused, match=r"chestmnist_64\.npz, pathmnist\.npz"):
        datasets.build("medmnist", tmp_path)
    manifest = datasets.build("medmnist", tmp_path, options={"file": "chestmnist_64"})
    assert manifest.unlabelled == 15
    assert manifest.column("label_13")[:7] == [str(label) for label in made["train_labels"][:, 13]]


@pytest.mark.parametrize(
    "changed",
    [
        {"train_labels": np.array([[None]] * 7, object)},
        {"train_labels": np.zeros((6, 1), np.uint8)},
        {"train_labels": np.zeros((7, 1))},
        {"test_images": np.zeros((5, 28, 28, 28), np.uint8)},
        {"test_images": np.array([None] * 5, object)},
    ],
)
def test_medmnist_refuses(changed: dict[str, Any], tmp_path: Path) -> None:
    medmnist(tmp_path / "x.npz", **changed)
    with pytest.raises(Refused, match=r"x\.npz"):
        datasets.build("medmnist", tmp_path)


# ---- WebDataset


def shard(path: Path, files: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_webdataset(tmp_path: Path) -> None:
    root, images = tmp_path / "root", [written(picture) for picture in pictures(4, 40, 40, 3)]
    shard(
        root / "train-000.tar", {"a.0.PNG": images[0], "a.CLS": b"3\n", "b.png": images[1], "b.cls": b"cat"}
    )
    shard(
        root / "sub" / "test_000.tar",
        {
            "./x/c.jpg": images[2], "./x/c.json": json.dumps({"label": 7, "patient": "p1"}).encode(),
            "d.png": images[3], "e.txt": b"no image", ".hidden": b"",
        },
    )  # fmt: skip
    shard(root / "trainer.tar", {"f.png": images[0]})
    manifest = datasets.build("webdataset", root, options={"group": "patient"})
    rows = zip(*(manifest.column(name) for name in ("uri", "label", "split", "group")), strict=True)
    assert sorted(rows) == [
        ("sub/test_000.tar!/d.png", "", "test", ""),
        ("sub/test_000.tar!/x/c.jpg", "7", "test", "p1"),
        ("train-000.tar!/a.0.PNG", "3", "train", ""),
        ("train-000.tar!/b.png", "cat", "train", ""),
        ("trainer.tar!/f.png", "", "", ""),
    ]
    found = embedded("webdataset", root, tmp_path)
    assert (found["ok"], found["failed"]) == (5, 0)


def test_webdataset_refuses(tmp_path: Path) -> None:
    def refused(files: dict[str, bytes], match: str, **options: str) -> None:
        shard(tmp_path / "s.tar", files)
        with pytest.raises(EmbankError, match=match) as caught:
            datasets.build("webdataset", tmp_path, options=options)
        assert caught.value.exit_code == 2

    with pytest.raises(Refused, match="holds no file"):
        datasets.build("webdataset", tmp_path)
    refused({"a.left.png": png(), "a.right.png": png()}, r"left\.png, right\.png")
    refused({"a.png": png(), "a.json": b"[1"}, "no JSON")
    refused({"a.png": png(), "a.json": b"[" * 100_000}, "no JSON")
    refused({"a.png": png(), "a.json": b"[1]"}, "no object")
    refused({"a.png": png(), "a.json": b'{"label": [1]}'}, "is a list")
    refused({"a.png": png(), "a.cls": bytes((1 << 20) + 1)}, "limit")
    refused({"a.txt": b""}, "hold no image")
    refused({"../../evil.png": png()}, "climbs")
    (tmp_path / "s.tar").write_bytes(b"\x1f\x8b packed")
    with pytest.raises(Refused, match="gunzip"):
        datasets.build("webdataset", tmp_path)
    shard(tmp_path / "s.tar", {"a.left.png": png(), "a.right.png": png()})
    manifest = datasets.build("webdataset", tmp_path, options={"image": "left.png"})
    assert manifest.uris == ["s.tar!/a.left.png"]


# ---- folders and archives


def test_imagefolder(tmp_path: Path) -> None:
    root, images = tmp_path / "root", [written(picture) for picture in pictures(6, 40, 40)]
    (root / "Train" / "Cat" / "deep").mkdir(parents=True)
    (root / "Train" / "Cat" / "deep" / "1.png").write_bytes(images[0])
    with zipfile.ZipFile(root / "valid.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("Dog/2.PNG", images[1])
        archive.writestr("valid/Cat/3.png", images[2])
        archive.writestr("__MACOSX/Dog/._2.png", b"")
        archive.writestr("readme.txt", b"")
    shard(root / "all.tar", {"./set/test/Dog/4.png": images[3], "set/test/5.png": images[4]})
    manifest = datasets.build("imagefolder", root)
    rows = zip(*(manifest.column(name) for name in ("uri", "split", "label")), strict=True)
    assert sorted(rows) == [
        ("Train/Cat/deep/1.png", "train", "Cat"),
        ("all.tar!/set/test/5.png", "test", ""),
        ("all.tar!/set/test/Dog/4.png", "test", "Dog"),
        ("valid.zip!/Dog/2.PNG", "val", "Dog"),
        ("valid.zip!/valid/Cat/3.png", "val", "Cat"),
    ]
    assert not {p.code for p in check(manifest, content=True).problems if p.severity == "error"}
    assert embedded("imagefolder", root, tmp_path)["ok"] == 5


@pytest.mark.parametrize(
    "name", ["../../evil.png", "/etc/evil.png", "a/../../evil.png", "a\\..\\evil.png", "a\u202egnp.png"]
)
def test_names_that_leave_the_archive_are_refused(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "train.zip", "w") as archive:
        archive.writestr("Cat/1.png", png())
        archive.writestr(zipfile.ZipInfo(name), png())
    if name.startswith("/"):  # below the archive it is a name like any other, and never a path
        uris = datasets.build("imagefolder", tmp_path).uris
        assert uris == ["train.zip!//etc/evil.png", "train.zip!/Cat/1.png"]
        return
    with pytest.raises(PathRefused):
        datasets.build("imagefolder", tmp_path)


def test_imagefolder_refuses(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="holds no image"):
        datasets.build("imagefolder", tmp_path)
    (tmp_path / "Cat").mkdir()
    (tmp_path / "Cat" / "1.png").write_bytes(png())
    with pytest.raises(Refused, match="no split folder"):
        datasets.build("imagefolder", tmp_path)
    (tmp_path / "train.zip").write_bytes(b"PK\3\4 cut off")
    with pytest.raises(Refused, match=r"train\.zip: not a ZIP archive"):
        datasets.build("imagefolder", tmp_path)


def test_hostile_members_cost_their_rows_only(tmp_path: Path) -> None:
    """Good neighbours in the same archive are bit-identical to files on disk."""
    from engine.decode import ImageSource, Limits, available_decoders, make_decoder
    from engine.recipes import Recipe

    good = [written(picture) for picture in pictures(2, 40, 40, 3)]
    files = {
        "0.png": good[0],
        "bomb.png": bytes(50_000_000),
        "half.png": half(good[0]),
        "empty.png": b"",
        "1.png": good[1],
    }
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    for i, data in enumerate(good):
        (tmp_path / f"{i}.png").write_bytes(data)
    uris = [f"a.zip!/{name}" for name in files] + ["a.zip!/none.png", "0.png", "1.png"]
    digests = [hashlib.sha256(good[0]).hexdigest()] + [""] * 3 + ["0" * 64] + [""] * 3
    for sha256, extra in ((None, {}), (digests, {4: "digest"})):
        source = ImageSource(tmp_path, uris, sha256, limits=Limits(max_bytes=1_000_000))
        for name in ("reference", "turbo", "dali"):
            if available_decoders()[name]:
                continue
            with make_decoder(
                name, Recipe(size=32, crop=32), device="cpu", threads=2, batch_size=8
            ) as decoder:
                (batch,) = decoder.stream(source, [range(8)])
            codes = {slot: failure.code for slot, failure in batch.failures.items()}
            assert codes == {1: "too_large", 2: "truncated", 3: "empty", 5: "missing", **extra}
            assert (batch.pixels[0] == batch.pixels[6]).all()
            assert 4 in extra or (batch.pixels[4] == batch.pixels[7]).all()


# ---- DICOM


def dicom_folder(root: Path) -> Path:
    """Two patients, one file of 8 and one of 12 bits each; damaged and foreign files beside them."""
    (root / "CR").mkdir(parents=True)
    for i, (patient, view) in enumerate([("p1", "PA"), ("p1", "LATERAL"), ("p 2", "AP")]):
        deep = (scene(channels=1).astype(np.uint16) + i) * 15 if i else scene(channels=1)
        data = dicom(
            deep, 12 if i else 8, PatientID=patient, StudyInstanceUID=f"1.2.{i // 2}", ViewPosition=view,
            Modality="CR", WindowCenter=2048, WindowWidth=4096, BodyPartExamined="CHEST",
        )  # fmt: skip
        (root / "CR" / ("1.2.3" if i == 0 else f"{i}.dcm")).write_bytes(data)
    whole = (root / "CR" / "1.dcm").read_bytes()
    (root / "half.dcm").write_bytes(half(whole))
    (root / "naked.dcm").write_bytes(whole[132:])
    (root / "huge.dcm").write_bytes(dicom(np.zeros((8, 16), np.uint8), Rows=65535, Columns=65535))
    (root / "README").write_text("no DICOM")
    (root / "DICOMDIR").write_bytes(whole)
    (root / "notes.txt").write_text("no DICOM")
    return root


def test_dicom(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    root = dicom_folder(tmp_path / "root")
    manifest = datasets.build("dicom", root, options={"label": "BodyPartExamined"})
    assert manifest.uris == ["CR/1.2.3", "CR/1.dcm", "CR/2.dcm", "half.dcm", "huge.dcm", "naked.dcm"]
    assert manifest.column("group") == ["p1", "p1", "p 2", "p1", "", ""]
    assert manifest.column("study") == ["1.2.0", "1.2.0", "1.2.1", "1.2.0", "", ""]
    assert manifest.column("view") == ["PA", "LATERAL", "AP", "LATERAL", "", ""]
    assert manifest.classes == {"CHEST": 4}
    notes = " ".join(manifest.notes)
    assert (
        "1 files cannot be read" in notes and "1 files without suffix" in notes and "3 files of more" in notes
    )
    found = embedded("dicom", root, tmp_path, recipe={"size": 32, "crop": 32, "depth": "voi"})
    assert (found["ok"], found["failed"], found["pending"]) == (3, 2, 1)  # one is too large for the limit
    (tmp_path / "b").mkdir()
    assert embedded("dicom", root, tmp_path / "b")["ok"] == 1


def test_dicom_patients_can_be_hashed(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    root = dicom_folder(tmp_path / "root")

    def groups(**options: str) -> list[str]:
        return datasets.build("dicom", root, options=options).column("group")

    plain, hashed, salted = groups(), groups(patient="hashed"), groups(patient="hashed", salt="secret")
    assert len(set(hashed)) == len(set(plain)) and not set(hashed) & set(salted) - {""}
    assert hashed[0] == hashed[1] != hashed[2] and not any("p1" in name for name in hashed)
    assert set(groups(patient="none")) == {""}
    assert datasets.build("dicom", root, options={"label": "folder"}).classes == {"CR": 3}


def test_dicom_refuses(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    with pytest.raises(Refused, match="holds no DICOM"):
        datasets.build("dicom", tmp_path)
    with pytest.raises(Refused, match="BodyPartExamined"):
        datasets.build("dicom", dicom_folder(tmp_path / "root"), options={"label": "Nonsense"})
    with pytest.raises(Refused, match="patient"):
        datasets.build("dicom", tmp_path, options={"patient": "maybe"})


def test_pages_are_whole() -> None:
    for name in ("stoic", "cifar10", "medmnist", "webdataset", "dicom", "imagefolder"):
        shown = embank("datasets", "show", name)
        assert shown.code == 0 and "traps" in shown.out and "layout" in shown.out
        assert max(map(len, shown.out.splitlines())) <= 110
        assert isinstance(datasets.load(name).facts.caveats, tuple)


def test_manifest_survives_the_file(tmp_path: Path) -> None:
    medmnist(tmp_path / "root" / "x.npz")
    manifest = datasets.build("medmnist", tmp_path / "root")
    manifest.write(tmp_path / "m.parquet")
    assert Manifest.read(tmp_path / "m.parquet").uris == manifest.uris
