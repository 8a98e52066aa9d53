"""A folder of DICOM files: patient, study and view from their headers."""

import hashlib
import importlib.util
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from engine import dicom_file
from engine.datasets._layout import refuse_no_folder
from engine.datasets._protocol import Facts, Mode, Option
from engine.errors import ManifestError, Refused
from stores.manifest.image_folder import run_threads
from stores.manifest.manifest import Manifest
from stores.manifest.text import cell

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SUFFIXES = (".dcm", ".dicom", ".ima")
#: Bytes of a file, for its header.
_HEAD = 1 << 20
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_COLUMNS = {
    "group": "PatientID",
    "study": "StudyInstanceUID",
    "view": "ViewPosition",
    "modality": "Modality",
    "series": "SeriesInstanceUID",
    "laterality": "ImageLaterality",
    "photometric": "PhotometricInterpretation",
    "bits_stored": "BitsStored",
}

facts = Facts(
    name="dicom",
    title="your own folder of DICOM files, one image each",
    source="your own",
    licence="your own",
    images=0,
    classes={},
    groups="PatientID, as it is or hashed (-O patient=hashed)",
    caveats=(
        "More than 8 bits need a recipe that says what becomes black and white: depth `voi` shows the file's "
        "own window, `window` a given one in the file's unit after its rescale (Hounsfield units in CT), "
        "`scale` all stored bits. Without, such rows fail.",
        "The manifest names patients, studies and series as the files do, unless patients are hashed; a hash "
        "without a secret salt can be undone by trying all numbers.",
        "Files of several frames fail: extract the frames first.",
        "PatientID means a person within one hospital only.",
    ),
    layout=("ROOT/any/folders/NAME.dcm   (or .dicom, .ima, or no suffix; others are skipped)",),
    label="none; with -O label=KEYWORD an element of the header, with -O label=folder the first folder",
    splits="none: give them with a table, by patient",
    options=(
        Option("patient", "plain", "the column `group`", ("plain", "hashed", "none")),
        Option("salt", "", "secret text that is hashed with each PatientID"),
        Option("label", "", "`folder`, or a DICOM keyword such as BodyPartExamined"),
    ),
)  # fmt: skip


def index(
    root: Path, mode: Mode = "default", *, patient: str = "plain", salt: str = "", label: str = ""
) -> Manifest:
    """List the files and read their headers. See `Dataset.index`.

    A file that cannot be read as DICOM keeps its row, without what the header would say: embedding marks it
    failed with the reason. Further columns: `modality`, `series`, `laterality`, `photometric`, `bits_stored`.
    """
    refuse_no_folder(root, "dicom")
    keyword = _keyword(label)
    uris = sorted(_files(root), key=os.fsencode)
    columns = _COLUMNS | ({"label": keyword} if keyword else {})
    found = run_threads(lambda uri: _described(root / uri, columns), uris, len(uris))
    kept = [
        (uri, header)
        for uri, header in zip(uris, found, strict=True)
        if header or uri.lower().endswith(_SUFFIXES)
    ]
    if not kept:
        raise ManifestError(
            f"{root} holds no DICOM file (looked at {len(uris):,} files)",
            "DICOM files have DICM at byte 128, or end in .dcm",
            "check the path; archives have to be unpacked",
        )
    rows = {name: [(header or {}).get(name, "") for _, header in kept] for name in columns}
    if label == "folder":
        rows["label"] = [uri.partition("/")[0] if "/" in uri else "" for uri, _ in kept]
    rows["group"] = [_group(name, patient, salt) for name in rows["group"]]
    return Manifest.from_columns({"uri": [uri for uri, _ in kept], **rows}, root, notes=_notes(found, kept))


def _keyword(label: str) -> str:
    """The DICOM keyword that an option names, if it does."""
    if importlib.util.find_spec("pydicom") is None:
        raise Refused(
            "pydicom is not installed", "It reads DICOM headers", "run `pip install 'embank[dicom]'`"
        )
    from pydicom.datadict import tag_for_keyword

    if label in ("", "folder"):
        return ""
    if tag_for_keyword(label) is None:
        raise Refused(
            f"label={label!r}",
            "It is `folder` or a DICOM keyword",
            "write for instance label=BodyPartExamined",
        )
    return label


def _files(root: Path) -> Iterator[str]:
    """Files that may be DICOM by their name: its own suffix, or none (as after a UID, which has dots)."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            suffix = name.lower().rpartition(".")[2] if "." in name else ""
            if name.startswith(".") or name.upper() == "DICOMDIR":
                continue
            if not suffix or suffix.isdigit() or f".{suffix}" in _SUFFIXES:
                yield (Path(folder) / name).relative_to(root).as_posix()


def _described(path: Path, columns: dict[str, str]) -> dict[str, str] | None:
    """Column -> text of the header; None if the file is not DICOM, or damaged."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        dataset = _header(os.read(handle, _HEAD), list(columns.values()))
    except OSError:
        return None
    finally:
        os.close(handle)
    if dataset is None:
        return None
    return {name: _text(dataset, keyword) for name, keyword in columns.items()}


def _header(head: bytes, keywords: list[str]) -> "Dataset | None":
    if head[128:132] != b"DICM":
        return None
    try:
        return dicom_file.opened(head, keywords=keywords).dataset
    except Exception:  # damaged files raise nearly anything; embedding says what is wrong with them
        return None


def _text(dataset: "Dataset", keyword: str) -> str:
    try:
        value = dataset.get(keyword)
        text = "" if value is None else str(value)
    except Exception:  # a value that does not parse is none
        return ""
    return _CONTROL.sub(" ", text).strip()


def _group(name: str, patient: str, salt: str) -> str:
    name = cell(name)  # before it is hashed: afterwards no two spellings meet
    if patient == "none" or not name:
        return ""
    return name if patient == "plain" else hashlib.sha256(f"{salt}\0{name}".encode()).hexdigest()[:16]


def _notes(found: list[dict[str, str] | None], kept: list[tuple[str, dict[str, str] | None]]) -> list[str]:
    unread = [uri for uri, header in kept if header is None]
    notes = (
        [f"{len(unread):,} files cannot be read as DICOM and will fail (first: {unread[0]})"]
        if unread
        else []
    )
    skipped = len(found) - len(kept)
    notes += [f"{skipped:,} files without suffix skipped: they are not DICOM"] if skipped else []
    kinds = Counter((header or {}).get("bits_stored", "") for _, header in kept)
    deep = sum(count for bits, count in kinds.items() if bits.isdigit() and int(bits) > 8)
    return notes + (
        [f"{deep:,} files of more than 8 bits: embed with a recipe of depth voi, window or scale"]
        if deep
        else []
    )
