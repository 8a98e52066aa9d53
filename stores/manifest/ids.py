"""The names of images: an `image_id` is the image's uri, unless the manifest names another.

A uri is unique, and stays the same when files are added beside it. Hence all ways of listing the same files
under the same root (from a folder, a table or the layout of a data set) give the same ids; where a data set
has names of its own, these are the ids.

Earlier versions named the images of a folder by their uri without suffix. Banks made by them keep these ids:
`with_ids_of` recognises their images.
"""

import dataclasses
from typing import TYPE_CHECKING

from stores.errors import BankError
from stores.manifest.uri_policy import shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from stores.bank.reader import Bank
    from stores.manifest.manifest import Manifest


def with_ids_of(bank: "Bank | None", manifest: "Manifest") -> tuple["Manifest", str]:
    """Name the images of a manifest as a bank does, if they are the bank's images in all but their ids.

    They are if both list the same uris in the same order, with the same digests or none.

    Args:
        bank: None if there is none yet.
        manifest: the manifest to rename.

    Returns:
        (the manifest with the bank's ids, and a sentence that says so; or the unchanged manifest, and "").
    """
    if bank is None or bank.image_digest == manifest.image_digest or bank.rows != len(manifest):
        return manifest, ""
    named = with_former_ids(manifest, bank.image_digest)
    if named is manifest:
        try:
            named = _named_as(bank.manifest(), manifest)
        except BankError:  # a damaged manifest is reported by the code that needs it
            return manifest, ""
    if named.image_digest != bank.image_digest:
        return manifest, ""
    new, old = next(
        pair
        for column in ("image_id", "uri")
        for pair in zip(manifest.column(column), named.column(column), strict=True)
        if pair[0] != pair[1]
    )
    return named, (
        f"The manifest names the bank's images otherwise (such as {shown(new)}, in the bank {shown(old)}): "
        "they are matched by uri, and keep the bank's ids"
    )


def with_former_ids(manifest: "Manifest", image_digest: str) -> "Manifest":
    """Name the images of a folder as earlier versions did, if that gives a bank's image digest.

    Args:
        manifest: the manifest to rename.
        image_digest: of the bank's images.

    Returns:
        The manifest with this `image_digest`; the given manifest if neither way of naming leads to it.
    """
    if manifest.image_digest == image_digest:
        return manifest
    former = _renamed(manifest, former_folder_ids(manifest.uris))
    return former if former.image_digest == image_digest else manifest


def former_folder_ids(uris: "Sequence[str]") -> list[str]:
    """Name the images of a folder as earlier versions did: by uri without suffix, unless two names clash."""
    ids = [uri[: uri.rindex(".")] if "." in uri else uri for uri in uris]
    while True:
        counts: dict[str, int] = {}
        for name in ids:
            counts[name] = counts.get(name, 0) + 1
        clashes = [counts[name] > 1 and name != uri for name, uri in zip(ids, uris, strict=True)]
        if not any(clashes):
            return ids
        # A name that regains its suffix may equal another name without one: hence the loop.
        ids = [uri if clash else name for clash, name, uri in zip(clashes, ids, uris, strict=True)]


def _named_as(model: "Manifest", manifest: "Manifest") -> "Manifest":
    """Return the manifest with the ids and uris of a model manifest, if both list the same files."""
    from stores.manifest.columns import plain_uris

    same_files = plain_uris(model.table["uri"]).equals(plain_uris(manifest.table["uri"]))
    return _renamed(manifest, model.image_ids, model.uris) if same_files else manifest


def _renamed(manifest: "Manifest", ids: "Sequence[str]", uris: "Sequence[str] | None" = None) -> "Manifest":
    import pyarrow as pa

    def rename(table: pa.Table) -> pa.Table:
        for name, cells in (("image_id", ids), ("uri", uris)):
            if cells is not None:
                column = pa.chunked_array([pa.array(cells, pa.large_string())])
                table = table.set_column(table.column_names.index(name), name, column)
        return table

    before = None if manifest.before is None else rename(manifest.before)
    return dataclasses.replace(manifest, table=rename(manifest.table), before=before)
