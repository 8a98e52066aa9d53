"""Problems in the text of a manifest: values in several spellings, unclean cells, measurements as labels."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from stores.manifest import split_words
from stores.manifest.manifest import Manifest
from stores.manifest.measurements import REMEDY, is_measurement
from stores.manifest.problems import Problem
from stores.manifest.spellings import spelling_key, spelling_variants
from stores.manifest.tidying import tidy
from stores.manifest.uri_policy import shown

_COLUMNS = ("label", "split", "group")
_SHOWN = 5


def text_problems(manifest: Manifest) -> Iterator[Problem]:
    """Find values in several spellings, patients divided between splits by their spelling, and the like.

    Args:
        manifest: rows to check.
    """
    variants = {name: spelling_variants(manifest.codes(name)[1]) for name in _COLUMNS}
    for name in _COLUMNS:
        yield from _spelling_problems(manifest, name, variants[name])
    yield from _problems_across_splits(manifest, variants["group"])
    yield from _measurement_problems(manifest)
    tidied = tidy(manifest.table)
    if tidied.changed:
        yield Problem(
            "warning", "unclean_text", len(tidied.notes),
            "The manifest was made by an earlier version, whose text was not cleaned",
            "make it again with `embank manifest table`, and a bank of it with `embank bank relabel`",
            tidied.notes,
        )  # fmt: skip


def _spelling_problems(manifest: Manifest, name: str, variants: list[list[int]]) -> Iterator[Problem]:
    if not variants:
        return
    codes, values = manifest.codes(name)
    rows = np.bincount(codes[codes >= 0], minlength=len(values))
    yield Problem(
        "warning", f"{name}_spelling", len(variants),
        f"{len(variants)} {name}s are spelt in several ways, which differ only in case, leading zeros or a "
        "trailing .0",
        f"give each {name} one spelling in the table; as they are, they count as different ones",
        tuple(
            " = ".join(f"{shown(values[code])} (rows: {rows[code]:,})" for code in spellings)
            for spellings in variants[:_SHOWN]
        ),
    )  # fmt: skip


def _problems_across_splits(manifest: Manifest, variants: list[list[int]]) -> Iterator[Problem]:
    """Find patients who stand in several splits, in a different spelling in each."""
    if not variants:
        return
    groups, names = manifest.codes("group")
    splits, split_names = manifest.codes("split")
    parts = [split_words.usual_split(split) or spelling_key(split) for split in split_names]
    known = (groups >= 0) & (splits >= 0)
    parts_of: dict[int, set[str]] = defaultdict(set)  # of each group
    pairs = groups[known].astype(np.int64) * max(1, len(parts)) + splits[known]
    for pair in np.unique(pairs).tolist():
        parts_of[pair // len(parts)].add(parts[pair % len(parts)])
    divided = [
        spellings
        for spellings in variants
        if len(set().union(*(parts_of[group] for group in spellings))) > 1
        and sum(bool(parts_of[group]) for group in spellings) > 1
    ]
    if not divided:
        return
    yield Problem(
        "warning", "group_spelling_across_splits", len(divided),
        f"{len(divided)} groups stand in more than one split, if names that differ only in case, leading "
        "zeros or a trailing .0 are one group",
        "give each group one spelling, then split by group: else a model is tested on patients it has seen",
        tuple(
            " = ".join(
                f"{shown(names[group])} ({', '.join(sorted(parts_of[group])) or 'no split'})"
                for group in spellings
            )
            for spellings in divided[:_SHOWN]
        ),
    )  # fmt: skip


def _measurement_problems(manifest: Manifest) -> Iterator[Problem]:
    codes, names = manifest.codes("label")
    images = int((codes >= 0).sum())
    if is_measurement(names, images):
        yield Problem(
            "warning", "label_measured", len(names),
            f"The label is a number with {len(names):,} values in {images:,} images: it measures",
            REMEDY,
        )  # fmt: skip
