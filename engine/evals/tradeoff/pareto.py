"""The Pareto set of models by paired evidence and costs.

A model is left out of the set if a member costs no more in anything and is either better by the adjusted
test, or cannot be told from it and costs less in something. No member replaces another in this way.

In detail: a model *replaces* another if it is known to be at least as cheap in every cost, and either

* it is better (the comparison's adjusted test tells the two apart, and its value is the better one), or
* the two were tested and cannot be told apart, and it is known to be cheaper in at least one cost.

The set is the kernel of this relation (von Neumann and Morgenstern's stable set, Theory of Games and Economic
Behavior, 1944, section 4.5). The models that nothing replaces would not do alone,
because "cannot be told apart" is not transitive: A may replace B and B replace C while nothing tells A from
C, or C is even told better than A. C then stays in, since no model of the set can stand for it.

Costs that are not known exclude nobody: where one of two models lacks a cost, neither is at least as cheap.
A cost that no model has is left out of the comparison.

With exact costs the relation has no cycle, so that there is exactly one kernel: each step costs no more, the
second kind costs less, and the first kind strictly improves the value. Rates are measured, and those within a
margin count as equal, which is not transitive either; a cycle is then conceivable. Its models stay together,
since each of them stands for another one: a set is never empty.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Costs:
    """What a model costs.

    Attributes:
        img_per_s: images encoded per second; NaN if unknown.
        dim: numbers a feature.
        bytes_per_row: that the bank stores for them.
        commercial: whether the licence permits commercial use; None if that is unclear.
    """

    img_per_s: float
    dim: int
    bytes_per_row: int
    commercial: bool | None


@dataclass(frozen=True, eq=False)
class Pareto:
    """A Pareto set.

    Attributes:
        members: bool [M].
        replaced_by: for each model the members that replace it; empty for members.
    """

    members: Bools
    replaced_by: tuple[tuple[int, ...], ...]


def pareto_set(better: Bools, alike: Bools, costs: Sequence[Costs], margin: float = 0.1) -> Pareto:
    """Return the Pareto set of M models, as this module defines it.

    Args:
        better: bool [M, M], whether a (rows) is better than b (columns) by the test; never both ways.
        alike: bool [M, M], symmetric: whether a and b were tested, and cannot be told apart.
        costs: of each model.
        margin: rates that differ by no more than this share count as equal.
    """
    cheap, cheaper = cost_orders(costs, margin)
    return kernel(cheap & (better | (alike & cheaper)))


def cost_orders(costs: Sequence[Costs], margin: float) -> tuple[Bools, Bools]:
    """Return whether a is known to be at least as cheap as b in every cost, and cheaper in one; bool [M, M].

    A licence that permits commercial use costs less than one that forbids it and than an unclear one; these
    two cannot be compared.
    """
    rate = np.array([cost.img_per_s for cost in costs], np.float64)
    sizes = [np.array([getattr(cost, name) for cost in costs]) for name in ("dim", "bytes_per_row")]
    licence = np.array([_FREEDOM[cost.commercial] for cost in costs])
    free = licence[:, None] == _FREEDOM[True]
    weak, strict = [free | (licence[:, None] == licence)], [free & (licence != _FREEDOM[True])]
    if np.isfinite(rate).any():
        weak.append(rate[:, None] * (1 + margin) >= rate)
        strict.append(rate[:, None] > rate * (1 + margin))
    for size in sizes:
        weak.append(size[:, None] <= size)
        strict.append(size[:, None] < size)
    return np.logical_and.reduce(weak), np.logical_or.reduce(strict)


_FREEDOM = {True: 0, None: 1, False: 2}


def kernel(replaces: Bools) -> Pareto:
    """Return the kernel of a relation, bool [M, M]: a (rows) replaces b (columns).

    The models of a cycle that nothing outside replaces are members together.

    Raises:
        RuntimeError: a round decides on no model, which a correct round cannot.
    """
    count = len(replaces)
    members, remaining = np.zeros(count, np.bool_), np.ones(count, np.bool_)
    while remaining.any():
        before = int(remaining.sum())
        among = replaces & remaining[:, None] & remaining
        top = remaining & ~among.any(axis=0)
        if not top.any():
            top = remaining & _in_top_cycles(among)
        members |= top
        remaining &= ~(top | replaces[top].any(axis=0))
        if int(remaining.sum()) >= before:
            raise RuntimeError("a round of the kernel decided on no model")
    by = [
        () if members[b] else tuple(np.flatnonzero(members & replaces[:, b]).tolist()) for b in range(count)
    ]
    return Pareto(members, tuple(by))


def _in_top_cycles(replaces: Bools) -> Bools:
    """Return which models replace, in some steps, each model that replaces them in some steps; bool [M]."""
    reaches = replaces.copy()
    for via in range(len(reaches)):
        reaches |= reaches[:, via, None] & reaches[via]
    top: Bools = ~np.any(reaches & ~reaches.T, axis=0)
    return top
