"""What a run of a study is doing at this moment, for those who watch it in this process and in others."""

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from engine.study.locking import holder_of
from engine.study.study import Cell

if TYPE_CHECKING:
    from engine.pipeline import PassProgress

NOW = "now.json"
State = Literal["missing", "running", "done", "failed", "impossible"]
_MOST = 1 << 20


@dataclass(frozen=True)
class Hooks:
    """Functions that a run calls as it goes; each does nothing by default.

    Attributes:
        on_work: called with what the run does besides cells, e.g. `embedding digits`.
        on_state: called with a cell and its new state.
        on_detail: called with a line on how far the running cell is, where this process evaluates it.
        on_embed: called during decode passes.
    """

    on_work: Callable[[str], None] = lambda _: None
    on_state: Callable[[Cell, State], None] = lambda _, __: None
    on_detail: Callable[[str], None] = lambda _: None
    on_embed: "Callable[[PassProgress], None] | None" = None


def note_running(directory: Path, cells: Sequence[Cell], what: str = "") -> None:
    """Write which cells are being made, for `study status`; a disk that is full is no fault of this note.

    Args:
        what: the run is doing, where that is no cell.
    """
    body = {"schema": 1, "pid": os.getpid(), "what": what, "cells": [cell.digest for cell in cells]}
    temporary = directory / f".{NOW}.{os.getpid()}.tmp"
    with contextlib.suppress(OSError):
        temporary.write_text(json.dumps(body), "utf-8")
        temporary.replace(directory / NOW)


def note_nothing(directory: Path) -> None:
    """Remove the note of `note_running`."""
    with contextlib.suppress(OSError):
        (directory / NOW).unlink(missing_ok=True)


def running(directory: Path) -> tuple[frozenset[str], str]:
    """Return the cells (digests) that a run is making now, and what else it does; empty without a run."""
    if holder_of(directory) is None:
        return frozenset(), ""
    try:
        with (directory / NOW).open("rb") as file:
            body = json.loads(file.read(_MOST))
        return frozenset(map(str, body["cells"])), str(body["what"])
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset(), ""
