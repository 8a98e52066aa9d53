"""The classes and images that episodes are drawn from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.common.groups import kept_apart
from engine.evals.common.validity import ValidityIssue, issue
from engine.evals.fewshot.options import USUAL_WAYS, Protocol
from engine.kernels.codes import Rows, rows_by_code
from engine.kernels.episodes import smallest_keys

#: The study's loop over the shuffled images of a large set ends after index 10,000.
PUBLISHED_POOL = 10_001


def resolved(
    protocol: Protocol, groups: NDArray[np.int64] | None, sizes: Sequence[int]
) -> tuple[Protocol, tuple[str, ...], tuple[ValidityIssue, ...]]:
    """Return the protocol with `n_way` and `group_disjoint` decided, and notes and issues of that decision.

    Args:
        sizes: numbers of usable rows of the classes.
    """
    apart, issues = kept_apart(
        protocol.group_disjoint,
        groups is not None,
        published=protocol.published,
        what="in both support and query of an episode",
    )
    notes, ways = list[str](), protocol.n_way
    if ways is None:
        need = protocol.n_shot + protocol.n_query
        large = sum(size >= need for size in sizes)
        ways = max(2, min(USUAL_WAYS, large))
        if ways < USUAL_WAYS and large >= 2:
            small = "" if large == len(sizes) else f", as {len(sizes) - large} of {len(sizes)} are too small"
            notes.append(
                f"n-way is {ways} and not {USUAL_WAYS}: {large} classes have {need} usable images{small}"
            )
    return replace(protocol, n_way=ways, group_disjoint=apart), tuple(notes), issues


def pools_of(
    classes: Mapping[int, Rows], codes: NDArray[np.integer], protocol: Protocol, data_set: str
) -> Mapping[int, Rows]:
    """Return the rows of each class that may be drawn, sorted; classes sorted by code.

    Args:
        classes: the usable rows of each, by `rows_by_code`.
        codes: int [N], class of every row.
    """
    identity, total = protocol.identity(data_set), len(codes)
    if protocol.published and classes:
        usable = np.sort(np.concatenate([*classes.values()]))
        chosen = smallest_keys(identity.stream("pool"), usable, total, PUBLISHED_POOL)
        classes = rows_by_code(codes, chosen)
    if protocol.cap is None:
        return classes
    return {
        c: smallest_keys(identity.stream("cap"), rows, total, protocol.cap) for c, rows in classes.items()
    }


def pool_issues(
    pools: Mapping[int, Rows], names: Sequence[str] | None, protocol: Protocol
) -> Iterator[ValidityIssue]:
    """Yield issues of classes that are too small to be drawn, or whose episodes hardly differ."""
    need = protocol.n_shot + protocol.n_query
    sizes = {code: len(rows) for code, rows in pools.items()}
    out = [code for code, size in sizes.items() if size < need]
    if out:
        text = f"{len(out)} of {len(sizes)} classes have fewer than {need} usable images and are never drawn"
        yield issue("classes_left_out", text, len(out))
    scarce = [code for code, size in sizes.items() if need <= size < 2 * need]
    if scarce:
        least = min(scarce, key=lambda code: sizes[code])
        name = str(least) if names is None else repr(names[least])
        text = (
            f"{len(scarce)} of {len(sizes) - len(out)} classes drawn have fewer than twice the {need} images "
            f"of an episode ({name} has {sizes[least]})"
        )
        yield issue("small_pools", text, sizes[least])


def too_few(
    pools: Mapping[int, Rows], names: Sequence[str] | None, large: int, protocol: Protocol, rows: int,
    codes: NDArray[np.integer], have: NDArray[np.bool_],
) -> Refused:  # fmt: skip
    need = protocol.n_shot + protocol.n_query
    largest = sorted(pools, key=lambda c: -len(pools[c]))[:10]
    sizes = ", ".join(f"{c if names is None else names[c]} {len(pools[c]):,}" for c in largest)
    return Refused(
        f"{large} of {len(pools)} classes have {need} usable images (largest: {sizes or 'none'}; "
        f"of {rows:,} rows, {int((~have).sum()):,} have no embedding, {int((codes < 0).sum()):,} no label)",
        f"{protocol.ways} classes with n_shot + n_query = {need} images each are needed",
        "lower --n-way, --n-shot or --n-query, or add images",
    )
