"""The files of CheXpert, which comes in three layouts."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine.datasets import _layout
from engine.errors import Refused

if TYPE_CHECKING:
    import pandas as pd

NAME = "chexpert"
ARCHIVES = ("CheXpert-v1.0", "CheXpert-v1.0-small")
#: The full-size archives of Stanford AIMI: tables and validation images, and training images without the
#: folder `train`.
TABLES_BATCH = "CheXpert-v1.0 batch 1 (validate & csv)"
TRAIN_BATCHES = tuple(f"CheXpert-v1.0 batch {n} (train {n - 1})" for n in (2, 3, 4))
_SAMPLE = 100


@dataclass(frozen=True)
class Home:
    """The places of tables and images.

    Attributes:
        root: the user's folder.
        tables: folders that may contain `train.csv` and `valid.csv`, relative to the root.
        folder: the archive's folder, relative to the root.
        folders: patient -> folder, relative to the root, that contains the patient's folder; None if `train`
            and `valid` are in `folder`.
    """

    root: Path
    tables: tuple[str, ...]
    folder: str
    folders: dict[str, str] | None = None

    def table(self, name: str) -> Path:
        """Return the path of a label table. Raises Refused if it is missing."""
        return _layout.file(self.root, [f"{folder}/{name}" for folder in self.tables], NAME)

    def uris(self, part: str, frame: "pd.DataFrame") -> "pd.Series[str]":
        """Return the uri of each row; empty if the patient's batch is missing.

        Args:
            part: `train` or `valid`.
            frame: columns `group` (patient) and `rest` (path below the patient's folder).
        """
        relative = frame["group"] + "/" + frame["rest"]
        if part == "valid" or self.folders is None:
            return ("" if self.folder == "." else f"{self.folder}/") + f"{part}/" + relative
        batches = frame["group"].map(self.folders)
        return (batches + "/" + relative).where(batches.notna(), "")


def find(root: Path) -> Home:
    """Recognise the layout of a folder.

    Raises:
        Refused: it has none of the layouts, or two of them.
    """
    _layout.refuse_no_folder(root, NAME)
    homes = [folder for folder in (".", *ARCHIVES) if (root / folder / "train").exists()]
    batches = [batch for batch in TRAIN_BATCHES if (root / batch).exists()]
    if len(homes) + bool(batches) > 1:
        several = ", ".join(str(root / folder) for folder in homes + batches)
        raise Refused(
            f"{several}: images of CheXpert in more than one of these",
            "A manifest is of the full-size or of the small images",
            "name the folder of one of them as ROOT",
        )
    if homes:
        folder = homes[0]
        _refuse_empty(root, _layout.folder(root, [os.path.normpath(f"{folder}/train")], NAME))
        return Home(root, tuple(dict.fromkeys((folder, "."))), folder)
    if batches:
        folders = {patient: batch for batch in batches for patient in _patients(root / batch)}
        return Home(root, (".", TABLES_BATCH), TABLES_BATCH, folders)
    raise _layout.missing(root, [f"{ARCHIVES[1]}/train", f"{ARCHIVES[0]}/train", TRAIN_BATCHES[0]], NAME)


def _patients(folder: Path) -> list[str]:
    return [name for name in _layout.entries(folder) if name.startswith("patient")]


def _refuse_empty(root: Path, folder: str) -> None:
    if not _patients(root / folder):
        raise Refused(
            f"{root / folder} holds no patient's folder",
            "It holds patient00001, patient00002, ...",
            "unpack the archive again",
        )


def keep(frame: "pd.DataFrame", root: Path, present: bool) -> tuple["pd.DataFrame", list[str]]:
    """Leave out rows without a file.

    Args:
        frame: rows with the column `uri`.
        root: folder that uris are relative to.
        present: look for every file; otherwise only rows whose batch is missing are left out, and a sample of
            the files is looked for.

    Returns:
        (rows, notes on what was left out or seems to be missing).

    Raises:
        Refused: no row is left.
    """
    exists = (frame["uri"] != "").to_numpy(copy=True)
    if present:
        # A Path for each of 223,414 files is slow.
        exists &= np.array([os.path.exists(f"{root}/{uri}") for uri in frame["uri"]])  # noqa: PTH110
    notes = []
    if absent := int((~exists).sum()):
        notes.append(f"{absent:,} of {len(frame):,} rows of the label table left out: no file")
    remaining = frame[exists].reset_index(drop=True)
    if not len(remaining):
        raise Refused(
            f"{root} holds none of the {len(frame):,} images of the label table",
            "The table and the images belong together",
            f"unpack the images; see `embank datasets show {NAME}`",
        )
    if not present:
        notes += _sample_note(remaining["uri"], root)
    return remaining, notes


def _sample_note(uris: "pd.Series[str]", root: Path) -> list[str]:
    sample = uris.iloc[np.linspace(0, len(uris) - 1, min(_SAMPLE, len(uris))).astype(int)]
    absent = [uri for uri in sample if not (root / uri).exists()]
    if not absent:
        return []
    return [
        f"{len(absent)} of {len(sample)} sampled images are missing (first: {absent[0]}): "
        "`embank manifest check` counts them all, -O files=present leaves them out"
    ]
