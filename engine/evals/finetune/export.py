"""Copies of finished weights in a folder of the user's choice."""

import re
from collections.abc import Sequence
from pathlib import Path

from engine.errors import Refused
from engine.evals.finetune.checkpoints import HEAD, WEIGHTS
from stores.backends import files
from stores.backends.location import Place
from stores.outputs import check_folder, new_file

_ENDINGS = {WEIGHTS: ".safetensors", HEAD: ".head.safetensors"}


def stem(model: str, label: str, several_labels: bool) -> str:
    """Return the beginning of the names of a run's files: the model's title, and the label among several."""
    return re.sub(r"[^\w.+-]+", "-", f"{model} {label}" if several_labels else model)


def check_copies(folder: Path, stems: Sequence[str], *, force: bool) -> None:
    """Refuse a folder in which copies must not or cannot be written, before anything is computed.

    Raises:
        Refused: a place in a bank, one that cannot be written to, or a file that is there already.
    """
    check_folder(folder)
    for name in stems:
        for ending in _ENDINGS.values():
            path = folder / f"{name}{ending}"
            if path.exists() and (path.is_dir() or not force):
                raise Refused(
                    f"{path} exists",
                    "An output replaces nothing unasked",
                    "choose another folder, or add --force",
                )


def write_copies(home: Place, weights: str, folder: Path, name: str) -> list[Path]:
    """Copy a run's weights and head.

    Args:
        home: the bank. weights: path of the weights below it.
        folder: missing ones are made.
        name: as `stem` gives it.

    Returns:
        The files written: the backbone's weights first.

    Raises:
        Refused, MachineFault: a file cannot be written.
    """
    run = (home / weights).parent
    written = []
    for source, ending in _ENDINGS.items():
        path = folder / f"{name}{ending}"
        with new_file(path) as file:
            file.write(files.read(run / source))
        written.append(path)
    return written
