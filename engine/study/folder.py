"""The folder of a study: what lies where in it, and a note on where the study file came from."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from engine.study.study import Study
from stores.errors import Refused
from stores.manifest.atomic_file import atomic_file
from stores.outputs import check_folder, make_folder

COPY, NOTE, REPORT, LOCK = "study.yaml", "study.json", "report.html", "lock"
#: What a folder may hold in which a run was stopped before it had written its note.
_FIRST = frozenset({COPY, LOCK})
#: Bytes of a note that are read.
_MOST = 1 << 20


@dataclass(frozen=True)
class Note:
    """What a study's folder knows beside the copy of the study file.

    Attributes:
        study: its name.
        root: folder that the paths of the study file are relative to.
        embedded: name of a bank -> digest of how its models were embedded; and name of a manifest's file ->
            digest of how it was built.
        reported: digest of what the report was made from; "" before the first.
    """

    study: str
    root: str
    embedded: Mapping[str, str] = field(default_factory=dict)
    reported: str = ""

    def write(self, directory: Path) -> None:
        """Write it. Raises MachineFault: the disk is full."""
        body = json.dumps({"schema": 1, **asdict(self)}, indent=2, sort_keys=True) + "\n"
        _write(directory / NOTE, body.encode())


def read_note(directory: Path) -> Note | None:
    """Read the note of a study's folder; None if it has none."""
    try:
        with (directory / NOTE).open("rb") as file:
            body = json.loads(file.read(_MOST))
        embedded = {str(name): str(digest) for name, digest in body["embedded"].items()}
        return Note(str(body["study"]), str(body["root"]), embedded, str(body["reported"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def check(directory: Path, study: Study) -> None:
    """Refuse a folder that is not this study's; changes nothing.

    Raises:
        Refused: a file, a folder in a bank or with other things in it, one that cannot be written to, or
            another study's.
    """
    check_folder(directory)
    if not directory.is_dir():
        return
    note = read_note(directory)
    if note is not None and note.study != study.name:
        raise Refused(
            f"{directory} is the folder of the study {note.study!r}",
            f"The study {study.name!r} has its own",
            "name another folder with --dir",
        )
    strangers = {path.name for path in directory.iterdir() if not _is_temporary(path.name)} - _FIRST
    if note is None and strangers:
        raise Refused(
            f"{directory} holds something else",
            "A study is made in a new or empty folder, or goes on in its own",
            "name another folder with --dir",
        )


def _is_temporary(name: str) -> bool:
    """Return whether a file is a document that a killed run was writing."""
    return name.startswith((f".{COPY}.", f".{NOTE}.")) and name.endswith(".tmp")


def prepare(directory: Path, study: Study, file: Path) -> Note:
    """Make a study's folder with its copy of the study file, and return its note.

    Args:
        file: the study file.

    Raises:
        MachineFault: the disk is full.
    """
    before = read_note(directory)
    note = Note(study.name, str(study.root))
    if before is not None:
        note = Note(study.name, str(study.root), before.embedded, before.reported)
    if note != before:
        note.write(directory)
    copy, text = directory / COPY, file.read_bytes()
    if not copy.is_file() or copy.read_bytes() != text:
        _write(copy, text)
    return note


def _write(path: Path, data: bytes) -> None:
    with atomic_file(path) as file:
        file.write(data)


def make(folder: Path) -> None:
    """Make a folder of the study. Raises Refused, MachineFault."""
    make_folder(folder)
