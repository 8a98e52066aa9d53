"""WebDataset shards whose keys have dots, images without a label, samples without the chosen image."""

import io
import json
import tarfile
from pathlib import Path

import pytest

from engine import datasets
from engine.errors import Refused
from stores.manifest.manifest import Manifest

EDGES = Path(__file__).parents[1] / "data" / "edges" / "webdataset-dots"
SHARD = "train-000000.tar"


def labelled(manifest: Manifest) -> dict[str, str]:
    return {
        uri.removeprefix(f"{SHARD}!/"): label
        for uri, label in zip(manifest.uris, manifest.column("label"), strict=True)
    }


def shard(root: Path, *names: str) -> Path:
    """A shard of such files; a label file's text is its first letter."""
    with tarfile.open(root / SHARD, "w") as archive:
        for name in names:
            data = json.dumps({"label": name[0], "patient": "p"}) if name.endswith(".json") else name[0]
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data.encode()))
    return root


@pytest.mark.parametrize("folder", ["dec", "decone", "uid"])
def test_every_image_is_listed_with_its_label(folder: str) -> None:
    manifest = datasets.build("webdataset", EDGES / folder)
    with tarfile.open(EDGES / folder / SHARD) as archive:  # by Python's own reader
        truth = {
            name: archive.extractfile(name.replace(".png", ".cls")).read().decode()  # type: ignore[union-attr]
            for name in archive.getnames()
            if name.endswith(".png")
        }
    assert len(truth) == 4 and labelled(manifest) == truth
    assert manifest.image_ids == manifest.uris
    assert len(manifest.notes) == 1 and "up to the last dot" in manifest.notes[0]


def test_by_webdatasets_own_rule_what_is_lost_is_counted() -> None:
    manifest = datasets.build("webdataset", EDGES / "decone", options={"keys": "first"})
    assert (len(manifest), manifest.unlabelled) == (4, 4)
    assert manifest.notes == ("4 of 4 images have no label: no KEY.cls, no field label in KEY.json",)
    manifest = datasets.build("webdataset", EDGES / "dec", options={"image": "05.png"})
    assert manifest.notes[0] == "3 of 4 images left out: they do not end in .05.png"
    assert "1 of 1 images have no label" in manifest.notes[1]
    with pytest.raises(Refused, match="1 of 1 samples have several") as caught:
        datasets.build("webdataset", EDGES / "dec", options={"keys": "first"})
    assert "-O keys=last lists all 4" in caught.value.remedy
    assert "-O image=05.png lists 1 of 4" in caught.value.remedy


#: Names; options; the images and labels that are right, or what the refusal says; what the notes say.
CASES = {
    "two views of a sample": (
        ["a.left.png", "a.right.png", "a.cls", "b.left.png", "b.cls"],
        {"image": "left.png"},
        {"a.left.png": "a", "b.left.png": "b"},
        ["1 of 3 images left out: they do not end in .left.png"],
    ),
    "an image in a suffix with a dot": (
        ["a.0.PNG", "a.CLS", "b.png"],
        {},
        {"a.0.PNG": "a", "b.png": ""},
        ["1 of 2 images have no label"],
    ),
    "dots in folders": (["1.2/a.png", "1.2/a.cls"], {}, {"1.2/a.png": "1"}, []),
    "no label at all": (
        ["1.2.3.png", "1.2.4.png"],
        {"keys": "last"},
        {"1.2.3.png": "", "1.2.4.png": ""},
        ["2 of 2 images have no"],
    ),
    "labels of JSON": (
        ["a.5.png", "a.5.json", "b.5.png", "b.5.json"],
        {"group": "patient"},
        {"a.5.png": "a", "b.5.png": "b"},
        ["keys have dots"],
    ),
    "some without": (
        ["a.png", "a.cls", "b.png", "c.cls", "d.txt"],
        {},
        {"a.png": "a", "b.png": ""},
        ["2 of 4 samples left out: no image", "1 of 2 images have no label"],
    ),
    "no such group": (
        ["a.png", "a.json", "b.png", "b.cls"],
        {"group": "patient"},
        {"a.png": "a", "b.png": "b"},
        ["1 of 2 images have no group: no field patient"],
    ),
    "a sample without the chosen image": (
        ["a.png", "a.seg.png", "a.cls", "b.seg.png", "b.cls"],
        {"image": "png"},
        {"a.png": "a"},
        ["1 of 2 samples left out: no file that ends in .png", "2 of 3 images left out"],
    ),
    "names but for their case": (["a.PNG", "a.png", "a.cls"], {}, {"a.png": "a"}, ["1 files left out"]),
    "hidden": (
        ["a.1.png", "a.1.cls", "._a.1.png"],
        {},
        {"a.1.png": "a"},
        ["keys have dots", "1 images left out"],
    ),
    "masks with descriptions": (
        ["a.png", "a.cls", "a.seg.png", "a.seg.json"],
        {},
        "'train.*a' has the images",
        [],
    ),
    "both rules": (["a.5.png", "a.5.cls", "b.left.png", "b.cls"], {}, "All keys end at the same dot", []),
    "two kinds of one image": (["a.png", "a.jpg", "a.cls"], {}, "has the images png, jpg", []),
    "a suffix that is not there": (
        ["a.png", "a.cls"],
        {"image": "left.png"},
        r"ends in \.left\.png.*\.png \.cls",
        [],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_right_or_counted(case: str, tmp_path: Path) -> None:
    names, options, right, notes = CASES[case]
    root = shard(tmp_path, *names)
    if isinstance(right, str):
        with pytest.raises(Refused, match=right):
            datasets.build("webdataset", root, options=options)
        return
    manifest = datasets.build("webdataset", root, options=options)
    assert labelled(manifest) == right
    assert len(manifest.notes) == len(notes)
    assert all(said in note for said, note in zip(notes, manifest.notes, strict=True))


def test_the_remedies_for_several_images_work(tmp_path: Path) -> None:
    root = shard(tmp_path, "a.left.png", "a.right.png", "b.left.png", "c.png", "c.jpg")
    with pytest.raises(Refused) as caught:
        datasets.build("webdataset", root)
    assert caught.value.remedy == "choose: -O image=left.png lists 2 of 5 images"
    assert len(datasets.build("webdataset", root, options={"image": "left.png"})) == 2
    root = shard(tmp_path, "1.2.3.png", "1.2.4.png", "1.2.5.png")
    with pytest.raises(Refused) as caught:
        datasets.build("webdataset", root)
    assert caught.value.remedy.startswith("choose: -O keys=last lists all 3")
    assert len(datasets.build("webdataset", root, options={"keys": "last"})) == 3
