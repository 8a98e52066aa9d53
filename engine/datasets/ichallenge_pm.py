"""iChallenge-PM (PALM): 400 fundus photographs, normal, highly myopic or pathologically myopic."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.datasets import _ichallenge, _layout, _splits, _tables
from engine.datasets._protocol import MODES, SEED, Facts, Mode, Option

if TYPE_CHECKING:
    import pandas as pd

    from stores.manifest.manifest import Manifest

__all__ = ["expected", "facts", "index"]

NAME = "ichallenge-pm"
_FOLDERS = (
    "PALM-Training400/PALM-Training400",
    "PALM-Training400",
    "Training400",
    ".",
)
_CLASSES = {"N": "normal", "H": "high-myopia", "P": "pathological"}
_COUNTS = {"normal": 161, "high-myopia": 26, "pathological": 213}
#: Rule -> classes that are positive.
_POSITIVE = {"paper": ("pathological",), "reported": ("high-myopia", "pathological")}

facts = Facts(
    name=NAME,
    title="fundus photographs with or without pathological myopia",
    source=(
        "Fang and others 2024, Open Fundus Photograph Dataset with Pathologic Myopia Recognition and "
        "Anatomical Structure Annotation (PALM), Scientific Data 11, doi:10.1038/s41597-024-02911-2"
    ),
    licence="registration with the challenge; research only",
    images=400,
    classes={"positive": 213, "negative": 187},
    groups="none: who is in which photograph is not published",
    caveats=(
        "Two rules are about. The paper, and its code since 26 April 2022: pathological against the rest "
        "(213 to 187). The README, and the code when the reported numbers were made: high and pathological "
        "myopia against normal (239 to 161). Table 3 was very probably computed with the second.",
        "Two eyes of one person may stand on both sides of the split, and nobody can tell.",
        "Sizes are 2124 x 2056 and 1444 x 1444, from two cameras: check whether size tells the class.",
        "as-published: the study shuffled a table with a column of its own that is not part of the download. "
        "Without fovea_location_csv.csv the names in order are shuffled, which is not the study's split.",
    ),
    download=(
        "Register at https://palm.grand-challenge.org/ (or https://ai.baidu.com/broad/download) and fetch "
        "PALM-Training400.zip; unpack it, and the archive inside it.",
    ),
    layout=(
        "ROOT/PALM-Training400/PALM-Training400/H0001.jpg, N0001.jpg, P0001.jpg   (or one folder less)",
        "ROOT/PALM-Training400/fovea_location_csv.csv      (the study's own, optional: names in its order)",
    ),
    label=(
        "the first letter of the name is the class: N normal, H high myopia, P pathological. Rule paper: P "
        "is `positive`; rule reported: H and P are; rule three: the class itself. default has paper, "
        "as-published has reported. The class stays in the column `class`."
    ),
    splits=(
        "default: 20 % of the images are test, by a hash of name and seed. as-published: the rows of "
        "fovea_location_csv.csv shuffled (NumPy RandomState 42), the first 320 are train."
    ),
    checked=(
        "That letters stand for classes is the publisher's; the counts are general knowledge; no label table "
        "was at hand."
    ),
    modes=MODES,
    options=(
        Option(
            "rule",
            "",
            "what is positive; paper in mode default, reported in as-published",
            ("paper", "reported", "three"),
        ),
        SEED,
    ),
)  # fmt: skip


def index(root: Path, mode: Mode = "default", *, rule: str = "", seed: str = "0") -> "Manifest":
    """List the images. See `Dataset.index`. Extra column: `class`."""
    from stores.manifest.manifest import Manifest

    _layout.refuse_no_folder(root, NAME)
    folder = next((each for each in _FOLDERS if _layout.files(root, [each], (".jpg", ".jpeg"))), None)
    if folder is None:
        raise _layout.missing(root, [f"{each}/N0001.jpg" for each in _FOLDERS], NAME)
    frame = _rows(_layout.files(root, [folder], (".jpg", ".jpeg")), root)
    rule = _rule(mode, rule)
    if rule != "three":
        positive = frame["class"].isin(_POSITIVE[rule])
        frame["label"] = positive.map({True: "positive", False: "negative"})
    notes: list[str] = []
    if mode == "as-published":
        places = [f"{place}/fovea_location_csv.csv" for place in ("PALM-Training400", folder, ".")]
        frame, notes = _ichallenge.published(frame, root, places, facts.images)
    else:
        frame = frame.assign(split=_splits.by_group(frame["image_id"], _splits.seed_of(seed), 0.2))
    manifest = Manifest.from_frame(frame, root)
    return replace(manifest, notes=(*notes, *manifest.notes))


def expected(mode: Mode, *, rule: str = "", seed: str = "0") -> Mapping[str, int]:
    """See `Dataset.expected`."""
    rule = _rule(mode, rule)
    if rule == "three":
        return _COUNTS
    positive = sum(_COUNTS[name] for name in _POSITIVE[rule])
    return {"positive": positive, "negative": facts.images - positive}


def _rule(mode: Mode, rule: str) -> str:
    return rule or ("reported" if mode == "as-published" else "paper")


def _rows(found: dict[str, str], root: Path) -> "pd.DataFrame":
    import pandas as pd

    names = pd.Series(sorted(found), dtype="str")
    uris = names.map(found)
    names = names.str.upper()
    _tables.refuse_rows(root, ~names.str.fullmatch(r"[HNP]\d{4}"), uris, "Images are named like N0001.jpg")
    classes = names.str[0].map(_CLASSES)
    return pd.DataFrame({"image_id": names, "uri": uris, "label": classes, "class": classes})
