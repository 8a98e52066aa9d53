"""Counting a feature's rows and bytes, from its documents alone: no embedding is read."""

from typing import Any, NotRequired, TypedDict

from stores.backends import files
from stores.backends.location import Place
from stores.bank import documents
from stores.bank.feature_info import FeatureInfo
from stores.bank.keys import FailedRow
from stores.bank.layout import SIDE, FeatureLayout
from stores.bank.markers import Marker, read_marker
from stores.bank.seal import Seal, definition, read_feature, read_seal
from stores.json_types import JsonObject


def summarise(root: Place, name: str, title: str) -> FeatureInfo:
    """Count a feature, sealed or not.

    Args:
        root: of its bank.
        name: its full name.
        title: the name shown to users.

    Raises:
        BankError: neither its key nor its seal is whole, or a marker is damaged.
    """
    layout = definition(root, name) or read_feature(root, name)
    sealed = read_seal(root, name)
    if sealed is not None:
        return sealed_info(layout, sealed[0], title)
    done = failed = waiting = size = 0
    for marker in markers(root, name):
        done += marker["stop"] - marker["start"]
        failed += len(marker["failures"])
        waiting += sum("pending" in failure for failure in marker["failures"])
        size += sum(promise["size"] for promise in marker["files"].values())
    rows = layout.grid.rows
    return FeatureInfo(
        name=layout.name,
        key=layout.key,
        dim=layout.dim,
        dtype=layout.key.dtype,
        rows=rows,
        ok=done - failed,
        failed=failed - waiting,
        pending=rows - done + waiting,
        bytes=size,
        sealed=False,
        title=title,
    )


def sealed_info(layout: FeatureLayout, seal: Seal, title: str) -> FeatureInfo:
    """Take the counts of a sealed feature from its seal; its size follows from the layout."""
    return FeatureInfo(
        name=layout.name,
        key=layout.key,
        dim=layout.dim,
        dtype=layout.key.dtype,
        rows=seal.rows,
        ok=seal.ok,
        failed=seal.failed,
        pending=seal.pending,
        bytes=sum(promise["size"] for path, promise in seal.files.items() if "/c/" in path),
        sealed=True,
        title=title,
    )


class FeatureDescription(TypedDict):
    """All that a bank knows about a feature; `Bank.describe` explains the fields."""

    name: str
    title: str
    key: JsonObject
    counts: dict[str, int | bool]
    provenance: dict[str, Any] | None
    certificate: dict[str, Any] | None
    failures: NotRequired[list[FailedRow]]


def describe(root: Place, name: str, title: str, *, failures: bool = False) -> FeatureDescription:
    """Gather all that a bank knows about a feature: see `Bank.describe`."""
    info, side = summarise(root, name, title), root / SIDE / name
    counted = ("rows", "ok", "failed", "pending", "dim", "bytes", "sealed")
    body: FeatureDescription = {
        "name": name,
        "title": title,
        "key": info.key.to_dict(),
        "counts": {field: getattr(info, field) for field in counted},
        "provenance": documents.read_if_there(side / "provenance.json"),
        "certificate": documents.read_if_there(side / "certificate.json"),
    }
    if failures:
        body["failures"] = [failure for marker in markers(root, name) for failure in marker["failures"]]
    return body


def markers(root: Place, name: str) -> list[Marker]:
    """Read a feature's markers. Raises BankError for a damaged one."""
    folder = root / SIDE / name / "markers"
    paths = [folder / entry for entry in files.names(folder)]
    return files.each(root, read_marker, paths)
