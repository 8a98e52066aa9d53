"""The manifest of a bank, and its label columns: read and checked against the bank's run document."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stores.backends import files
from stores.backends.location import Place
from stores.bank import document_schemas, documents, integrity
from stores.bank.layout import COLUMNS, MANIFEST, SIDE, VOCABULARIES
from stores.errors import BankError

if TYPE_CHECKING:
    from stores.manifest.manifest import Manifest

#: Bytes that precede the numbers of an .npy file at most.
_HEADER = 1 << 14
#: First and last bytes of every Parquet file.
_PARQUET = b"PAR1"


def read_manifest(root: Place, rows: int, sha256: str) -> "Manifest":
    """Read a bank's manifest (imports pyarrow).

    Args:
        root: of the bank.
        rows: that it must have.
        sha256: of its file, by the run document.

    Raises:
        BankError: missing or damaged.
    """
    from stores.manifest.manifest import Manifest

    path = manifest_file(root, sha256)
    manifest = Manifest.read(path, allow_outside=True)
    if len(manifest) != rows:
        raise _damaged(path, root)
    return manifest


def manifest_file(root: Place, sha256: str) -> Place:
    """Return the path of a bank's manifest, whose content is compared with its digest.

    Args:
        root: of the bank.
        sha256: of the file, by the run document.

    Raises:
        BankError: missing or damaged.
    """
    path = root / MANIFEST
    state = files.stat_if_there(path)
    if state is None:
        raise _damaged(path, root, "missing")
    if not _is_parquet(path, state.st_size) or (files.digest(path) or (0, ""))[1] != sha256:
        raise _damaged(path, root)
    return path


def _is_parquet(path: Place, size: int) -> bool:
    """Return whether a file begins and ends as Parquet; any other may be large, and need not be read."""
    width = len(_PARQUET)
    return size >= width and {files.read_range(path, start, width) for start in (0, size - width)} == {
        _PARQUET
    }


def read_column(
    root: Place, rows: int, sha256s: Mapping[str, str], name: str
) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Read a categorical column, without reading the manifest.

    Args:
        root, rows: of the bank.
        sha256s: of its side files, by relative path, as the run document has them.
        name: `label`, `split` or `group`.

    Returns:
        Codes int32 [rows] (-1 where missing), and the vocabulary they index, sorted by bytes.

    Raises:
        BankError: another name, or a damaged file.
    """
    if name not in COLUMNS:
        raise BankError(
            f"column {name!r}",
            f"The bank keeps {', '.join(COLUMNS)} at hand",
            "read others from `Bank.manifest()`",
        )
    folder = f"{SIDE}/columns"
    path = root / folder / VOCABULARIES
    data = _side_file(root, f"{folder}/{VOCABULARIES}", documents.MAX_BYTES, sha256s)
    vocabularies = document_schemas.check(documents.decode(data, path), document_schemas.VOCABULARY, path)
    names = vocabularies["columns"][name]
    relative = f"{folder}/{name}.npy"
    # Codes take four bytes a row behind a header.
    codes = _codes(_side_file(root, relative, 4 * rows + _HEADER, sha256s), rows, len(names))
    if codes is None:
        raise _damaged(root / relative, root)
    return codes, names


def _side_file(root: Place, relative: str, most: int, sha256s: Mapping[str, str]) -> bytes:
    """Read a file of at most so many bytes that the run document names, checked against its digest."""
    path = root / relative
    state = files.stat_if_there(path)
    if state is not None and state.st_size > most:
        raise _damaged(path, root)
    data = files.read_if_there(path)
    if data is None or integrity.promise_of(data)["sha256"] != sha256s[relative]:
        raise _damaged(path, root, "missing" if data is None else "damaged")
    return data


def _codes(data: bytes, rows: int, names: int) -> npt.NDArray[np.int32] | None:
    """Read the codes in a column's .npy file; return None if it holds anything else."""
    stream = io.BytesIO(data)
    try:
        np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    except (ValueError, SyntaxError, TypeError, OverflowError, MemoryError, RecursionError):
        return None  # the header is a Python literal, which fails in any of these ways
    start = stream.tell()
    if shape != (rows,) or dtype != np.dtype("<i4") or len(data) - start != 4 * rows:
        return None
    codes = np.frombuffer(data, "<i4", offset=start).astype(np.int32)
    return codes if codes.min() >= -1 and codes.max() < names else None


def _damaged(path: Place, bank: Place, how: str = "damaged") -> BankError:
    return BankError(
        f"{path} is {how}",
        "It must be what the run document promises",
        manifest_remedy(bank) if path.name == MANIFEST else f"run `embank bank repair {bank}`",
    )


def manifest_remedy(bank: Place) -> str:
    """Return the remedy for a lost manifest, whose image ids are nowhere else in the bank."""
    return (
        f"run `embank bank repair {bank} --manifest MANIFEST` with the manifest that the bank was made with, "
        "or the copy of it in an export"
    )
