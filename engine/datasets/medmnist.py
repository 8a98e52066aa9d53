"""MedMNIST: standardised small medical images in NumPy archives, two-dimensional sets of any size."""

from pathlib import Path
from typing import Any

import numpy.typing as npt

from engine.datasets._archives import opened
from engine.datasets._layout import refuse_no_folder
from engine.datasets._protocol import Facts, Mode, Option
from engine.errors import ManifestError, Refused
from stores import members
from stores.manifest.manifest import Manifest
from stores.members.npz import Npz

_SPLITS = ("train", "val", "test")
#: Bytes of a split's labels: a million images of many tasks.
_MAX_LABELS = 256 << 20
#: Images of the official splits.
_COUNTS = {
    "pathmnist": (89996, 10004, 7180), "chestmnist": (78468, 11219, 22433), "dermamnist": (7007, 1003, 2005),
    "octmnist": (97477, 10832, 1000), "pneumoniamnist": (4708, 524, 624), "retinamnist": (1080, 120, 400),
    "breastmnist": (546, 78, 156), "bloodmnist": (11959, 1712, 3421), "tissuemnist": (165466, 23640, 47280),
    "organamnist": (34561, 6491, 17778), "organcmnist": (12975, 2392, 8216),
    "organsmnist": (13932, 2452, 8827),
}  # fmt: skip

facts = Facts(
    name="medmnist",
    title="one of the twelve two-dimensional MedMNIST sets, in any of its sizes",
    source=(
        "https://medmnist.com; Yang and others 2023, doi:10.1038/s41597-022-01721-8; files: "
        "doi:10.5281/zenodo.10519652"
    ),
    licence="CC BY 4.0, dermamnist CC BY-NC 4.0",
    images=0,
    classes={},
    groups="none: the files name no patients",
    caveats=(
        "Whether a patient stands in two splits cannot be seen from the files.",
        "Images were reduced to 28 to 224 pixels a side by the authors; numbers say little about clinical "
        "images.",
        "Sets of two sizes share their images: never join them.",
    ),
    download=("Fetch NAME.npz (28 pixels) or NAME_64.npz, _128, _224 from the page above into ROOT.",),
    layout=("ROOT/pneumoniamnist.npz   (arrays {train,val,test}_{images,labels}; read in place)",),
    label=(
        "the number in the file, whose meaning medmnist.com gives. chestmnist has several labels an image: "
        "`label` is then empty, and they stand in the columns `label_0`, `label_1`, ..."
    ),
    splits="the official ones, that are in the file",
    checked="the splits' counts, which a build is compared with, are general knowledge, not checked",
    options=(Option("file", "", "name of the archive, where ROOT holds several"),),
)  # fmt: skip


def index(root: Path, mode: Mode = "default", *, file: str = "") -> Manifest:
    """List the rows of the archive's arrays; no image is unpacked. See `Dataset.index`."""
    path = _archive(root, file)
    columns: dict[str, list[str]] = {}
    counts = []
    for split in _SPLITS:
        part = _part(path, split)
        counts.append(len(part["uri"]))
        for name, cells in part.items():
            columns.setdefault(name, []).extend(cells)
    return Manifest.from_columns(columns, root, notes=_notes(path, tuple(counts)))


def _archive(root: Path, file: str) -> Path:
    refuse_no_folder(root, "medmnist")
    found = sorted(root.glob("*.npz"))
    if file:
        found = [path for path in found if path.name in (file, f"{file}.npz")]
    if len(found) != 1:
        there = ", ".join(path.name for path in sorted(root.glob("*.npz"))) or "no file NAME.npz"
        raise Refused(
            f"{root} holds {there}",
            "A manifest is made of one archive",
            "fetch it, or choose with -O file=NAME.npz",
        )
    return found[0]


def _part(path: Path, split: str) -> dict[str, list[str]]:
    with opened(path) as handle:
        archive: Npz = members.index(handle, path.name)
        rows = archive.shape(f"{split}_images")[0]
    labels = _labels(path, f"{split}_labels", rows)
    stem = path.stem
    part = {
        "image_id": [f"{stem}-{split}-{row:06d}" for row in range(rows)],
        "uri": [f"{path.name}!/{split}_images/{row}" for row in range(rows)],
        "label": [""] * rows if labels.shape[1] > 1 else [str(label) for label in labels[:, 0].tolist()],
        "split": [split] * rows,
    }
    if labels.shape[1] > 1:
        part |= {
            f"label_{i}": [str(label) for label in labels[:, i].tolist()] for i in range(labels.shape[1])
        }
    return part


def _labels(path: Path, name: str, rows: int) -> npt.NDArray[Any]:
    try:
        with opened(path) as handle:
            labels = members.numbers(handle, name, _MAX_LABELS)
    except ManifestError as error:
        raise ManifestError(
            f"{path}: {name} is missing or damaged",
            "An archive of MedMNIST has labels for each split",
            "fetch it again",
        ) from error
    if labels.ndim != 2 or len(labels) != rows or labels.dtype.kind not in "ui":
        raise ManifestError(
            f"{path}: {name} is {labels.dtype} {labels.shape} for {rows} images",
            "Labels are whole numbers [images, tasks]",
            "fetch it again",
        )
    return labels


def _notes(path: Path, counts: tuple[int, ...]) -> list[str]:
    name = path.stem.partition("_")[0]
    whole = _COUNTS.get(name)
    if whole is None:
        return [
            f"{name} is none of the two-dimensional sets of MedMNIST: its counts were compared with nothing"
        ]
    found, due = ("/".join(f"{count:,}" for count in each) for each in (counts, whole))
    if counts == whole:
        return [f"the counts are those of the whole data set: {found}"]
    return [f"{found} images in train/val/test, the whole data set has {due}"]
