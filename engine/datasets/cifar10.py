"""CIFAR-10 from the Python batches that torchvision downloads; images stay where they are."""

from pathlib import Path

from engine.datasets import _layout
from engine.datasets._archives import opened
from engine.datasets._protocol import Facts, Mode
from engine.errors import ManifestError
from stores import members
from stores.manifest.manifest import Manifest
from stores.members.batches import CifarBatch

_FOLDERS = ("cifar-10-batches-py", ".")
_BATCHES = {**{f"data_batch_{i}": "train" for i in range(1, 6)}, "test_batch": "test"}
_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

facts = Facts(
    name="cifar10",
    title="tiny natural images in ten classes, 32 x 32 pixels",
    source="https://www.cs.toronto.edu/~kriz/cifar.html; Krizhevsky 2009, technical report",
    licence="none stated; the page asks to cite the report",
    images=60_000,
    classes=dict.fromkeys(_CLASSES, 6000),
    groups="none",
    caveats=(
        "No medical images: a control in the study's code, not in its paper.",
        "32 x 32 pixels are enlarged many times before a backbone sees them.",
        "About 3 % of the test images have a near copy among the training images (Barz and Denzler 2020, "
        "doi:10.3390/jimaging6060041).",
    ),
    download=(
        "Fetch cifar-10-python.tar.gz (170 MB) from https://www.cs.toronto.edu/~kriz/cifar.html and unpack "
        "it, or let torchvision do so.",
    ),
    layout=("ROOT/cifar-10-batches-py/data_batch_1 ... data_batch_5, test_batch   (or these in ROOT)",),
    label="the class's name. Extra column: `filename`, the image's name in the batch.",
    splits="the official ones: data_batch_1 to 5 are train, test_batch is test",
    checked="stated by the publisher",
)  # fmt: skip


def index(root: Path, mode: Mode = "default") -> Manifest:
    """List the images of the batches, which an unpickler reads that runs nothing. See `Dataset.index`."""
    folder = _layout.folder(root, _FOLDERS, "cifar10")
    prefix = "" if folder == "." else f"{folder}/"
    columns: dict[str, list[str]] = {name: [] for name in ("image_id", "uri", "label", "split", "filename")}
    for batch, split in _BATCHES.items():
        path = _layout.file(root, (prefix + batch,), "cifar10")
        with opened(path) as file:
            found: CifarBatch = members.index(file, batch)
        if not all(0 <= label < len(_CLASSES) for label in found.labels):
            raise ManifestError(
                f"{path} has labels from {min(found.labels)} to {max(found.labels)}",
                "CIFAR-10 has the classes 0 to 9",
                "fetch the file again",
            )
        rows = range(len(found.labels))
        columns["image_id"] += [f"{batch}-{row:05d}" for row in rows]
        columns["uri"] += [f"{prefix}{batch}!/{row}" for row in rows]
        columns["label"] += [_CLASSES[label] for label in found.labels]
        columns["split"] += [split] * len(rows)
        columns["filename"] += found.filenames or [""] * len(rows)
    return Manifest.from_columns(columns, root)
