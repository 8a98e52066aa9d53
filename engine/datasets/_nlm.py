"""What Shenzhen and Montgomery share: NLM's two tuberculosis sets have one layout and one rule."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.datasets import _layout, _splits, _tables
from engine.datasets._protocol import Mode

if TYPE_CHECKING:
    import pandas as pd

    from stores.manifest.manifest import Manifest

#: Both papers' data are described there.
SOURCE = (
    "Jaeger and others 2014, Two public chest X-ray datasets for computer-aided screening of pulmonary "
    "diseases, Quantitative Imaging in Medicine and Surgery 4(6), doi:10.3978/j.issn.2223-4292.2014.11.20"
)
SPLITS = (
    "default: 20 % of the images are test, by a hash of name and seed. as-published: the table's rows, or "
    "the names in order where there is no table, shuffled (NumPy RandomState 42), the first floor(0.8 n) "
    "are train."
)
LABEL = (
    "`positive` (abnormal) or `negative` (normal): the last digit of the file name. as-published: findings "
    "in the table other than exactly `normal`, where there is a table."
)
_TABLE = ("study_id", "sex", "age", "findings")


@dataclass(frozen=True)
class TwoClass:
    """One of the two sets.

    Attributes:
        name: slug.
        prefix: of every file name.
        archive: the folder in the archive.
        images: number of images.
        bits: depth of the grey levels, where a recipe must know it; empty for 8.
    """

    name: str
    prefix: str
    archive: str
    images: int
    bits: str = ""


def index(which: TwoClass, root: Path, mode: Mode, seed: str) -> "Manifest":
    """List the images; see `Dataset.index`. Extra columns with a table: `sex`, `age`, `findings`."""
    from stores.manifest.manifest import Manifest

    folders = tuple(
        f"{above}{below}"
        for above in (f"{which.archive}/", "")
        for below in ("CXR_png", "images/images", "images")
    )
    folder = _layout.folder(root, folders, which.name)
    found = _layout.files(root, [folder], (".png",))
    tables = [f"{above}{which.name}{kind}_metadata.csv" for above in ("", f"{which.archive}/")
              for kind in ("", "cxr")]  # fmt: skip
    path = _layout.optional_file(root, tables)
    frame = _from_names(found, root / folder) if path is None else _from_table(path, which)
    notes = [] if path else ["no metadata table: labels are from file names, sex and age are not known"]
    frame = _labelled(frame, mode)
    if which.bits:
        frame = frame.assign(bits=which.bits)
    if mode == "as-published":
        notes += _splits.part_note(len(frame), which.images)
        frame = _splits.published_split(frame)
    else:
        split = _splits.by_group(frame["group"], _splits.seed_of(seed), 0.2)
        frame = frame.assign(split=split).sort_values("image_id")
    frame, left_out = _layout.attach(frame, frame["image_id"], found, root / folder, which.name)
    manifest = Manifest.from_frame(frame, root)
    return replace(manifest, notes=(*notes, *left_out, *manifest.notes))


def _from_names(found: dict[str, str], folder: Path) -> "pd.DataFrame":
    import pandas as pd

    names = pd.Series(sorted(found), dtype="str").str.upper()
    _refuse_names(folder, names)
    return pd.DataFrame({"image_id": names, "group": names})


def _from_table(path: Path, which: TwoClass) -> "pd.DataFrame":
    import pandas as pd

    table = _tables.read(path, _TABLE)
    names = table["study_id"].str.replace(r"\.png$", "", case=False, regex=True)
    _refuse_names(path, names)
    _tables.refuse_rows(
        path, ~names.str.startswith(which.prefix), names, f"A name starts with {which.prefix}"
    )
    _tables.refuse_repeats(path, names)
    extra = {name: table[name] for name in ("sex", "age", "findings")}
    return pd.DataFrame({"image_id": names, "group": names, **extra})


def _refuse_names(path: Path, names: "pd.Series[str]") -> None:
    _tables.refuse_rows(
        path,
        ~names.str.fullmatch(r"[A-Z]+_\d{4}_[01]"),
        names,
        "An image is named like CHNCXR_0001_0.png, with 0 for normal and 1 for abnormal at its end",
    )


def _labelled(frame: "pd.DataFrame", mode: Mode) -> "pd.DataFrame":
    abnormal = frame["image_id"].str.endswith("_1")
    if mode == "as-published" and "findings" in frame:
        abnormal = frame["findings"] != "normal"
    return frame.assign(label=np.where(abnormal, "positive", "negative").astype(object))
