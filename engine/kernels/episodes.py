"""Drawing few-shot episodes: all at once, without replacement, the same on every machine.

The stream of a purpose (`classes`, `support`, ...) is numpy's Philox4x64 with the first 128 bits, little
endian, of SHA-256 over the ASCII text `embank episodes 1 <JSON list>` as its key, where the list is
[seed, data set, n_way, n_shot, n_query, purpose]. A raw 64-bit output r gives the number (r >> 11) / 2^53.
Episodes take their numbers in order and always equally many, so the first 100 of 600 episodes are the
episodes of a run of 100. Neither model, device nor backend enters.
"""

import hashlib
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused

Rows = NDArray[np.int64]

#: How often the support of an episode is drawn again where it leaves a class too few queries of other groups.
TRIES = 50
#: Episodes whose support is drawn again at a time.
_REDRAWN = 64
#: Excluded rows are looked up by group where they are at most a fourth of their pools' rows.
_FEW = 4
#: Rows of the supports' groups that are held at a time.
_EXCLUDED_ROWS = 4_000_000


@dataclass(frozen=True)
class Identity:
    """What decides which episodes are drawn, together with the images of each class.

    Attributes:
        seed: any non-negative integer.
        data_set: name or digest.
        n_way, n_shot, n_query: classes an episode, support and query images a class.
    """

    seed: int
    data_set: str
    n_way: int
    n_shot: int
    n_query: int

    def stream(self, purpose: str) -> "Stream":
        """Numbers for one purpose, from the start."""
        parts = [self.seed, self.data_set, self.n_way, self.n_shot, self.n_query, purpose]
        return Stream(hashlib.sha256(f"embank episodes 1 {json.dumps(parts)}".encode("ascii")).digest()[:16])


class Stream:
    """Uniform numbers from a key of 16 bytes."""

    def __init__(self, key: bytes) -> None:
        self._bits = np.random.Philox(key=int.from_bytes(key, "little"))

    def uniform(self, *shape: int) -> NDArray[np.float64]:
        """The next numbers, float64 in [0, 1), in C order."""
        raw: NDArray[np.uint64] = self._bits.random_raw(math.prod(shape))
        return ((raw >> np.uint64(11)) * np.float64(2.0**-53)).reshape(shape)


@dataclass(frozen=True)
class Episodes:
    """Drawn episodes.

    Attributes:
        classes: int64 [E, N], positions in the list of pools; distinct in an episode.
        support: int64 [E, N, K], rows.
        query: int64 [E, N, Q], rows; none of them in the episode's support.
    """

    classes: Rows
    support: Rows
    query: Rows

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def digest_bytes(self) -> bytes:
        """The rows as little-endian int64, support before query: equal bytes are equal episodes."""
        return self.support.astype("<i8").tobytes() + self.query.astype("<i8").tobytes()


class Sampler:
    """Draws the episodes of an identity from pools, block after block.

    Args:
        pools: rows of each class that may be drawn, each distinct and sorted, at least n_shot + n_query.
        groups: group code of every row of the data set, -1 where unknown (then the row is a group of its
            own). If given, no group is in both support and query of an episode, over all its classes. The
            support is that of the same episode drawn without groups, unless it leaves too few queries.
    """

    def __init__(
        self, pools: Sequence[Rows], identity: Identity, groups: NDArray[np.integer[Any]] | None = None
    ) -> None:
        self._identity, self._first = identity, 0
        self._sizes = np.array([len(pool) for pool in pools], np.int64)
        self._ends = np.cumsum(self._sizes)
        self._rows = np.concatenate([np.asarray(pool, np.int64) for pool in pools])
        self._streams = identity.stream("classes"), identity.stream("images")
        self._groups = None if groups is None else own_groups(groups)
        if self._groups is not None:
            self._index_groups(self._groups)

    def draw(self, count: int) -> Episodes:
        """The next `count` episodes.

        Raises:
            Refused: groups leave a class without enough queries, however the support is drawn.
        """
        i = self._identity
        numbers = self._streams[0].uniform(count, i.n_way)
        classes = without_replacement(numbers, np.full(count, len(self._sizes)))
        numbers = self._streams[1].uniform(count, i.n_way, i.n_shot + i.n_query)
        if self._groups is None:
            rows = self._take(classes, numbers)
            found = Episodes(classes, rows[..., : i.n_shot], rows[..., i.n_shot :])
        else:
            support = self._take(classes, numbers[..., : i.n_shot])
            query = np.empty((count, i.n_way, i.n_query), np.int64)
            for part in self._parts(support):
                query[part] = self._outside(part, classes[part], support[part], numbers[part, :, i.n_shot :])
            found = Episodes(classes, support, query)
        self._first += count
        return found

    def _take(self, classes: Rows, numbers: NDArray[np.float64]) -> Rows:
        """Rows [..., n] of the classes [...], by the numbers [..., n]."""
        sizes = self._sizes[classes.ravel()]
        positions = without_replacement(numbers.reshape(-1, numbers.shape[-1]), sizes)
        positions += (self._ends[classes.ravel()] - sizes)[:, None]
        rows: Rows = self._rows[positions].reshape(numbers.shape)
        return rows

    def _index_groups(self, groups: Rows) -> None:
        """Sort the positions in `_rows` by group, so that all rows of a group are at hand."""
        self._group_of = groups[self._rows]
        self._by_group = np.argsort(self._group_of, kind="stable")
        self._group_sizes = np.bincount(self._group_of, minlength=int(groups.max()) + 1)
        self._group_starts = np.cumsum(self._group_sizes) - self._group_sizes
        self._class_of = np.repeat(np.arange(len(self._sizes)), self._sizes)

    def _parts(self, support: Rows) -> list[slice]:
        """Episodes in parts whose supports' groups have few rows together, or one episode each."""
        assert self._groups is not None
        rows = self._group_sizes[self._groups[support]].sum(axis=(1, 2)) + len(self._sizes)
        cuts = np.flatnonzero(np.diff(rows.cumsum() // _EXCLUDED_ROWS)) + 1
        return [slice(start, stop) for start, stop in itertools.pairwise([0, *cuts.tolist(), len(support)])]

    def _outside(self, part: slice, classes: Rows, support: Rows, numbers: NDArray[np.float64]) -> Rows:
        """Query rows [E, N, Q] from groups outside the support [E, N, K], which may be redrawn in place."""
        cells, ranks = self._excluded(classes, support)
        short = np.flatnonzero(self._room(classes, cells).min(axis=1) < self._identity.n_query)
        if len(short):
            first = part.start + self._first
            for some in np.split(short, range(1, len(short), _REDRAWN)):  # one alone: often none can be drawn
                support[some] = self._redrawn(some + first, classes[some], support[some])
            cells, ranks = self._excluded(classes, support)
        room = self._room(classes, cells)
        places = without_replacement(numbers.reshape(-1, numbers.shape[-1]), room.ravel())
        # A place among the allowed rows of a class becomes a place among all of them: as many excluded rows
        # come before it as have at most `place` allowed rows before themselves.
        wide = int(self._sizes.max()) + 1
        starts = np.searchsorted(cells, np.arange(classes.size))
        before = cells * wide + ranks - (np.arange(len(cells)) - starts[cells])
        wanted = np.arange(classes.size)[:, None] * wide + places
        places += np.searchsorted(before, wanted, side="right") - starts[:, None]
        places += (self._ends - self._sizes)[classes.ravel()][:, None]
        rows: Rows = self._rows[places].reshape(numbers.shape)
        return rows

    def _room(self, classes: Rows, cells: Rows) -> Rows:
        """How many rows [E, N] of each class are in no excluded group."""
        return self._sizes[classes] - np.bincount(cells, minlength=classes.size).reshape(classes.shape)

    def _excluded(self, classes: Rows, support: Rows) -> tuple[Rows, Rows]:
        """All rows of the supports' groups: their cell (episode x N + class within it) and rank in its pool.

        Sorted by cell and rank; rows of classes that the episode does not have are left out.
        """
        assert self._groups is not None
        episodes = len(classes)
        if self._group_sizes[self._groups[support]].sum() > self._sizes[classes].sum() / _FEW:
            return self._excluded_by_pool(classes, support)
        held = np.sort(self._groups[support].reshape(episodes, -1), axis=1)
        episode, place = np.nonzero(np.diff(held, axis=1, prepend=-1))
        group = held[episode, place]
        sizes = self._group_sizes[group]
        within = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        at = self._by_group[np.repeat(self._group_starts[group], sizes) + within]
        cell_of = np.full((episodes, len(self._sizes)), -1)
        np.put_along_axis(cell_of, classes, np.arange(classes.size).reshape(classes.shape), axis=1)
        cells = cell_of[np.repeat(episode, sizes), self._class_of[at]]
        cells, at = cells[cells >= 0], at[cells >= 0]
        wide = len(self._rows)
        cells, at = np.divmod(np.sort(cells * wide + at), wide)
        return cells, at - (self._ends - self._sizes)[self._class_of[at]]

    def _excluded_by_pool(self, classes: Rows, support: Rows) -> tuple[Rows, Rows]:
        """As `_excluded`, by a look at every row of the episode's classes."""
        assert self._groups is not None
        taken = np.zeros(len(self._group_sizes), np.bool_)
        ranks = []
        for own, drawn in zip(classes, support, strict=True):
            held = self._groups[drawn.ravel()]
            taken[held] = True
            ranks += [
                np.flatnonzero(taken[self._group_of[self._ends[c] - self._sizes[c] : self._ends[c]]])
                for c in own
            ]
            taken[held] = False
        return np.repeat(np.arange(classes.size), [len(some) for some in ranks]), np.concatenate(ranks)

    def _redrawn(self, numbers: Rows, classes: Rows, support: Rows) -> Rows:
        """Supports [E, N, K] that leave each class enough queries, for the episodes of these numbers.

        Raises:
            Refused: none of the draws of an episode does.
        """
        i, left = self._identity, np.arange(len(numbers))
        least = np.zeros(0, np.int64)
        for attempt in range(1, TRIES):
            for e in left:
                stream = i.stream(f"images of episode {numbers[e]}, attempt {attempt}")
                support[e] = self._take(classes[e], stream.uniform(i.n_way, i.n_shot))
            cells, _ = self._excluded(classes[left], support[left])
            least = self._room(classes[left], cells).min(axis=1)
            left, least = left[least < i.n_query], least[least < i.n_query]
            if not len(left):
                return support
        raise Refused(
            f"In {TRIES} draws of episode {numbers[left[0]]}, the groups (patients) of the support left "
            f"a class fewer than {i.n_query} query images (last {least[0]})",
            "No group may be in both support and query of an episode",
            "lower --n-shot or --n-query, or let patients be on both sides with --no-group-disjoint",
        )


def own_groups(groups: NDArray[np.integer[Any]]) -> Rows:
    """Codes int64 [N] from 0, where each row of a negative code has a group of its own."""
    codes = np.asarray(groups).astype(np.int64)
    alone = codes < 0
    codes[alone] = int(codes.max(initial=-1)) + 1 + np.arange(int(alone.sum()))
    return codes


def without_replacement(numbers: NDArray[np.float64], sizes: NDArray[np.integer[Any]]) -> Rows:
    """Ordered samples without replacement, each from range(its size).

    The first n steps of a Fisher-Yates shuffle of each range, without the ranges: only elements that a step
    has moved are remembered. Every ordered sample is equally likely; its first m elements depend on the first
    m numbers alone.

    Args:
        numbers: [M, n], uniform in [0, 1).
        sizes: [M], each at least n.

    Returns:
        int64 [M, n].
    """
    n, count = numbers.shape[1], len(numbers)
    steps = np.arange(n)[:, None]
    target = (numbers.T * (sizes - steps)).astype(np.int32) + steps.astype(np.int32)
    drawn = target.copy()
    moved = np.empty_like(target)  # what step i left at its target
    moved[0] = 0
    for i in range(1, n):
        moved[i] = i
        earlier, past = target[:i], moved[:i].ravel()
        for wanted, into in ((np.int32(i), moved[i]), (target[i], drawn[i])):
            hits = np.flatnonzero(earlier == wanted)
            into[hits % count] = past[hits]  # in order of steps: the last one stays
    return drawn.T.astype(np.int64, order="C")


def smallest_keys(stream: Stream, rows: Rows, total: int, count: int) -> Rows:
    """At most `count` of `rows`, sorted: those with the smallest of `total` numbers, one a row.

    A row's number does not depend on the other rows given, so that a missing row changes one choice.
    """
    if len(rows) <= count:
        return rows
    keys = stream.uniform(total)[rows]
    return np.sort(rows[np.argsort(keys, kind="stable")[:count]])
