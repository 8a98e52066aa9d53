"""Removal of a feature from a bank, so that a kill at any moment leaves a sound bank.

The order is: the seal, then the feature's entry in the bank's metadata, then the markers, then the data that
these described, and last the key. Until then it is an unfinished feature, which `embank embed` would finish
and a second removal removes. Records stay, since they describe what was once evaluated;
features that another bank shares by hard links stay there.
"""

from dataclasses import dataclass

from stores.backends import files, locks
from stores.backends.location import Place, place
from stores.bank import caches
from stores.bank.layout import SIDE, ZARR, is_feature_name
from stores.bank.names import Roster
from stores.bank.reader import Bank
from stores.bank.seal import definition, feature_names, key_path, seal_path, write_root_metadata
from stores.json_types import JsonObject

_LOCKS = ("lock", "commit.lock", "leases")


@dataclass(frozen=True)
class Removable:
    """A feature that is to be removed.

    Attributes:
        root: of its bank.
        feature: full name.
        title: the name shown to users.
        bytes: of its chunk files, as far as they are there.
        sealed: whether it is finished.
    """

    root: Place
    feature: str
    title: str
    bytes: int
    sealed: bool


def removable(bank: Place | str, query: str) -> Removable:
    """Find the feature to remove: sealed, begun, damaged, or what an interrupted removal left.

    Args:
        query: as `Bank.features` takes it; of several features that it fits none is chosen.

    Raises:
        BankError: no bank there, none such, or several such.
    """
    root = place(bank)
    if not files.names(root / SIDE):
        Bank.open(root)  # raises: there is no bank
    names = {*feature_names(root), *(name for name in files.names(root) if is_feature_name(name))}
    names |= {name for name in files.names(root / SIDE) if is_feature_name(name) and _is_left(root, name)}
    roster = Roster.of(root, sorted(names))
    feature = roster.one(query)
    sealed = files.stat_if_there(seal_path(root, feature)) is not None
    return Removable(root, feature, roster.title(feature), _size(root / feature), sealed)


def _size(folder: Place) -> int:
    return sum(file.size for file in files.inventory(folder))


def _is_left(root: Place, feature: str) -> bool:
    return any(name not in _LOCKS for name in files.names(root / SIDE / feature))


def remove(removable_feature: Removable) -> JsonObject:
    """Remove a feature with all that belongs to it alone; run again, it finishes what was interrupted.

    Returns:
        `{bank, feature, title, bytes, sealed}`: bytes of the chunk files that went.

    Raises:
        Refused: the feature is being written. MachineFault: I/O error; run again.
    """
    root, feature = removable_feature.root, removable_feature.feature
    side = root / SIDE / feature
    files.make_directory(side)
    lock = locks.coordinate(side / "lock", f"Feature {feature} of {root}")
    try:
        with locks.held(side / "commit.lock"):
            _remove(root, feature)
    finally:
        lock.unsign()
        lock.release()
    return {
        "bank": str(root),
        "feature": feature,
        "title": removable_feature.title,
        "bytes": removable_feature.bytes,
        "sealed": removable_feature.sealed,
    }


def _remove(root: Place, feature: str) -> None:
    side, layout = root / SIDE / feature, definition(root, feature)
    files.make_directory(root / SIDE / "tmp")
    _unseal(root, feature)
    files.remove_tree(side / "markers")
    _remove_data(root / feature)
    others = [entry.key for entry in Roster.of(root).entries if entry.feature != feature]
    key = None if layout is None else layout.key
    caches.remove_of_feature(root, feature, key, [other for other in others if other is not None])
    for folder in ("tmp", "quarantine"):
        _remove_owned(root / SIDE / folder, feature)
    last = (*_LOCKS, "key.json")
    files.each(root, files.remove, [side / name for name in files.names(side) if name not in last])
    files.remove(key_path(root, feature))  # last: without it the remains could not be identified
    if files.stat_if_there(side) is not None:
        files.sync_directory(side)


def _unseal(root: Place, feature: str) -> None:
    seal = files.read_if_there(seal_path(root, feature))
    if seal is not None:
        caches.remove_copy(seal)
    with locks.held(root / SIDE / "lock"):
        files.remove(seal_path(root, feature))
        files.sync_directory(root / SIDE / feature)
        write_root_metadata(root)


def _remove_data(folder: Place) -> None:
    """Remove the chunks, then the metadata that describe them."""
    inside, folders = files.tree(folder)
    files.each(folder, files.remove, [path for path in inside if path.name != ZARR])
    files.each(folder, files.remove, [path for path in inside if path.name == ZARR])
    for inner in folders:
        files.remove_directory(inner)
    if folders:
        files.remove_link(folder)
        files.sync_directory(folder.parent)


def _remove_owned(folder: Place, feature: str) -> None:
    """Remove temporaries, and files set aside, whose names begin with their owner's."""
    for name in files.names(folder):
        owner = name.rpartition(files.TEMP_MARK)[0]
        if owner in (feature, f"{feature}.stamps"):
            files.remove_tree(folder / name)
            files.remove(folder / name)
