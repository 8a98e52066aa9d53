"""BACH: 400 microscopy images of breast tissue in four classes."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.datasets import _layout, _splits, _tables
from engine.datasets._protocol import MODES, SEED, Facts, Mode

if TYPE_CHECKING:
    import pandas as pd

    from stores.manifest.manifest import Manifest

__all__ = ["facts", "index"]

NAME = "bach"
#: In the order of the study's codes 0 to 3.
CLASSES = ("Normal", "Benign", "InSitu", "Invasive")
_ROOTS = ("ICIAR2018_BACH_Challenge/Photos", "Photos", ".")

facts = Facts(
    name=NAME,
    title="microscopy of breast tissue: normal, benign, in situ, invasive",
    source=(
        "Aresta and others 2019, BACH: Grand challenge on breast cancer histology images, Medical Image "
        "Analysis 56, doi:10.1016/j.media.2019.05.010; doi:10.5281/zenodo.3632035"
    ),
    licence="CC BY-NC-ND 4.0",
    images=400,
    classes=dict.fromkeys(CLASSES, 100),
    groups="none: which images come from one patient is only partly published",
    caveats=(
        "Images of one patient may stand on both sides of the split, and nobody can tell.",
        "The archive is said to hold more files than the table names (102 a class): the table decides, and "
        "other files are left out and counted.",
        "The study's stored few-shot results probably had every image twice (its loader ignored the split "
        "then), so that a query's own copy could be in the support set: Table 3 is likely optimistic.",
        "The paper calls the labels ordinal, 0 to 4; they are four unordered classes.",
        "0.42 micrometres a pixel, 2048 x 1536: resized to 224 a nucleus is a few pixels.",
    ),
    download=(
        "Register at https://iciar2018-challenge.grand-challenge.org/ or fetch ICIAR2018_BACH_Challenge.zip "
        "(10 GB) from https://zenodo.org/records/3632035, and unpack it.",
    ),
    layout=(
        "ROOT/ICIAR2018_BACH_Challenge/Photos/microscopy_ground_truth.csv   (or Photos in ROOT)",
        "ROOT/ICIAR2018_BACH_Challenge/Photos/Normal/n001.tif",
        "ROOT/ICIAR2018_BACH_Challenge/Photos/{Benign/b001.tif,InSitu/is001.tif,Invasive/iv001.tif}",
    ),
    label="the class in the table, which is also the folder: Normal, Benign, InSitu or Invasive",
    splits=(
        "default: 20 % of the images are test, by a hash of name and seed. as-published: the table's rows "
        "shuffled (NumPy RandomState 42), the first 320 are train."
    ),
    checked="All numbers are the publisher's; no label table was at hand.",
    modes=MODES,
    options=(SEED,),
)


def index(root: Path, mode: Mode = "default", *, seed: str = "0") -> "Manifest":
    """List the images that the table names. See `Dataset.index`."""
    from stores.manifest.manifest import Manifest

    _layout.refuse_no_folder(root, NAME)
    path = _layout.file(root, [f"{photos}/microscopy_ground_truth.csv" for photos in _ROOTS], NAME)
    photos = path.parent.relative_to(root).as_posix()
    frame = _rows(path)
    notes: list[str] = []
    if mode == "as-published":
        notes += _splits.part_note(len(frame), facts.images)
        frame = _splits.published_split(frame)
    else:
        split = _splits.by_group(frame["image_id"], _splits.seed_of(seed), 0.2)
        frame = frame.assign(split=split).sort_values("image_id")
    folders = [name if photos == "." else f"{photos}/{name}" for name in CLASSES]
    found = _layout.files(root, folders, (".tif", ".tiff"))
    frame, left_out = _layout.attach(frame, frame["image_id"], found, root / photos, NAME)
    _refuse_moved(path, frame)
    manifest = Manifest.from_frame(frame, root)
    return replace(manifest, notes=(*notes, *left_out, *manifest.notes))


def _rows(path: Path) -> "pd.DataFrame":
    import pandas as pd

    table = _tables.read(path, ("file", "class"), header=False)
    labels = table["class"].str.strip()
    _tables.refuse_rows(path, ~labels.isin(CLASSES), table["class"], f"A class is {', '.join(CLASSES)}")
    names = table["file"].str.strip().str.replace(r"\.tiff?$", "", case=False, regex=True)
    _tables.refuse_rows(
        path, ~names.str.fullmatch(r"(n|b|is|iv)\d+"), table["file"], "An image is named like iv001.tif"
    )
    _tables.refuse_repeats(path, names)
    return pd.DataFrame({"image_id": names, "label": labels})


def _refuse_moved(path: Path, frame: "pd.DataFrame") -> None:
    """Table and folders say the same; one of them is wrong if they do not."""
    folders = frame["uri"].str.split("/").str[-2]
    _tables.refuse_rows(
        path, folders != frame["label"], frame["uri"], "The folder of an image is its class in the table"
    )
