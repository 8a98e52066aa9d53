"""Few-shot episodes: drawn all at once, without replacement, and identically on every machine.

The stream of a purpose (`classes`, `support`, ...) is numpy's Philox4x64 with the first 128 bits, little
endian, of SHA-256 over the ASCII text `embank episodes 1 <JSON list>` as its key, where the list is
[seed, data set, n_way, n_shot, n_query, purpose]. A raw 64-bit output r gives the number (r >> 11) / 2^53.
Every episode consumes the same number of outputs, in order, so the first 100 of 600 episodes are the episodes
of a run of 100. Model, device and backend have no influence.
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
from engine.kernels.codes import Rows, fill_singletons, in_order

#: Draws of an episode's support, at most, until it leaves every class enough queries from other groups.
TRIES = 50
#: Episodes whose support is redrawn in one batch.
_REDRAW_BATCH = 64
#: Excluded rows are looked up by group if they are at most 1 / _FEW of the rows of their pools.
_FEW = 4
#: Rows of the supports' groups that are in memory at a time.
_EXCLUDED_ROWS = 4_000_000


@dataclass(frozen=True)
class Identity:
    """Everything besides the images of each class that determines the episodes.

    Attributes:
        seed: any non-negative integer.
        data_set: name or digest.
        n_way, n_shot, n_query: classes per episode, support images and query images per class.
    """

    seed: int
    data_set: str
    n_way: int
    n_shot: int
    n_query: int

    def key(self, purpose: str) -> bytes:
        """Return the key of the stream for one purpose, 16 bytes."""
        parts = [self.seed, self.data_set, self.n_way, self.n_shot, self.n_query, purpose]
        return hashlib.sha256(f"embank episodes 1 {json.dumps(parts)}".encode("ascii")).digest()[:16]

    def stream(self, purpose: str) -> "Stream":
        """Return the stream of random numbers for one purpose, from its start."""
        return Stream(self.key(purpose))


class Stream:
    """Uniform random numbers determined by a key of 16 bytes."""

    def __init__(self, key: bytes) -> None:
        self._bits = np.random.Philox(key=int.from_bytes(key, "little"))

    def uniform(self, *shape: int) -> NDArray[np.float64]:
        """Return the next numbers, float64 in [0, 1), in C order."""
        raw: NDArray[np.uint64] = self._bits.random_raw(math.prod(shape))
        return ((raw >> np.uint64(11)) * np.float64(2.0**-53)).reshape(shape)


@dataclass(frozen=True)
class Episodes:
    """Drawn episodes.

    Attributes:
        classes: int64 [E, N], positions in the list of pools; distinct within an episode.
        support: int64 [E, N, K], rows.
        query: int64 [E, N, Q], rows, disjoint from the episode's support.
    """

    classes: Rows
    support: Rows
    query: Rows

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def digest_bytes(self) -> bytes:
        """The rows as little-endian int64, support before query: equal bytes mean equal episodes."""
        return self.support.astype("<i8").tobytes() + self.query.astype("<i8").tobytes()


class Sampler:
    """Sampler of the episodes of an identity, block after block.

    Args:
        pools: rows that may be drawn for each class, distinct and sorted, at least n_shot + n_query.
        groups: group code of every row of the data set; a row with -1 is a group of its own. If given, no
            group is in both the support and the queries of an episode, over all its classes. The support is
            the one drawn without groups, unless it leaves too few queries.
    """

    def __init__(
        self, pools: Sequence[Rows], identity: Identity, groups: NDArray[np.integer[Any]] | None = None
    ) -> None:
        self._identity, self._first = identity, 0
        self._sizes = np.array([len(pool) for pool in pools], np.int64)
        self._ends = np.cumsum(self._sizes)
        self._rows = np.concatenate([np.asarray(pool, np.int64) for pool in pools])
        self._streams = identity.stream("classes"), identity.stream("images")
        self._groups = None if groups is None else fill_singletons(groups)
        if self._groups is not None:
            self._index_groups(self._groups)

    def skip(self, count: int) -> None:
        """Pass over the next `count` episodes without drawing them."""
        i = self._identity
        for stream, each in zip(self._streams, (i.n_way, i.n_way * (i.n_shot + i.n_query)), strict=True):
            stream.uniform(count, each)
        self._first += count

    def draw(self, count: int) -> Episodes:
        """Draw the next `count` episodes.

        Raises:
            Refused: the groups leave a class too few queries in every draw of the support.
        """
        i = self._identity
        numbers = self._streams[0].uniform(count, i.n_way)
        classes = without_replacement(numbers, np.full(count, len(self._sizes)))
        numbers = self._streams[1].uniform(count, i.n_way, i.n_shot + i.n_query)
        if self._groups is None:
            rows = self._take(classes, numbers)
            episodes = Episodes(classes, rows[..., : i.n_shot], rows[..., i.n_shot :])
        else:
            support = self._take(classes, numbers[..., : i.n_shot])
            query = np.empty((count, i.n_way, i.n_query), np.int64)
            for part in self._parts(support):
                query[part] = self._outside(part, classes[part], support[part], numbers[part, :, i.n_shot :])
            episodes = Episodes(classes, support, query)
        self._first += count
        return episodes

    def _take(self, classes: Rows, numbers: NDArray[np.float64]) -> Rows:
        """Return rows [..., n] of the classes [...], chosen by the numbers [..., n]."""
        sizes = self._sizes[classes.ravel()]
        positions = without_replacement(numbers.reshape(-1, numbers.shape[-1]), sizes)
        positions += (self._ends[classes.ravel()] - sizes)[:, None]
        rows: Rows = self._rows[positions].reshape(numbers.shape)
        return rows

    def _index_groups(self, groups: Rows) -> None:
        """Sort the positions in `_rows` by group, to look up all rows of a group."""
        self._group_of = groups[self._rows]
        self._by_group = in_order(self._group_of)
        self._group_sizes = np.bincount(self._group_of, minlength=int(groups.max()) + 1)
        self._group_starts = np.cumsum(self._group_sizes) - self._group_sizes
        self._class_of = np.repeat(np.arange(len(self._sizes)), self._sizes)

    def _parts(self, support: Rows) -> list[slice]:
        """Split episodes into parts whose supports' groups have few rows; a part has at least one episode."""
        assert self._groups is not None
        rows = self._group_sizes[self._groups[support]].sum(axis=(1, 2)) + len(self._sizes)
        cuts = np.flatnonzero(np.diff(rows.cumsum() // _EXCLUDED_ROWS)) + 1
        return [slice(start, stop) for start, stop in itertools.pairwise([0, *cuts.tolist(), len(support)])]

    def _outside(self, part: slice, classes: Rows, support: Rows, numbers: NDArray[np.float64]) -> Rows:
        """Return query rows [E, N, Q] from groups outside the support [E, N, K].

        Supports that leave too few queries are redrawn in place.
        """
        cells, ranks = self._excluded(classes, support)
        short = np.flatnonzero(self._room(classes, cells).min(axis=1) < self._identity.n_query)
        if len(short):
            first = part.start + self._first
            # The first episode alone: if it cannot be drawn, often none can.
            for batch in np.split(short, range(1, len(short), _REDRAW_BATCH)):
                support[batch] = self._redrawn(batch + first, classes[batch], support[batch])
            cells, ranks = self._excluded(classes, support)
        allowed = self._room(classes, cells)
        positions = without_replacement(numbers.reshape(-1, numbers.shape[-1]), allowed.ravel())
        # Turn a position among the allowed rows of a class into a position among all its rows: it is preceded
        # by the excluded rows that have at most `position` allowed rows before them.
        stride = int(self._sizes.max()) + 1
        starts = np.searchsorted(cells, np.arange(classes.size))
        allowed_before = cells * stride + ranks - (np.arange(len(cells)) - starts[cells])
        targets = np.arange(classes.size)[:, None] * stride + positions
        positions += np.searchsorted(allowed_before, targets, side="right") - starts[:, None]
        positions += (self._ends - self._sizes)[classes.ravel()][:, None]
        rows: Rows = self._rows[positions].reshape(numbers.shape)
        return rows

    def _room(self, classes: Rows, cells: Rows) -> Rows:
        """Return the number of rows [E, N] of each class outside the excluded groups."""
        return self._sizes[classes] - np.bincount(cells, minlength=classes.size).reshape(classes.shape)

    def _excluded(self, classes: Rows, support: Rows) -> tuple[Rows, Rows]:
        """Return cells (episode x N + class within it) and pool ranks of all rows of the supports' groups.

        Sorted by cell and rank; rows of classes that are not in the episode are left out.
        """
        assert self._groups is not None
        episodes = len(classes)
        if self._group_sizes[self._groups[support]].sum() > self._sizes[classes].sum() / _FEW:
            return self._excluded_by_pool(classes, support)
        groups_in_support = np.sort(self._groups[support].reshape(episodes, -1), axis=1)
        episode, position = np.nonzero(np.diff(groups_in_support, axis=1, prepend=-1))
        group = groups_in_support[episode, position]
        sizes = self._group_sizes[group]
        within = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        positions = self._by_group[np.repeat(self._group_starts[group], sizes) + within]
        cell_of = np.full((episodes, len(self._sizes)), -1)
        np.put_along_axis(cell_of, classes, np.arange(classes.size).reshape(classes.shape), axis=1)
        cells = cell_of[np.repeat(episode, sizes), self._class_of[positions]]
        cells, positions = cells[cells >= 0], positions[cells >= 0]
        stride = len(self._rows)
        cells, positions = np.divmod(np.sort(cells * stride + positions), stride)
        return cells, positions - (self._ends - self._sizes)[self._class_of[positions]]

    def _excluded_by_pool(self, classes: Rows, support: Rows) -> tuple[Rows, Rows]:
        """Return the same as `_excluded`, by testing every row of the episode's classes."""
        assert self._groups is not None
        taken = np.zeros(len(self._group_sizes), np.bool_)
        ranks = []
        for episode_classes, episode_support in zip(classes, support, strict=True):
            support_groups = self._groups[episode_support.ravel()]
            taken[support_groups] = True
            ranks += [
                np.flatnonzero(taken[self._group_of[self._ends[c] - self._sizes[c] : self._ends[c]]])
                for c in episode_classes
            ]
            taken[support_groups] = False
        return np.repeat(np.arange(classes.size), [len(r) for r in ranks]), np.concatenate(ranks)

    def _redrawn(self, numbers: Rows, classes: Rows, support: Rows) -> Rows:
        """Return supports [E, N, K] that leave each class enough queries, for the episodes numbered.

        Raises:
            Refused: no draw of an episode does.
        """
        i, remaining = self._identity, np.arange(len(numbers))
        fewest = np.zeros(0, np.int64)
        for attempt in range(1, TRIES):
            for e in remaining:
                stream = i.stream(f"images of episode {numbers[e]}, attempt {attempt}")
                support[e] = self._take(classes[e], stream.uniform(i.n_way, i.n_shot))
            cells, _ = self._excluded(classes[remaining], support[remaining])
            fewest = self._room(classes[remaining], cells).min(axis=1)
            remaining, fewest = remaining[fewest < i.n_query], fewest[fewest < i.n_query]
            if not len(remaining):
                return support
        raise Refused(
            f"In {TRIES} draws of episode {numbers[remaining[0]]}, the groups (patients) of the support left "
            f"a class fewer than {i.n_query} query images (last {fewest[0]})",
            "No group may be in both support and query of an episode",
            "lower --n-shot or --n-query, or let patients be on both sides with --no-group-disjoint",
        )


def without_replacement(numbers: NDArray[np.float64], sizes: NDArray[np.integer[Any]]) -> Rows:
    """Draw ordered samples without replacement, each from a range of its own size.

    Takes the first n steps of a Fisher-Yates shuffle of each range without storing the range: only elements
    moved by a step are recorded. Every ordered sample is equally likely, and its first m elements depend only
    on the first m numbers.

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
    moved = np.empty_like(target)  # the element that step i put at its target
    moved[0] = 0
    for i in range(1, n):
        moved[i] = i
        earlier, past = target[:i], moved[:i].ravel()
        for element, into in ((np.int32(i), moved[i]), (target[i], drawn[i])):
            hits = np.flatnonzero(earlier == element)
            into[hits % count] = past[hits]  # in order of steps: the last one wins
    return drawn.T.astype(np.int64, order="C")


def smallest_keys(stream: Stream, rows: Rows, total: int, count: int) -> Rows:
    """Choose at most `count` of `rows`, sorted: those with the smallest of `total` numbers, one for each row.

    The number of a row does not depend on the other rows, so that a missing row changes only one choice.
    """
    if len(rows) <= count:
        return rows
    keys = stream.uniform(total)[rows]
    return np.sort(rows[np.argsort(keys, kind="stable")[:count]])
