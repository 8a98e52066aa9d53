"""Export of features for tools that know neither zarr nor embank."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from stores.backends import files
from stores.bank import documents
from stores.bank.layout import MANIFEST
from stores.errors import BankError
from stores.json_types import JsonObject
from stores.manifest.atomic_file import atomic_file
from stores.outputs import check_folder

if TYPE_CHECKING:
    from stores.bank.reader import FeatureSet

FORMATS = ("npy", "parquet")
#: Beside an export that is being written, or was interrupted.
UNFINISHED = "unfinished-export.json"
_BLOCK_ROWS = 4096
_RISKY = ("=", "+", "-", "@", "\t", "\r")

_Write = Callable[["FeatureSet", IO[bytes]], None]


def export(
    features: "FeatureSet", out: Path | str, format: str = "npy", overwrite: bool = False
) -> list[Path]:
    """Write a feature set as plain files, rows in manifest order; failed rows stay, as NaN.

    `npy`: embeddings.npy float32 [rows, dim], status.npy uint8 (1 = ok, 2 = failed). `parquet`:
    embeddings.parquet with image_id, status and embedding (fixed-size list of float32). Both:
    manifest.parquet, failures.csv (row, image_id, uri, code, detail; cells that a spreadsheet would run
    are quoted) and feature.json (what the embeddings are: feature, title, key).

    An export that was interrupted can be repeated: until all is written, `unfinished-export.json` names what
    it is of and the files that were not there before, and these alone are replaced.

    Args:
        features: what to write.
        out: directory, made if absent.
        overwrite: replace files of these names.

    Returns:
        The paths written.

    Raises:
        BankError: an unknown format, or files that are there already.
        MachineFault: disk full or I/O error.
    """
    return export_all([features], out, format, overwrite)


def export_all(
    several: Sequence["FeatureSet"], out: Path | str, format: str = "npy", overwrite: bool = False
) -> list[Path]:
    """Export several feature sets of a bank: each into a folder of its name, unless there is one only."""
    out = Path(out)
    folders = [out] if len(several) == 1 else [out / features.name for features in several]
    writers = _writers(str(getattr(format, "value", format)))
    paths = [folder / name for folder in folders for name in (*writers, MANIFEST)]
    for folder in folders:
        check_folder(folder)
    what: JsonObject = {"format": [*sorted(writers)], "seals": [features.seal_digest for features in several]}
    new = _new_files(out, [path.relative_to(out).as_posix() for path in paths], what, overwrite)
    for features in several:  # What is damaged is refused before anything is written.
        _ = features.array, features.status
    files.make_directory(out)
    _remove_left_behind(out, folders, (*writers, MANIFEST))
    note = out / UNFINISHED
    documents.replace(note, {**what, "files": new}, files.temporary(out, f".{UNFINISHED}"))
    for folder, features in zip(folders, several, strict=True):
        _write(features, folder, writers)
    files.remove(note)  # last: an export that was interrupted before can be repeated
    return paths


def _new_files(out: Path, relatives: list[str], what: JsonObject, overwrite: bool) -> list[str]:
    """Return the files that are new to the export: absent, or left by its interrupted predecessor.

    Raises:
        BankError: another is there, and nothing says that it may be replaced.
    """
    try:
        note = documents.read_if_there(out / UNFINISHED) or {}
    except documents.BrokenDocument:
        note = {}
    own = (
        set(note.get("files", ())) if all(note.get(name) == value for name, value in what.items()) else set()
    )
    folders = [relative for relative in relatives if (out / relative).is_dir()]
    if folders:
        raise BankError(
            f"{out / folders[0]} is a folder", "An export writes a file there", "choose another folder"
        )
    new = [relative for relative in relatives if relative in own or not os.path.lexists(out / relative)]
    taken = [relative for relative in relatives if relative not in new]
    if taken and not overwrite:
        raise BankError(
            f"{out / taken[0]} exists",
            "An export replaces nothing unasked",
            "choose another folder, or add --force",
        )
    return new


def _remove_left_behind(out: Path, folders: Sequence[Path], names: Sequence[str]) -> None:
    """Remove the temporary files of exports that were killed here: their tables and notes."""
    for entry in files.names(out):
        if entry.startswith(f".{UNFINISHED}{files.TEMP_MARK}"):
            files.remove(out / entry)
    for folder in folders:
        for entry in files.names(folder):
            name, _, pid = entry.removeprefix(".").removesuffix(".tmp").rpartition(".")
            if name in names and entry == f".{name}.{pid}.tmp" and not Path("/proc", pid).exists():
                files.remove(folder / entry)


def _writers(name: str) -> dict[str, _Write]:
    formats: dict[str, dict[str, _Write]] = {
        "npy": {"embeddings.npy": _embeddings_npy, "status.npy": _status_npy},
        "parquet": {"embeddings.parquet": _embeddings_parquet},
    }
    writers = formats.get(name, {})
    if not writers:
        raise BankError(f"format {name!r}", f"It is one of {', '.join(FORMATS)}", "choose one")
    return {**writers, "failures.csv": _failures_csv, "feature.json": _feature_json}


def _write(features: "FeatureSet", out: Path, writers: dict[str, _Write]) -> None:
    files.make_directory(out)
    for name, write in writers.items():
        with atomic_file(out / name) as file:
            write(features, file)
    features.bank.manifest().write(out / MANIFEST)


def _blocks(features: "FeatureSet") -> Iterator[np.ndarray[Any, np.dtype[np.float32]]]:
    for start in range(0, len(features), _BLOCK_ROWS):
        yield features.array[start : start + _BLOCK_ROWS].astype("<f4")


def _embeddings_npy(features: "FeatureSet", file: IO[bytes]) -> None:
    header = {"descr": "<f4", "fortran_order": False, "shape": features.array.shape}
    np.lib.format.write_array_header_1_0(file, header)
    for block in _blocks(features):
        file.write(block.data)


def _status_npy(features: "FeatureSet", file: IO[bytes]) -> None:
    np.lib.format.write_array(file, features.status, version=(1, 0), allow_pickle=False)


def _embeddings_parquet(features: "FeatureSet", file: IO[bytes]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        {"image_id": pa.string(), "status": pa.uint8(), "embedding": pa.list_(pa.float32(), features.dim)}
    )
    ids, status, start = features.image_ids, features.status, 0
    with pq.ParquetWriter(file, schema) as writer:
        for block in _blocks(features):
            stop = start + len(block)
            embedding = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), features.dim)
            columns = [pa.array(ids[start:stop], pa.string()), pa.array(status[start:stop]), embedding]
            writer.write_table(pa.table(columns, schema=schema))
            start = stop


def _failures_csv(features: "FeatureSet", file: IO[bytes]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["row", "image_id", "uri", "code", "detail"])
    if failures := features.failures():
        manifest = features.bank.manifest()
        ids, uris = manifest.image_ids, manifest.uris
        for failure in failures:
            cells = (ids[failure.row], uris[failure.row], failure.code, failure.detail)
            writer.writerow([failure.row, *map(spreadsheet_safe, cells)])
    file.write(text.getvalue().encode("utf-8", "surrogatepass"))


def _feature_json(features: "FeatureSet", file: IO[bytes]) -> None:
    body = {"feature": features.name, "title": features.title, "key": features.key.to_dict()}
    file.write(json.dumps(body, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")


def spreadsheet_safe(cell: str) -> str:
    """Return a cell with a leading quote if a spreadsheet would take it for a formula."""
    return f"'{cell}" if cell.startswith(_RISKY) else cell
