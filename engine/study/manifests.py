"""Manifests of a study's data sets: read, or built from a data set's files."""

from pathlib import Path

from engine import datasets
from engine.study import folder
from engine.study.study import DataSet
from stores.bank.reader import Bank
from stores.manifest.manifest import Manifest


def read_manifest(dataset: DataSet, mode: str, directory: Path) -> Manifest:
    """Return the manifest of a data set; that of a built-in one is made once, in the study's folder.

    Args:
        mode: of the manifest, where the data set has several.
        directory: of the study.

    Raises:
        Refused: missing or malformed files. MachineFault: the disk is full or fails.
    """
    if dataset.bank is not None:
        return Bank.open(dataset.bank).manifest()
    if dataset.manifest is not None:
        return Manifest.read(dataset.manifest, root=dataset.root)
    path = folder.manifest_of(directory, dataset, mode)
    if not path.is_file():
        assert dataset.builtin is not None
        modes = datasets.load(dataset.builtin).facts.modes
        images = dataset.folder or folder.images_of(directory, dataset)
        own = mode if mode in modes else "default"
        manifest = datasets.build(dataset.builtin, images, own, dataset.build)
        folder.make(path.parent)
        manifest.write(path)
    return Manifest.read(path)
