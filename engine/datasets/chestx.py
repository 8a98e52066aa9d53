"""ChestX-ray14: 112,120 frontal chest radiographs of 30,805 patients, 14 findings read out of the reports."""

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

NAME = "chestx"
#: The study's classes, in the order of its codes 0 to 6.
SEVEN = ("Atelectasis", "Cardiomegaly", "Effusion", "Infiltration", "Mass", "Nodule", "Pneumothorax")
#: Finding -> (images that have it and nothing else, images that have it).
COUNTS = {
    "Atelectasis": (4215, 11559),
    "Cardiomegaly": (1093, 2776),
    "Consolidation": (1310, 4667),
    "Edema": (628, 2303),
    "Effusion": (3955, 13317),
    "Emphysema": (892, 2516),
    "Fibrosis": (727, 1686),
    "Hernia": (110, 227),
    "Infiltration": (9547, 19894),
    "Mass": (2139, 5782),
    "Nodule": (2705, 6331),
    "Pleural_Thickening": (1126, 3385),
    "Pneumonia": (322, 1431),
    "Pneumothorax": (2194, 5302),
}
FINDINGS = tuple(COUNTS)
ROWS = 112_120
PUBLISHED_POOL = dict(zip(SEVEN, (1648, 415, 1535, 3642, 805, 1082, 874), strict=True))
_NONE = "No Finding"
_TABLE = ("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "View Position")
#: The corrected table first; it differs from the first one in ages and the like.
_TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
_FOLDERS = ("images", *(f"images_{n:03d}{below}" for n in range(1, 13) for below in ("", "/images")), ".")

facts = Facts(
    name=NAME,
    title="frontal chest radiographs; seven findings that occur alone",
    source=(
        "Wang and others 2017, ChestX-ray8: Hospital-Scale Chest X-Ray Database and Benchmarks, CVPR, "
        "doi:10.1109/CVPR.2017.369; NIH Clinical Center"
    ),
    licence="free to use; NIH asks to be acknowledged, with a link, and the paper to be cited",
    images=25_848,
    classes={name: COUNTS[name][0] for name in SEVEN},
    groups="the patient",
    caveats=(
        "The labels were read out of reports by a program; the authors put its precision above 90 %, later "
        "readings by radiologists well below for some findings.",
        "20,796 of the 112,120 images have more than one finding, and 60,361 none: as single labels only "
        "images with exactly one finding are listed, 25,848 for the seven classes.",
        "Pneumonia (322 alone) is in the study's list of names, yet not among its classes.",
        "as-published splits by image, before it picks the classes: 3,661 of its 5,146 test images have a "
        "training patient. One patient has 49 of the 25,848 images.",
        "Some PNG files have four channels.",
        "The header of the table has commas inside two names, and in the first release a comma at its end.",
    ),
    download=(
        "Open https://nihcc.app.box.com/v/ChestXray-NIHCC and fetch Data_Entry_2017_v2020.csv and "
        "images_001.tar.gz ... images_012.tar.gz (45 GB), or the copy on Kaggle (nih-chest-xrays/data).",
        "Unpack all archives into one folder; each holds a folder `images`.",
    ),
    layout=(
        "ROOT/Data_Entry_2017_v2020.csv           (or Data_Entry_2017.csv)",
        "ROOT/images/00000001_000.png             (or images_001/images/..., images_002/images/...)",
        "ROOT/test_list.txt                       (for -O splits=official)",
    ),
    label=(
        "seven: the finding, for images with exactly one finding that is among Atelectasis, Cardiomegaly, "
        "Effusion, Infiltration, Mass, Nodule and Pneumothorax, as in the study; fourteen: the same among "
        "all 14; or one finding by name: `positive` or `negative` for all images. All 14 stay as columns."
    ),
    splits=(
        "default: 20 % of the patients are test, by a hash of patient and seed; or the official list, which "
        "is by patient, too. as-published: all rows shuffled (NumPy RandomState 42), the first floor(0.8 n) "
        "are train, then the seven classes are picked; few-shot: the first 10,001 of these."
    ),
    checked="Counts and the study's splits were computed from the table v2020; files were not looked at.",
    modes=MODES,
    options=(
        Option("label", "seven", "what the label is", ("seven", "fourteen", *FINDINGS)),
        Option(
            "splits", "by-patient", "where the default split comes from", ("by-patient", "official")
        ),
        EVALUATION,
        SEED,
    ),
)  # fmt: skip


def index(
    root: Path,
    mode: Mode = "default",
    *,
    label: str = "seven",
    splits: str = "by-patient",
    evaluation: str = "linear",
    seed: str = "0",
) -> "Manifest":
    """List the labelled images. See `Dataset.index`; the options are in `facts.options`.

    Extra columns: `findings` as in the table, the 14 findings (`1` or `0`), `age`, `sex`, and `validation`
    with `as-published`.
    """
    from stores.manifest.manifest import Manifest

    _layout.refuse_no_folder(root, NAME)
    path = _layout.file(root, _TABLES if mode == "default" else _TABLES[::-1], NAME)
    frame = _rows(path)
    notes: list[str] = []
    if mode == "as-published":
        _refuse_other_rules(label, splits)
        notes += _splits.part_note(len(frame), ROWS)
        frame = _labelled(_splits.published_split(frame), label)
        frame = _splits.with_validation(frame)
        if evaluation == "few-shot":
            frame = frame.iloc[: _splits.PUBLISHED_POOL].drop(columns="validation")
    else:
        frame = _labelled(_with_split(frame, root, splits, seed), label).sort_values("image_id")
    found = _layout.files(root, _FOLDERS, (".png",))
    frame, left_out = _layout.attach(frame, frame["image_id"], found, root / "images", NAME, others=False)
    manifest = Manifest.from_frame(frame, root)
    return replace(manifest, notes=(*notes, *left_out, *manifest.notes))


def expected(
    mode: Mode,
    *,
    label: str = "seven",
    splits: str = "by-patient",
    evaluation: str = "linear",
    seed: str = "0",
) -> Mapping[str, int]:
    """See `Dataset.expected`."""
    if mode == "as-published" and evaluation == "few-shot":
        return PUBLISHED_POOL
    if label in FINDINGS:
        positive = COUNTS[label][1]
        return {"positive": positive, "negative": ROWS - positive}
    return {name: COUNTS[name][0] for name in (SEVEN if label == "seven" else FINDINGS)}


def _refuse_other_rules(label: str, splits: str) -> None:
    if (label, splits) != ("seven", "by-patient"):
        raise Refused(
            f"as-published with label={label!r} and splits={splits!r}",
            "The study had seven classes and a split of its own",
            "leave these options out, or use --mode default",
        )


def _rows(path: Path) -> "pd.DataFrame":
    """The label table in its own order, with everything but label and split."""
    import pandas as pd

    table = _tables.read(path, _TABLE)
    names = table["Image Index"]
    _tables.refuse_rows(
        path, ~names.str.fullmatch(r"\d{8}_\d{3}\.png"), names, "An image is named like 00000001_000.png"
    )
    _tables.refuse_repeats(path, names)
    frame = pd.DataFrame(
        {
            "image_id": names.str.removesuffix(".png"),
            "group": table["Patient ID"],
            "study": table["Patient ID"] + "/" + table["Follow-up #"],
            "view": table["View Position"],
            "findings": table["Finding Labels"],
            "age": table["Patient Age"],
            "sex": table["Patient Sex" if "Patient Sex" in table else "Patient Gender"],
        }
    )
    return frame.assign(**_findings(path, frame["findings"]))


def _findings(path: Path, lists: "pd.Series[str]") -> dict[str, "pd.Series[str]"]:
    """Finding -> `1` or `0` for each row."""
    parts = {text: text.split("|") for text in lists.unique()}  # a few hundred
    wrong = {text for text, names in parts.items() if not _known(names)}
    _tables.refuse_rows(
        path,
        lists.isin(wrong),
        lists,
        f"Findings are {_NONE}, or with bars between them {', '.join(FINDINGS)}",
    )
    return {
        name: lists.map({text: str(int(name in names)) for text, names in parts.items()}) for name in FINDINGS
    }


def _known(names: list[str]) -> bool:
    return names == [_NONE] or (set(names) <= set(FINDINGS) and len(set(names)) == len(names))


def _labelled(frame: "pd.DataFrame", label: str) -> "pd.DataFrame":
    """Rows that have a label under this rule, with it."""
    if label in FINDINGS:
        return frame.assign(label=np.where(frame[label] == "1", "positive", "negative").astype(object))
    classes = SEVEN if label == "seven" else FINDINGS
    kept = frame[frame["findings"].isin(classes)]
    return kept.assign(label=kept["findings"]).reset_index(drop=True)


def _with_split(frame: "pd.DataFrame", root: Path, splits: str, seed: str) -> "pd.DataFrame":
    if splits == "by-patient":
        return frame.assign(split=_splits.by_group(frame["group"], _splits.seed_of(seed), 0.2))
    path = _layout.file(root, ["test_list.txt"], NAME)
    names = _tables.read(path, ["name"], header=False)["name"].str.strip().str.removesuffix(".png")
    _tables.refuse_rows(path, ~names.isin(frame["image_id"]), names, "It names images of the label table")
    test = frame["image_id"].isin(names)
    return frame.assign(split=np.where(test, "test", "train").astype(object))
