"""Caches of a bank, which can be made again: views, occlusion maps, reconstructions, statistics, copies.

Nothing here is covered by a seal, so all of it may go at any time: what is missing is made or fetched again.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from stores.backends import files
from stores.backends.location import Place, place
from stores.backends.private import cache_folder
from stores.bank import documents
from stores.bank.keys import FeatureKey
from stores.bank.layout import RUN_DOCUMENT, SIDE
from stores.errors import BankError, Refused
from stores.json_types import JsonObject

VIEWS, MAPS, STATISTICS, BUCKETS = "views", "saliency", "statistics", "buckets"
RECONSTRUCTIONS = "reconstructions"
#: Folders of a bank's side folder that hold caches and nothing else.
FOLDERS = (VIEWS, MAPS, RECONSTRUCTIONS, STATISTICS)
_COPIES = "banks"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?", re.IGNORECASE)
_LONGEST_HEAD = 1 << 20


class PruneReport(TypedDict):
    """Report of a removal of caches; `prune` explains the fields."""

    bank: str
    limit: int
    kept_bytes: int
    removed_bytes: int
    removed: dict[str, dict[str, int]]
    cache: Path | None


@dataclass(frozen=True)
class Cached:
    """One cached file, or copy of a feature.

    Attributes:
        kind: `views`, `saliency`, `reconstructions`, `statistics` or `buckets`.
        path: a file; for `buckets` the folder with the copy of one sealed feature.
        bytes: its size.
        used: when it was last written or read, seconds since 1970, as far as the file system says.
    """

    kind: str
    path: Place
    bytes: int
    used: float


def size(text: str) -> int:
    """Parse a size such as `10GB`, `500 MiB` or `0` into bytes.

    Raises:
        Refused: it is not a size.
    """
    parts = _SIZE.fullmatch(text.strip())
    if parts is None:
        raise Refused(
            f"size {text!r}",
            "It is a number with KB, MB, GB, TB (or KiB, MiB, ...)",
            "write for instance 10GB",
        )
    number, letter, binary = parts.groups()
    power = " KMGT".index(letter.upper()) if letter else 0
    return int(float(number) * (1024 if binary else 1000) ** power)


def prune(bank: Place | str, limit: int = 0) -> PruneReport:
    """Remove caches of a bank, and copies of features in buckets, the least recently used first.

    Args:
        bank: its directory or URL.
        limit: bytes that may stay, of all kinds together.

    Returns:
        `{bank, limit, kept_bytes, removed_bytes, removed: {kind: {files, bytes}}, cache}`: `cache` is the
        folder of the copies, or None.

    Raises:
        BankError: no bank there. Refused: a negative limit. MachineFault: I/O error.
    """
    root = place(bank)
    if files.stat_if_there(root / RUN_DOCUMENT) is None and not files.names(root / SIDE):
        raise BankError(
            f"{root} is not a bank (it has no {RUN_DOCUMENT})", "Caches lie in a bank", "check the path"
        )
    if limit < 0:
        raise Refused(f"{limit} bytes", "A size is not negative", "give 0 to remove all caches")
    latest_first = sorted([*_of_bank(root), *_copies()], key=lambda cached: cached.used, reverse=True)
    staying, removed = 0, {kind: {"files": 0, "bytes": 0} for kind in (*FOLDERS, BUCKETS)}
    gone: list[Cached] = []
    for cached in latest_first:
        if limit and not gone and staying + cached.bytes <= limit:
            staying += cached.bytes
            continue
        gone.append(cached)
        removed[cached.kind]["files"] += 1
        removed[cached.kind]["bytes"] += cached.bytes
    _discard(root, reversed(gone))
    return {
        "bank": str(root),
        "limit": limit,
        "kept_bytes": staying,
        "removed_bytes": sum(cached.bytes for cached in gone),
        "removed": removed,
        "cache": cache_folder(),
    }


def _discard(root: Place, gone: Iterator[Cached]) -> None:
    """Remove, the least recently used first. Folders stay: a run may be about to write into one."""
    of_bank = []
    for cached in gone:
        if cached.kind == BUCKETS:
            shutil.rmtree(str(cached.path), ignore_errors=True)
        else:
            of_bank.append(cached.path)
    files.each(root, files.remove, of_bank)


def _of_bank(root: Place) -> Iterator[Cached]:
    for kind in FOLDERS:
        for file in files.inventory(root / SIDE / kind):
            yield Cached(kind, file.path, file.size, file.used)


def _copies() -> Iterator[Cached]:
    """List the copies of sealed features that lie in buckets, one folder each."""
    home = cache_folder()
    if home is None:
        return
    for name in files.names(home / _COPIES):
        if _DIGEST.fullmatch(name):
            copies = files.inventory(home / _COPIES / name)
            used = max((file.used for file in copies), default=0.0)
            yield Cached(BUCKETS, home / _COPIES / name, sum(file.size for file in copies), used)


def remove_copy(seal: bytes) -> None:
    """Remove this machine's copy of a sealed feature, by the bytes of its seal."""
    if (home := cache_folder()) is not None:
        shutil.rmtree(home / _COPIES / hashlib.sha256(seal).hexdigest(), ignore_errors=True)


def remove_of_feature(
    root: Place, feature: str, key: FeatureKey | None, others: Collection[FeatureKey]
) -> None:
    """Remove what is cached of one feature of a bank.

    Args:
        key: of the feature; None if it is lost, then only what lies under its name goes.
        others: keys of the features that stay. Occlusion maps and reconstructions belong to weights, which
            they may share.
    """
    files.remove_tree(root / SIDE / VIEWS / feature)
    if key is None:
        return

    def is_statistic(about: Mapping[str, Any]) -> bool:
        return about.get("feature") == key.digest

    def is_of_network(about: Mapping[str, Any]) -> bool:
        return _network_of(about) == _network(key)

    _remove_where(root / SIDE / STATISTICS, is_statistic)
    if all(_network(other) != _network(key) for other in others):
        for kind in (MAPS, RECONSTRUCTIONS):
            for name in files.names(root / SIDE / kind):
                _remove_where(root / SIDE / kind / name, is_of_network)


def _network(key: FeatureKey) -> tuple[str, str, str]:
    return key.weights, key.architecture, key.layer


def _network_of(about: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    return about.get("weights"), about.get("architecture"), about.get("layer")


def _remove_where(folder: Place, accept: Callable[[Mapping[str, Any]], bool]) -> None:
    paths = [folder / name for name in files.names(folder) if name.endswith(".arrays")]
    about = files.each(folder, _key_of, paths)
    gone = [path for path, key in zip(paths, about, strict=True) if key and accept(key)]
    files.each(folder, files.remove, gone)
    files.remove_directory(folder)


def _key_of(path: Place) -> "JsonObject | None":
    """Read the key of an array file; None if it is damaged."""
    try:
        start = files.read_range(path, 0, _LONGEST_HEAD)
        head = documents.decode(start.partition(b"\n")[0] + b"\n", path)
    except (BankError, json.JSONDecodeError):
        return None
    key = head.get("key")
    return key if isinstance(key, dict) else None
