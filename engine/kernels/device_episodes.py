"""Few-shot episodes drawn on a device: the rows that `engine.kernels.episodes.Sampler` draws on the CPU.

The numbers are those of its streams (`engine.kernels.philox`), and the draws without replacement are its
Fisher-Yates steps, of all episodes at once. Where patients are kept apart, the host waits once a block to
learn whether a support leaves too few queries; then, which is rare, the CPU draws that block.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from engine.kernels.codes import Rows, fill_singletons, in_order
from engine.kernels.episodes import Episodes, Identity, Sampler
from engine.kernels.philox import Span, uniform
from engine.runtime import fetched, placed

#: Pairs of steps compared at a time, and rows of supports' patients listed at a time, at most.
_PAIRS, _LISTED = 1 << 26, 1 << 26


@dataclass(frozen=True)
class DeviceEpisodes:
    """Hold drawn episodes on a device.

    Attributes:
        classes, support, query: as of `Episodes`, int64 tensors [E, N], [E, N, K] and [E, N, Q].
    """

    classes: torch.Tensor
    support: torch.Tensor
    query: torch.Tensor

    def __len__(self) -> int:
        return len(self.classes)


class DeviceSampler:
    """Sampler of the episodes of an identity on a device, block after block.

    Args:
        pools, identity, groups: as for `Sampler`.
        device: `cuda:N`.
    """

    def __init__(
        self,
        pools: Sequence[Rows],
        identity: Identity,
        groups: NDArray[np.integer[Any]] | None,
        device: str,
    ) -> None:
        self._pools, self._identity, self._groups, self._device = pools, identity, groups, device
        self._first = 0
        sizes = np.array([len(pool) for pool in pools], np.int64)
        rows = np.concatenate([np.asarray(pool, np.int64) for pool in pools])
        self._sizes, self._starts = placed(np.stack([sizes, np.cumsum(sizes) - sizes]), device)
        self._rows = placed(rows, device)
        self._patients = None if groups is None else _Patients(fill_singletons(groups)[rows], sizes, device)

    def draw(self, count: int) -> DeviceEpisodes:
        """Draw the next `count` episodes. Raises Refused as `Sampler.draw`."""
        i, first = self._identity, self._first
        self._first += count
        drawn = i.n_shot + i.n_query
        spans = [
            Span(int.from_bytes(i.key(purpose), "little"), first * each, count * each)
            for purpose, each in (("classes", i.n_way), ("images", i.n_way * drawn))
        ]
        of_classes, of_images = uniform(spans, self._device)
        every = torch.full((count,), len(self._pools), dtype=torch.int64, device=self._device)
        classes = without_replacement(of_classes.view(count, i.n_way), every)
        numbers = of_images.view(count * i.n_way, drawn)
        cells = classes.flatten()
        sizes, starts = self._sizes[cells], self._starts[cells]
        shape = (count, i.n_way, -1)
        if self._patients is None:
            rows = self._rows[without_replacement(numbers, sizes) + starts[:, None]].view(shape)
            return DeviceEpisodes(classes, rows[..., : i.n_shot], rows[..., i.n_shot :])
        support = without_replacement(numbers[:, : i.n_shot], sizes) + starts[:, None]
        query = self._patients.outside(classes, support.view(shape), numbers[:, i.n_shot :], sizes, starts)
        if query is None:
            return self._on_host(first, count)
        return DeviceEpisodes(classes, self._rows[support].view(shape), self._rows[query].view(shape))

    def _on_host(self, first: int, count: int) -> DeviceEpisodes:
        """Draw a block on the CPU, where supports are drawn again until they leave enough queries."""
        sampler = Sampler(self._pools, self._identity, self._groups)
        sampler.skip(first)
        drawn: Episodes = sampler.draw(count)
        parts = (drawn.classes, drawn.support, drawn.query)
        return DeviceEpisodes(*(placed(part, self._device) for part in parts))


class _Patients:
    """Patients of the rows of all pools, to leave those of a support out.

    Args:
        codes: int64 [R], group of each row of the pools, one pool after another: of `fill_singletons`.
        sizes: of the pools.
    """

    def __init__(self, codes: NDArray[np.int64], sizes: NDArray[np.int64], device: str) -> None:
        counts = np.bincount(codes)
        self._most, self._device = int(counts.max()), device
        self._group = placed(codes, device)
        self._members = placed(in_order(codes), device)
        self._counts, self._firsts = placed(np.stack([counts, np.cumsum(counts) - counts]), device)
        self._class = placed(np.repeat(np.arange(len(sizes)), sizes), device)

    def outside(
        self,
        classes: torch.Tensor,
        support: torch.Tensor,
        numbers: torch.Tensor,
        sizes: torch.Tensor,
        starts: torch.Tensor,
    ) -> torch.Tensor | None:
        """Draw queries [E * N, Q] from other patients than the support's.

        Args:
            classes: [E, N]. support: [E, N, K], positions among the rows of all pools.
            numbers: float64 [E * N, Q]. sizes, starts: [E * N], of the cells' pools among all rows.

        Returns:
            Positions among the rows of all pools; None if a cell has too few, or if patients are so large
            that their rows cannot all be listed.
        """
        if support.numel() * self._most > _LISTED:
            return None
        cells, positions = self._excluded(classes, support)
        count = len(sizes)
        # Rows that belong to no cell of their episode are counted in one more, behind all others.
        excluded = torch.zeros(count + 1, dtype=torch.int64, device=cells.device)
        excluded.index_add_(0, cells, torch.ones_like(cells))
        allowed = sizes - excluded[:-1]
        if int(fetched(allowed.amin())[0]) < numbers.shape[1]:
            return None
        drawn = without_replacement(numbers, allowed)
        # A position among the allowed rows becomes one among all: it is preceded by the excluded rows that
        # have at most so many allowed rows before them.
        stride = len(self._group) + 1
        before = torch.cumsum(excluded, 0) - excluded  # excluded rows of earlier cells
        ranks = positions - torch.cat([starts, starts.new_zeros(1)])[cells]
        within = torch.arange(len(cells), device=cells.device) - before[cells]
        keys = torch.where(cells < count, cells * stride + ranks - within, (count + 1) * stride)
        targets = torch.arange(count, device=cells.device)[:, None] * stride + drawn
        passed = torch.searchsorted(keys, targets.flatten(), right=True).view_as(drawn)
        return drawn + passed - before[:-1, None] + starts[:, None]

    def _excluded(self, classes: torch.Tensor, support: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cells and positions of all rows of the supports' patients, sorted; [E * N * K * largest]."""
        episodes, ways = classes.shape
        groups = self._group[support.reshape(episodes, -1)].sort(1).values
        again = torch.zeros_like(groups, dtype=torch.bool)
        again[:, 1:] = groups[:, 1:] == groups[:, :-1]
        step = torch.arange(self._most, device=groups.device)
        there = (step < self._counts[groups][..., None]) & ~again[..., None]
        places = self._firsts[groups][..., None] + step
        positions = self._members[places.clamp(max=len(self._members) - 1)].flatten(1)
        same = self._class[positions][..., None] == classes[:, None, :]  # [E, listed, N]
        known = same.any(2) & there.flatten(1)
        own = torch.arange(episodes, device=groups.device)[:, None] * ways + same.int().argmax(2)
        cells = torch.where(known, own, episodes * ways).flatten()
        stride = len(self._group) + 1
        keys = (cells * stride + positions.flatten()).sort().values
        return keys // stride, keys % stride


def without_replacement(numbers: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    """Draw as `engine.kernels.episodes.without_replacement`: the same samples, int64 [M, n].

    Step i of the shuffle puts the element at place i to the place that it draws, t(i), and draws what is
    there. An element moves on at most once a step, so following the last earlier step into a place, by
    doubling, finds in log2(n) rounds what step i puts away.

    Args:
        numbers: float64 [M, n], uniform in [0, 1). sizes: int64 [M], each at least n.
    """
    count, n = numbers.shape
    step = max(1, _PAIRS // max(1, n * n))
    parts = [_shuffled(numbers[at : at + step], sizes[at : at + step]) for at in range(0, count, step)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _shuffled(numbers: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
    n = numbers.shape[1]
    steps = torch.arange(n, device=numbers.device)
    target = (numbers * (sizes[:, None] - steps)).int().long() + steps
    earlier = steps[:, None] > steps  # [i, j]: step j comes before step i
    into = torch.where((target[:, None, :] == steps[:, None]) & earlier, steps, -1).amax(2)
    put = torch.where(into < 0, steps, into)
    for _ in range((n - 1).bit_length()):
        put = put.gather(1, put)
    last = torch.where((target[:, None, :] == target[:, :, None]) & earlier, steps, -1).amax(2)
    return torch.where(last < 0, target, put.gather(1, last.clamp(min=0)))
