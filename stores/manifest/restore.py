"""Restoring the manifest that a bank keeps."""

from typing import TYPE_CHECKING

from stores.backends import files, locks
from stores.bank import documents
from stores.bank.layout import MANIFEST, RUN_DOCUMENT, SIDE
from stores.bank.reader import Bank

if TYPE_CHECKING:
    from stores.manifest.manifest import Manifest


def restore_manifest(bank: Bank, manifest: "Manifest") -> Bank:
    """Write a bank's damaged or missing manifest again, if the given one is what the bank was made with.

    The same rows may be written as different bytes (by a moved bank, or another version of a library); the
    run document then gets the new digest.

    Returns:
        The bank, opened again if anything changed.
    """
    stored = files.digest(bank.path / MANIFEST)
    if (stored is not None and stored[1] == bank.files[MANIFEST]) or manifest.digest != bank.manifest_digest:
        return bank
    with locks.held(bank.path / SIDE / "lock"):
        manifest.write(bank.path / MANIFEST)
        stored = files.digest(bank.path / MANIFEST)
        if stored is not None and stored[1] != bank.files[MANIFEST]:
            body = documents.read(bank.path / RUN_DOCUMENT)
            body["files"][MANIFEST] = stored[1]
            temp = files.temporary(bank.path / SIDE / "tmp", "bank")
            documents.replace(bank.path / RUN_DOCUMENT, body, temp)
    return Bank.open(bank.path)
