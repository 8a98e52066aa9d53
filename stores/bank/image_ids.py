"""The image ids of a bank without its manifest, whose library takes longer to import than many an evaluation.

They are read from the manifest once and cached beside the statistics, under the digest of the very file that
they came from. Such a copy has its own checksum and may be deleted at any time.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stores.backends import files
from stores.backends.location import Place
from stores.bank import array_cache
from stores.bank.documents import BrokenDocument
from stores.bank.layout import MANIFEST
from stores.parquet import Texts

if TYPE_CHECKING:
    from stores.bank.reader import Bank

#: Digest of a manifest -> its ids, for the bank that was used last, until they are stored.
_read: dict[str, Texts] = {}


def image_ids(bank: "Bank") -> Texts:
    """Return the id of every row; changes nothing in the bank.

    Raises:
        BankError: there is no copy, and the manifest is damaged.
    """
    digest = bank.files[MANIFEST]
    if digest in _read:
        return _read[digest]
    try:
        arrays = array_cache.read(bank.path, _path(digest), _key(digest))
    except BrokenDocument:
        arrays = None
    if arrays is not None and _fits(arrays, bank.rows):
        return Texts(arrays["data"], arrays["starts"])
    texts = _from_manifest(bank)
    _read.clear()
    _read[digest] = texts
    return texts


def _from_manifest(bank: "Bank") -> Texts:
    """Read the one column, without the code that checks a manifest, such as pandas."""
    path = bank.manifest_file()
    import io

    from pyarrow.parquet import ParquetFile

    table = ParquetFile(io.BytesIO(files.read(path))).read(columns=["image_id"])
    return Texts.of(table.column(0).to_pylist())


def keep_image_ids(root: Place, digest: str) -> None:
    """Keep a copy of ids that were read from a manifest; in memory only where the bank cannot be written to.

    Args:
        digest: SHA-256 of the manifest's file.
    """
    texts = _read.pop(digest, None)
    if texts is not None:
        array_cache.keep(root, _path(digest), _key(digest), {"data": texts.data, "starts": texts.starts})


def _path(digest: str) -> str:
    return f"statistics/image-ids-{digest[:16]}.arrays"


def _key(digest: str) -> dict[str, str]:
    return {"image_ids_of": digest}


def _fits(arrays: dict[str, npt.NDArray[np.generic]], rows: int) -> bool:
    """Return whether a copy has so many texts, each within the data."""
    data, starts = arrays.get("data"), arrays.get("starts")
    if data is None or starts is None or starts.shape != (rows + 1,) or starts.dtype != np.int64:
        return False
    ends = int(starts[0]) == 0 and int(starts[-1]) == data.size
    return ends and data.dtype == np.uint8 and data.ndim == 1 and bool((np.diff(starts) >= 4).all())
