"""EyePACS: 88,702 fundus photographs, two eyes a person, five levels of diabetic retinopathy."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.datasets import _layout, _splits, _tables
from engine.datasets._protocol import EVALUATION, MODES, SEED, Facts, Mode, Option
from engine.errors import Refused

if TYPE_CHECKING:
    import pandas as pd

    from stores.manifest.manifest import Manifest

__all__ = ["expected", "facts", "index"]

NAME = "eyepacs"
LEVELS = ("0", "1", "2", "3", "4")
TRAIN = dict(zip(LEVELS, (25810, 2443, 5292, 873, 708), strict=True))
TEST = dict(zip(LEVELS, (39533, 3762, 7861, 1214, 1206), strict=True))
PUBLISHED_POOL = dict(zip(LEVELS, (7376, 674, 1506, 235, 210), strict=True))
#: The second name is that of the competition's solution file.
_TEST_TABLES = ("testLabels.csv", "retinopathy_solution.csv")

facts = Facts(
    name=NAME,
    title="fundus photographs of both eyes, five levels of diabetic retinopathy",
    source=(
        "EyePACS and Kaggle 2015, Diabetic Retinopathy Detection, "
        "https://www.kaggle.com/c/diabetic-retinopathy-detection"
    ),
    licence="the competition's rules: for the competition and for research; no passing on",
    images=88_702,
    classes={level: TRAIN[level] + TEST[level] for level in LEVELS},
    groups="the person: two eyes each",
    caveats=(
        "The two eyes of a person agree in 87 % of the training pairs: a split by image leaks.",
        "A view pair is two eyes, not two views of one, and a camera may invert one of them.",
        "73 % of the images are level 0: accuracy says little, take the mean per class.",
        "Table 1 of the paper counts the training file only, yet linear and finetune are tested on the test "
        "file, and few-shot joins both.",
        "Many cameras and sizes (2560 x 1920 to 4928 x 3264), many out of focus or dark; graded by one "
        "reader.",
    ),
    download=(
        "Accept the rules at https://www.kaggle.com/c/diabetic-retinopathy-detection and fetch "
        "trainLabels.csv.zip, train.zip.001 ... 005 and test.zip.001 ... 007 (88 GB).",
        "Join and unpack: cat train.zip.* > train.zip, and the same for test.",
        "Fetch retinopathy_solution.csv.zip from the competition's forum: the labels of the test images.",
    ),
    layout=(
        "ROOT/trainLabels.csv",
        "ROOT/train/10_left.jpeg, 10_right.jpeg, ...",
        "ROOT/testLabels.csv                      (or retinopathy_solution.csv; optional)",
        "ROOT/test/1_left.jpeg, 1_right.jpeg, ... (optional)",
    ),
    label="the level, 0 (none) to 4 (proliferative)",
    splits=(
        "default: the two official files, which have different people as far as is known; or, with "
        "splits=by-patient, 20 % of the people of the training file, by a hash of person and seed. "
        "as-published: each official file shuffled (NumPy RandomState 42); a fifth of train (RandomState 0) "
        "is marked in the column `validation`; few-shot: the first 10,001 training rows."
    ),
    checked=(
        "Training counts and orders were computed from a copy of the table that has the published size; the "
        "test counts are general knowledge."
    ),
    modes=MODES,
    options=(
        Option("splits", "official", "where the default split comes from", ("official", "by-patient")),
        EVALUATION,
        SEED,
    ),
)  # fmt: skip


def index(
    root: Path,
    mode: Mode = "default",
    *,
    splits: str = "official",
    evaluation: str = "linear",
    seed: str = "0",
) -> "Manifest":
    """List the images that the tables name. See `Dataset.index`; the options are in `facts.options`.

    Extra columns: `eye`, `pair` (`engine.datasets.view_pairs`: in a left eye's row, the right eye if it has
    the same level), `usage` (of the competition, test images only), `validation` with `as-published`.
    """
    import pandas as pd

    from stores.manifest.manifest import Manifest

    few = mode == "as-published" and evaluation == "few-shot"
    if mode == "as-published" and splits != "official":
        raise Refused(
            f"as-published with splits={splits!r}", "The study had the official files", "leave it out"
        )
    by_patient = splits == "by-patient"
    _layout.refuse_no_folder(root, NAME)
    frame, notes = _part(root, "train", _layout.file(root, ["trainLabels.csv"], NAME), mode, few)
    if mode == "as-published" and not few:
        frame = _splits.with_validation(frame)
    path = None if few or by_patient else _layout.optional_file(root, _TEST_TABLES)
    if path is not None:
        test, more = _part(root, "test", path, mode, few)
        frame, notes = pd.concat([frame, test], ignore_index=True).fillna(""), notes + more
    elif not (few or by_patient):
        notes.append(
            f"no test images, for {root / _TEST_TABLES[0]} is missing; -O splits=by-patient splits the others"
        )
    if by_patient:
        frame = frame.assign(split=_splits.by_group(frame["group"], _splits.seed_of(seed), 0.2))
    if mode == "default":
        frame = frame.sort_values("image_id")
    manifest = Manifest.from_frame(frame, root)
    return replace(manifest, notes=(*notes, *manifest.notes))


def expected(
    mode: Mode, *, splits: str = "official", evaluation: str = "linear", seed: str = "0"
) -> Mapping[str, int]:
    """See `Dataset.expected`."""
    if mode == "as-published" and evaluation == "few-shot":
        return PUBLISHED_POOL
    return TRAIN if splits == "by-patient" else facts.classes


def _part(root: Path, part: str, path: Path, mode: Mode, few: bool) -> tuple["pd.DataFrame", list[str]]:
    """One official file: its rows, in the study's order if asked, with uris."""
    frame = _rows(path)
    notes: list[str] = []
    if mode == "as-published":
        notes += _splits.part_note(len(frame), sum((TRAIN if part == "train" else TEST).values()))
        frame = frame.iloc[_splits.published_order(len(frame))].reset_index(drop=True)
    if few:
        frame = frame.iloc[: _splits.PUBLISHED_POOL]
    _layout.folder(root, [part], NAME)
    found = _layout.files(root, [part], (".jpeg", ".jpg"))
    kept, left_out = _layout.attach(
        frame.assign(split=part), frame["image_id"], found, root / part, NAME, others=not few
    )
    return kept, notes + [f"{part}: {note}" for note in left_out]


def _rows(path: Path) -> "pd.DataFrame":
    import pandas as pd

    table = _tables.read(path, ("image", "level"))
    names = table["image"]
    steps = _tables.extract(names, r"^(?P<group>\d+)_(?P<eye>left|right)$")
    _tables.refuse_rows(path, steps["eye"].isna(), names, "An image is named like 10_left")
    _tables.refuse_repeats(path, names)
    levels = table["level"]
    _tables.refuse_rows(path, ~levels.isin(LEVELS), levels, "A level is 0, 1, 2, 3 or 4")
    frame = pd.DataFrame({"image_id": names, "label": levels, "group": steps["group"], "eye": steps["eye"]})
    frame = frame.assign(view=frame["eye"], pair=_pairs(frame))
    return frame.assign(usage=table["Usage"]) if "Usage" in table else frame


def _pairs(frame: "pd.DataFrame") -> "np.ndarray[tuple[int], np.dtype[np.object_]]":
    """In a left eye's row the right eye of the same person, if it has the same level."""
    level = dict(zip(frame["image_id"], frame["label"], strict=True))
    partner = frame["group"] + "_right"
    paired = (frame["eye"] == "left") & (partner.map(level) == frame["label"])
    return np.where(paired, partner, "").astype(object)
