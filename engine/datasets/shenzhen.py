"""Shenzhen: 662 frontal chest radiographs, half of them with signs of tuberculosis."""

from pathlib import Path
from typing import TYPE_CHECKING

from engine.datasets import _nlm
from engine.datasets._protocol import MODES, SEED, Facts, Mode

if TYPE_CHECKING:
    from stores.manifest.manifest import Manifest

__all__ = ["facts", "index"]

_THIS = _nlm.TwoClass("shenzhen", "CHNCXR_", "ChinaSet_AllFiles", 662)

facts = Facts(
    name="shenzhen",
    title="chest radiographs, normal or abnormal (tuberculosis but for one)",
    source=_nlm.SOURCE,
    licence="public; NLM asks to be acknowledged and the papers on its page to be cited",
    images=662,
    classes={"positive": 336, "negative": 326},
    groups="the image: one image a patient, as far as is known",
    caveats=(
        "Positive is whatever is not normal; one positive (CHNCXR_0391_1) has a pneumonia and no "
        "tuberculosis.",
        "Images are about 3000 x 3000; some copies hold palette PNG, which need conversion to RGB (the "
        "decoders do that).",
        "Normal and abnormal were taken in one hospital within a month, yet text and markers on the films "
        "may differ: check for shortcuts.",
        "With 133 test images the 95 % interval of an accuracy of 0.85 is about 6 points to either side.",
    ),
    download=(
        "Fetch ChinaSet_AllFiles.zip (3.8 GB) from https://data.lhncbc.nlm.nih.gov/public/Tuberculosis-Chest-"
        "X-ray-Datasets/Shenzhen-Hospital-CXR-Set/index.html and unpack it.",
        "For sex, age and findings (not needed): shenzhen_metadata.csv, a table of the clinical readings "
        "that comes with a copy on Kaggle (raddar/tuberculosis-chest-xrays-shenzhen), into ROOT.",
    ),
    layout=(
        "ROOT/ChinaSet_AllFiles/CXR_png/CHNCXR_0001_0.png   (or CXR_png, images/images or images in ROOT)",
        "ROOT/shenzhen_metadata.csv                         (optional; also shenzhencxr_metadata.csv)",
    ),
    label=_nlm.LABEL,
    splits=_nlm.SPLITS,
    checked=(
        "Rows, labels and the study's split were computed from a copy of the table in file-name order; names "
        "and findings agree on every row. One image a patient and sizes in pixels are general knowledge."
    ),
    modes=MODES,
    options=(SEED,),
)


def index(root: Path, mode: Mode = "default", *, seed: str = "0") -> "Manifest":
    """List the images. See `Dataset.index`. Extra columns with a table: `sex`, `age`, `findings`."""
    return _nlm.index(_THIS, root, mode, seed)
