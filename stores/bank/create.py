"""The files of a new bank: manifest, label columns, and the run document that lists their digests."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from stores.backends import files
from stores.backends.location import Place
from stores.bank import documents, integrity
from stores.bank.keys import SCHEMA_VERSION
from stores.bank.layout import COLUMNS, MANIFEST, RUN_DOCUMENT, SIDE, VOCABULARIES
from stores.bank.seal import write_root_metadata
from stores.json_types import JsonObject

if TYPE_CHECKING:
    from stores.manifest.manifest import Manifest


def create_empty(path: Place, manifest: "Manifest", chunk_rows: int) -> None:
    """Write all files of a bank without features; the run document last, since it marks the bank as complete.

    What an interrupted creation left is removed first.

    Raises:
        BankError: no permission. MachineFault: disk full or I/O error; run again.
    """
    for name in files.names(path):
        if name.startswith(f".{MANIFEST}."):
            files.remove(path / name)
    for name in files.names(path / SIDE / "tmp"):
        files.remove(path / SIDE / "tmp" / name)
    for name in ("tmp", "columns", "quarantine"):
        files.make_directory(path / SIDE / name)
    files.make_directory(path / "records")
    manifest.write(path / MANIFEST)
    files.sync_directory(path)
    contents = {MANIFEST: files.read(path / MANIFEST)}
    for relative, data in column_files(manifest).items():
        files.replace(path / relative, data, _temporary(path))
        contents[relative] = data
    write_root_metadata(path)
    documents.replace(path / RUN_DOCUMENT, run_document(manifest, chunk_rows, contents), _temporary(path))


def run_document(manifest: "Manifest", chunk_rows: int, contents: Mapping[str, bytes]) -> JsonObject:
    """Make the body of embank.json: what the bank is made of, and the digests of its immutable side files."""
    return {
        "schema": SCHEMA_VERSION,
        "rows": len(manifest),
        "chunk_rows": chunk_rows,
        "image_digest": manifest.image_digest,
        "manifest_digest": manifest.digest,
        "files": {path: integrity.promise_of(data)["sha256"] for path, data in contents.items()},
    }


def column_files(manifest: "Manifest") -> dict[str, bytes]:
    """Encode the categorical columns, by relative path: codes as .npy, vocabularies as sealed JSON."""
    contents, vocabularies = {}, {}
    for name in COLUMNS:
        codes, vocabularies[name] = manifest.codes(name)
        buffer = io.BytesIO()
        np.lib.format.write_array(buffer, codes.astype("<i4"), version=(1, 0), allow_pickle=False)
        contents[f"{SIDE}/columns/{name}.npy"] = buffer.getvalue()
    contents[f"{SIDE}/columns/{VOCABULARIES}"] = documents.encode(
        {"schema": SCHEMA_VERSION, "columns": vocabularies}
    )
    return contents


def _temporary(path: Place) -> Place:
    return files.temporary(path / SIDE / "tmp", "bank")
