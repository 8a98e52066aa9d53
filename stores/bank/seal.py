"""The seal of a finished feature: the digest of every file that an evaluation may read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stores.backends import files
from stores.backends.location import Place
from stores.bank import document_schemas, documents
from stores.bank.integrity import Promises
from stores.bank.layout import (
    SIDE,
    ZARR,
    FeatureLayout,
    feature_from_document,
    is_feature_name,
    root_metadata,
)
from stores.bank.links import refuse_feature_links
from stores.errors import BankError
from stores.json_types import JsonObject


@dataclass(frozen=True)
class Seal:
    """Body of a seal.

    Attributes:
        feature: name of the feature.
        rows, ok, failed, pending: counts; ok + failed + pending = rows. Pending rows were not embedded for
            want of something that is not the image's fault.
        files: relative path -> {"size", "sha256"} of all chunk files, metadata, markers and the key.
        definition: body of key.json.
        manifest_digest: of the bank.
    """

    feature: str
    rows: int
    ok: int
    failed: int
    files: Promises
    definition: Mapping[str, Any]
    manifest_digest: str
    pending: int = 0

    def to_dict(self) -> JsonObject:
        """Make the body of seal.json."""
        body = {
            "schema": self.definition["schema"],
            "feature": self.definition["digest"],
            "name": self.feature,
            "rows": self.rows,
            "ok": self.ok,
            "failed": self.failed,
            "files": dict(self.files),
            "definition": dict(self.definition),
            "manifest_digest": self.manifest_digest,
        }
        return {**body, "pending": self.pending} if self.pending else body

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> "Seal":
        """Read the seal that `to_dict` wrote."""
        fields = ("rows", "ok", "failed", "files", "definition", "manifest_digest")
        named = {field: body[field] for field in fields}
        return cls(feature=body["name"], pending=body.get("pending", 0), **named)


def seal_file(feature: str) -> str:
    """Return the relative path of a feature's seal."""
    return f"{SIDE}/{feature}/seal.json"


def seal_path(root: Place, feature: str) -> Place:
    return root / seal_file(feature)


def key_path(root: Place, feature: str) -> Place:
    return root / SIDE / feature / "key.json"


def read_seal(root: Place, feature: str) -> tuple[Seal, bytes] | None:
    """Read a feature's seal and its bytes; None if it is not sealed. Raises BankError if it is damaged."""
    refuse_feature_links(root, feature)
    path = seal_path(root, feature)
    data = files.read_if_there(path, documents.MAX_BYTES)
    if data is None:
        return None
    seal = Seal.from_dict(document_schemas.check(documents.decode(data, path), document_schemas.SEAL, path))
    layout = feature_from_document(root, seal.definition)
    # Counted before they are listed: a document of a line can state chunks without number.
    counted = len(seal.files) == layout.sealed_count
    if seal.feature != feature or not counted or seal.files.keys() != layout.sealed_files():
        raise misplaced(path, feature)
    return seal, data


def read_feature(root: Place, feature: str) -> FeatureLayout:
    """Read a feature's layout from its key.json. Raises BankError if that is lost, damaged or another's."""
    refuse_feature_links(root, feature)
    path = key_path(root, feature)
    layout = feature_from_document(
        root, document_schemas.check(documents.read(path), document_schemas.KEY, path)
    )
    if layout.name != feature:
        raise misplaced(path, feature)
    return layout


def misplaced(path: Place, feature: str) -> BankError:
    """Return the error for an intact document that belongs to another feature."""
    return BankError(
        f"{path} does not belong to {feature}",
        "A feature's documents carry its own key",
        "run `embank bank repair` on the bank",
    )


def feature_names(root: Place) -> list[str]:
    """List the names of all features of a bank, begun or sealed, undamaged or not."""
    return [name for name in files.names(root / SIDE) if is_feature_name(name) and _is_begun(root, name)]


def _is_begun(root: Place, feature: str) -> bool:
    """Return whether there is more than the folder and the lock of a run that died at once."""
    documented = any(files.stat_if_there(path(root, feature)) is not None for path in (key_path, seal_path))
    return documented or bool(files.names(root / SIDE / feature / "markers"))


def write_root_metadata(root: Place) -> None:
    """Rewrite the bank's zarr.json if it does not match the finished features. Under the bank's lock."""
    for name in files.names(root / SIDE / "tmp"):
        if name.rpartition(files.TEMP_MARK)[0] == "bank":  # Left by a process that died holding the lock.
            files.remove(root / SIDE / "tmp" / name)
    wanted = expected_root_metadata(root)
    if files.read_if_there(root / ZARR) != wanted:
        files.replace(root / ZARR, wanted, files.temporary(root / SIDE / "tmp", "bank"))


def expected_root_metadata(root: Place) -> bytes:
    """Encode the bank's zarr.json, from the sealed features.

    A feature counts if its seal is there, even damaged: what it is follows from its key as well.
    """
    layouts = []
    for name in feature_names(root):
        if files.stat_if_there(seal_path(root, name)) is not None:
            layout = definition(root, name)
            if layout is not None:
                layouts.append(layout)
    return root_metadata(layouts)


def definition(root: Place, feature: str) -> FeatureLayout | None:
    """Read a feature's layout from its key.json or else from its seal; None if both are damaged."""
    try:
        return read_feature(root, feature)
    except BankError:
        pass
    try:
        sealed = read_seal(root, feature)
    except BankError:
        return None
    layout = None if sealed is None else feature_from_document(root, sealed[0].definition)
    return layout if layout is not None and layout.name == feature else None
