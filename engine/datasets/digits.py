"""Handwritten digits that scikit-learn ships: 1,797 real pictures, ten classes, 8 x 8 pixels."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.datasets._files import Picture, package_file, write_pictures
from engine.datasets._protocol import Facts, Mode

if TYPE_CHECKING:
    from stores.manifest.manifest import Manifest

facts = Facts(
    name="digits",
    title="1,797 handwritten digits, 8 x 8 pixels, ten classes",
    source=(
        "scikit-learn `load_digits`: the test half of the UCI set Optical Recognition of Handwritten Digits "
        "(Alpaydin and Kaynak 1998, doi:10.24432/C50P49)"
    ),
    licence="CC BY 4.0 (UCI)",
    images=1797,
    classes=dict(zip("0123456789", (178, 182, 177, 183, 181, 182, 181, 179, 174, 180), strict=True)),
    groups="none: the writers (13 people) are not recorded",
    caveats=(
        "Several digits come from one writer, and nobody knows which: support and query images are not "
        "independent.",
        "Sixteen grey levels on 8 x 8 pixels are enlarged many times before a backbone sees them.",
    ),
    embedded=True,
)


def index(root: Path, mode: Mode = "default") -> "Manifest":
    """Write the digits as 8-bit grey PNG; stored values 0-16 become 0-255, rounded. See `Dataset.index`."""
    path = package_file("sklearn", "datasets/data/digits.csv.gz", "scikit-learn")
    table = np.loadtxt(path, delimiter=",", dtype=np.int64)
    levels = ((table[:, :64] * 255 + 8) // 16).astype(np.uint8).reshape(-1, 8, 8)
    labels = table[:, 64].tolist()
    return write_pictures(
        root,
        (
            Picture(f"digit-{i:04d}", str(label), "", pixels)
            for i, (label, pixels) in enumerate(zip(labels, levels, strict=True))
        ),
    )
