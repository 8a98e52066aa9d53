"""iChallenge-AMD (ADAM): 400 fundus photographs, 89 of them with age-related macular degeneration."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from engine.datasets import _ichallenge, _layout, _splits, _tables
from engine.datasets._protocol import MODES, SEED, Facts, Mode

if TYPE_CHECKING:
    import pandas as pd

    from stores.manifest.manifest import Manifest

__all__ = ["facts", "index"]

NAME = "ichallenge-amd"
_ROOTS = ("Training400", "iChallenge-AMD-Training400/Training400", "iChallenge-AMD-Training400", ".")
#: Folder -> label. The first letter of a name says the same: A or N.
_FOLDERS = {"AMD": "positive", "Non-AMD": "negative"}

facts = Facts(
    name=NAME,
    title="fundus photographs with or without age-related macular degeneration",
    source=(
        "Fang and others 2022, ADAM Challenge: Detecting Age-Related Macular Degeneration From Fundus "
        "Images, IEEE Transactions on Medical Imaging 41(10), doi:10.1109/TMI.2022.3172773"
    ),
    licence="registration with the challenge; research only",
    images=400,
    classes={"positive": 89, "negative": 311},
    groups="none: who is in which photograph is not published",
    caveats=(
        "Two eyes of one person may stand on both sides of the split, and nobody can tell.",
        "Sizes are 2124 x 2056 and 1444 x 1444, from two cameras: check whether size tells the class.",
        "as-published: the study shuffled a table of its own that is not part of the download. Without "
        "amd_labels.csv the names in order are shuffled, which is not the study's split.",
        "The table's value 47.90 for SimCLR in the paper is a slip for 74.90.",
    ),
    download=(
        "Register at https://amd.grand-challenge.org/ (or https://ai.baidu.com/broad/download) and fetch the "
        "400 training images with AMD and Non-AMD folders.",
    ),
    layout=(
        "ROOT/Training400/AMD/A0001.jpg           (or iChallenge-AMD-Training400/Training400, or in ROOT)",
        "ROOT/Training400/Non-AMD/N0001.jpg",
        "ROOT/amd_labels.csv                      (the study's own, optional: name without suffix, 0 or 1)",
    ),
    label="`positive` (AMD) or `negative`: the folder",
    splits=(
        "default: 20 % of the images are test, by a hash of name and seed. as-published: the rows of "
        "amd_labels.csv shuffled (NumPy RandomState 42), the first 320 are train."
    ),
    checked="All numbers are the publisher's or general knowledge; no label table was at hand.",
    modes=MODES,
    options=(SEED,),
)


def index(root: Path, mode: Mode = "default", *, seed: str = "0") -> "Manifest":
    """List the images of the two folders. See `Dataset.index`."""
    from stores.manifest.manifest import Manifest

    above = _layout.folder(root, [f"{folder}/AMD" for folder in _ROOTS], NAME).removesuffix("/AMD")
    folders = [name if above == "." else f"{above}/{name}" for name in _FOLDERS]
    for folder in folders:
        _layout.folder(root, [folder], NAME)
    found = _layout.files(root, folders, (".jpg", ".jpeg"))
    frame = _rows(found, root)
    notes: list[str] = []
    if mode == "as-published":
        places = ["amd_labels.csv", f"{above}/amd_labels.csv"]
        frame, notes = _ichallenge.published(frame, root, places, facts.images)
    else:
        frame = frame.assign(split=_splits.by_group(frame["image_id"], _splits.seed_of(seed), 0.2))
    manifest = Manifest.from_frame(frame, root)
    return replace(manifest, notes=(*notes, *manifest.notes))


def _rows(found: dict[str, str], root: Path) -> "pd.DataFrame":
    import pandas as pd

    uris = pd.Series(sorted(found.values(), key=lambda uri: uri.rpartition("/")[2]), dtype="str")
    steps = uris.str.split("/")
    names = steps.str[-1].str.partition(".")[0].str.upper()
    folders = steps.str[-2]
    fits = names.str.fullmatch(r"[AN]\d{4}") & (names.str.startswith("A") == (folders == "AMD"))
    _tables.refuse_rows(root, ~fits, uris, "AMD holds A0001.jpg and so on, Non-AMD holds N0001.jpg and so on")
    return pd.DataFrame({"image_id": names, "uri": uris, "label": folders.map(_FOLDERS)})
