"""Montgomery: 138 frontal chest radiographs, 58 of them with signs of tuberculosis, 12 bits deep."""

from pathlib import Path
from typing import TYPE_CHECKING

from engine.datasets import _nlm
from engine.datasets._protocol import MODES, SEED, Facts, Mode

if TYPE_CHECKING:
    from stores.manifest.manifest import Manifest

__all__ = ["facts", "index"]

_THIS = _nlm.TwoClass("montgomery", "MCUCXR_", "MontgomerySet", 138, bits="12")

facts = Facts(
    name="montgomery",
    title="chest radiographs, normal or with signs of tuberculosis; 12-bit grey",
    source=_nlm.SOURCE,
    licence="public; NLM asks to be acknowledged and the papers on its page to be cited",
    images=138,
    classes={"positive": 58, "negative": 80},
    groups="the image: one image a patient, as far as is known",
    caveats=(
        "Files hold 12-bit grey levels in 16-bit PNG. A recipe must say how they become 8 bits (scale or "
        "window); rows fail with the reason `depth` otherwise, since automatic conversion clips them to "
        "white. The column `bits` says 12.",
        "Images are 4020 x 4892 or 4892 x 4020, 20 megapixels each.",
        "58 positives cannot carry fine comparisons: few-shot episodes reuse 35 of them every time.",
    ),
    download=(
        "Fetch MontgomerySet.zip (or NLM-MontgomeryCXRSet.zip, 600 MB) from https://data.lhncbc.nlm.nih.gov/"
        "public/Tuberculosis-Chest-X-ray-Datasets/Montgomery-County-CXR-Set/MontgomerySet/index.html and "
        "unpack it.",
        "For sex, age and findings (not needed): montgomery_metadata.csv, a table of the clinical readings "
        "that comes with a copy on Kaggle (raddar/tuberculosis-chest-xrays-montgomery), into ROOT.",
    ),
    layout=(
        "ROOT/MontgomerySet/CXR_png/MCUCXR_0001_0.png       (or CXR_png, images/images or images in ROOT)",
        "ROOT/montgomery_metadata.csv                       (optional)",
    ),
    label=_nlm.LABEL,
    splits=_nlm.SPLITS + " The study's table was not available: its order, hence its split, is not certain.",
    checked="All numbers are the publisher's; no label table was at hand.",
    modes=MODES,
    options=(SEED,),
)


def index(root: Path, mode: Mode = "default", *, seed: str = "0") -> "Manifest":
    """List the images. See `Dataset.index`.

    Extra columns: `bits`, grey levels' depth, and with a table `sex`, `age`, `findings`.
    """
    return _nlm.index(_THIS, root, mode, seed)
