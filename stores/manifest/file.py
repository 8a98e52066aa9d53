"""The file in which a bank keeps its manifest."""

from typing import TYPE_CHECKING

from stores.backends import files, locks
from stores.bank import documents
from stores.bank.layout import MANIFEST, RUN_DOCUMENT, SIDE
from stores.bank.reader import Bank

if TYPE_CHECKING:
    from stores.manifest.manifest import Manifest


def restore_manifest(bank: Bank, manifest: "Manifest") -> Bank:
    """Put back a damaged or missing manifest, if this is the one the bank was made with.

    The same rows may make other bytes (a moved bank, another library); the run document then takes their
    digest.

    Returns:
        The bank, opened again if anything changed.
    """
    found = files.digest(bank.path / MANIFEST)
    if (found is not None and found[1] == bank.files[MANIFEST]) or manifest.digest != bank.manifest_digest:
        return bank
    with locks.held(bank.path / SIDE / "lock"):
        manifest.write(bank.path / MANIFEST)
        found = files.digest(bank.path / MANIFEST)
        if found is not None and found[1] != bank.files[MANIFEST]:
            body = documents.read(bank.path / RUN_DOCUMENT)
            body["files"][MANIFEST] = found[1]
            temp = files.temporary(bank.path / SIDE / "tmp", "bank")
            documents.replace(bank.path / RUN_DOCUMENT, body, temp)
    return Bank.open(bank.path)
