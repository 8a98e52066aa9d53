"""STOIC: 2,000 chest CT volumes, one a patient, of which one axial slice is shown."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.datasets import _layout, _splits, _tables
from engine.datasets._protocol import MODES, SEED, Facts, Mode, Option
from engine.errors import Refused
from stores.manifest.manifest import Manifest

if TYPE_CHECKING:
    import pandas as pd

_FOLDERS = ("data/mha", "mha", ".")
_TABLES = ("metadata/reference.csv", "reference.csv")
_TEST_SHARE = 0.2

facts = Facts(
    name="stoic",
    title="chest CT of suspected COVID-19, one axial slice of each volume",
    source=(
        "STOIC2021 challenge, public training set: https://registry.opendata.aws/stoic2021-training/; Revel "
        "and others 2021, doi:10.1148/radiol.2021210384"
    ),
    licence="CC BY-NC 4.0",
    images=2000,
    classes={},
    groups="the patient; there is one volume of each",
    caveats=(
        "Volumes hold Hounsfield units, so a recipe must say what becomes black and white; without, every "
        'row fails. The study\'s window is {"depth": "window", "window": [-1000, 250]} in a file for `embed '
        "--recipe`.",
        "One slice stands for a volume: COVID-19 need not show in it. The study's few-shot accuracy was "
        "51-54 % with two classes, which is chance.",
        "Slices are counted as they lie in the file, the file's orientation is not applied.",
        "In the study's code but not in its paper. Its reconstructions take slice 5 without a window instead "
        "(-O slice=5).",
    ),
    download=(
        "aws s3 cp s3://stoic2021-training/stoic2021_train/ ROOT --recursive --no-sign-request (hundreds of "
        "GB).",
    ),
    layout=(
        "ROOT/metadata/reference.csv    PatientID,probCOVID,probSevere",
        "ROOT/data/mha/<PatientID>.mha  read in place, plain or packed",
    ),
    label="probCOVID, 1 positive and 0 negative (a PCR test). Extra column: `severe`, probSevere.",
    splits=(
        "default: 20 % of the patients are test, by a hash of their number and the seed. as-published: the "
        "table shuffled with seed 42, the first 80 % are train."
    ),
    checked="2,000 volumes, one a patient: stated by the publisher. No table was at hand to count classes.",
    modes=MODES,
    options=(
        Option("slice", "0.5", "a slice's number from 0, or with a point its place in the depth"),
        SEED,
    ),
)  # fmt: skip


def index(root: Path, mode: Mode = "default", *, slice: str = "0.5", seed: str = "0") -> Manifest:
    """List one slice of each volume of the table. See `Dataset.index`."""
    if not re.fullmatch(r"[0-9]{1,6}|0\.[0-9]{1,6}", slice):
        raise Refused(
            f"slice={slice!r}",
            "It is a whole number, or 0 and a decimal fraction",
            "write for instance slice=0.5",
        )
    folder = _layout.folder(root, _FOLDERS, "stoic")
    path = _layout.file(root, _TABLES, "stoic")
    frame = _table(path)
    if mode == "as-published":
        frame = _splits.published_split(frame)
    else:
        frame["split"] = _splits.by_group(frame["image_id"], _splits.seed_of(seed), _TEST_SHARE)
    volumes = _layout.files(root, (folder,), (".mha",))
    frame, notes = _layout.attach(frame, frame["image_id"], volumes, root / folder, "stoic")
    frame = frame.assign(uri=frame["uri"] + f"!/slice/{slice}", group=frame["image_id"], view="axial")
    columns = {name: frame[name].tolist() for name in frame.columns}
    return Manifest.from_columns(columns, root, notes=notes)


def _table(path: Path) -> "pd.DataFrame":
    table = _tables.read(path, ("PatientID", "probCOVID", "probSevere"))
    _tables.refuse_repeats(path, table["PatientID"])
    label = table["probCOVID"].map({"0": "negative", "1": "positive", "0.0": "negative", "1.0": "positive"})
    _tables.refuse_rows(
        path, label.isna().to_numpy(dtype=np.bool_), table["probCOVID"], "probCOVID is 0 or 1"
    )
    return (
        table[["PatientID"]]
        .rename(columns={"PatientID": "image_id"})
        .assign(label=label, severe=table["probSevere"])
    )
