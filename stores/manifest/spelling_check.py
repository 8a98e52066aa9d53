"""What is odd in the text of a manifest: values spelt in two ways, cells never cleaned, measured labels."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from stores.manifest import split_words
from stores.manifest.manifest import Manifest
from stores.manifest.measures import REMEDY, measured
from stores.manifest.problems import Problem
from stores.manifest.spellings import alike, key
from stores.manifest.tidying import tidy
from stores.manifest.uri_policy import shown

_COLUMNS = ("label", "split", "group")
_SHOWN = 5


def text_problems(manifest: Manifest) -> Iterator[Problem]:
    """Look for labels, splits and groups in two spellings, patients who straddle splits so, and the rest."""
    same = {name: alike(manifest.codes(name)[1]) for name in _COLUMNS}
    for name in _COLUMNS:
        yield from _spellings(manifest, name, same[name])
    yield from _across_splits(manifest, same["group"])
    yield from _measurements(manifest)
    tidied = tidy(manifest.table)
    if tidied.changed:
        yield Problem(
            "warning", "unclean_text", len(tidied.notes),
            "The manifest was made by an earlier version, whose text was not cleaned",
            "make it again with `embank manifest table`, and a bank of it with `embank bank relabel`",
            tidied.notes,
        )  # fmt: skip


def _spellings(manifest: Manifest, name: str, groups: list[list[int]]) -> Iterator[Problem]:
    if not groups:
        return
    codes, values = manifest.codes(name)
    rows = np.bincount(codes[codes >= 0], minlength=len(values))
    yield Problem(
        "warning", f"{name}_spelling", len(groups),
        f"{len(groups)} {name}s are spelt in several ways, which differ only in case, leading zeros or a "
        "trailing .0",
        f"give each {name} one spelling in the table; as they are, they count as different ones",
        tuple(
            " = ".join(f"{shown(values[at])} (rows: {rows[at]:,})" for at in places)
            for places in groups[:_SHOWN]
        ),
    )  # fmt: skip


def _across_splits(manifest: Manifest, same: list[list[int]]) -> Iterator[Problem]:
    """Patients who stand in several splits, each time in another spelling."""
    if not same:
        return
    groups, names = manifest.codes("group")
    splits, split_names = manifest.codes("split")
    parts = [split_words.usual(split) or key(split) for split in split_names]
    known = (groups >= 0) & (splits >= 0)
    where: dict[int, set[str]] = defaultdict(set)
    both = groups[known].astype(np.int64) * max(1, len(parts)) + splits[known]
    for pair in np.unique(both).tolist():
        where[pair // len(parts)].add(parts[pair % len(parts)])
    torn = [
        places
        for places in same
        if len(set().union(*(where[at] for at in places))) > 1 and sum(bool(where[at]) for at in places) > 1
    ]
    if not torn:
        return
    yield Problem(
        "warning", "group_spelling_across_splits", len(torn),
        f"{len(torn)} groups stand in more than one split, if those are one that differ only in case, "
        "leading zeros or a trailing .0",
        "give each group one spelling, then split by group: else a model is tested on patients it has seen",
        tuple(
            " = ".join(f"{shown(names[at])} ({', '.join(sorted(where[at])) or 'no split'})" for at in places)
            for places in torn[:_SHOWN]
        ),
    )  # fmt: skip


def _measurements(manifest: Manifest) -> Iterator[Problem]:
    codes, names = manifest.codes("label")
    known: Any = codes[codes >= 0]
    if measured(names, len(known)):
        yield Problem(
            "warning", "label_measured", len(names),
            f"The label is a number with {len(names):,} values in {len(known):,} images: it measures",
            REMEDY,
        )  # fmt: skip
