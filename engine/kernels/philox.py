"""numpy's random numbers on a device: Philox4x64 with ten rounds, bit for bit.

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, doi:10.1145/2063384.2063405. The n-th
block of four outputs depends on the key and on n alone, so all blocks are computed at once. Unsigned words
are held as int64 of the same bits: sums and products wrap around, and shifts are masked.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from engine.runtime import placed

_ROUNDS, _WORDS = 10, 4
_HALF, _WORD = (1 << 32) - 1, (1 << 64) - 1
#: Multipliers of words 0 and 2, and what the two words of the key grow by in each round.
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)


@dataclass(frozen=True)
class Span:
    """Some outputs of a stream: `count` of them after the first `start`, by its key of 128 bits."""

    key: int
    start: int
    count: int

    @property
    def blocks(self) -> range:
        """The blocks of four that hold the outputs."""
        return range(self.start // _WORDS, -(-(self.start + self.count) // _WORDS))


def uniform(spans: Sequence[Span], device: str) -> list[torch.Tensor]:
    """Return numbers of streams as `engine.kernels.episodes.Stream.uniform` gives them, float64 in [0, 1)."""
    return [((raw >> 11) & ((1 << 53) - 1)).double() * 2.0**-53 for raw in random_raw(spans, device)]


def random_raw(spans: Sequence[Span], device: str) -> list[torch.Tensor]:
    """Return outputs of `numpy.random.Philox(key=key)` for each span, the bits of each as int64 [count].

    All spans are computed together: the number of operations does not depend on how many there are.
    """
    lengths = [len(span.blocks) for span in spans]
    # numpy counts before it computes: its first block has the counter 1.
    counters = torch.cat([torch.arange(s.blocks.start, s.blocks.stop, device=device) for s in spans]) + 1
    even = torch.stack([counters, torch.zeros_like(counters)])  # counter words 0 and 2, then 1 and 3
    odd = torch.zeros_like(even)
    owner = torch.cat([torch.full((n,), s, dtype=torch.int64, device=device) for s, n in enumerate(lengths)])
    halves = placed(np.array([[m & _HALF, m >> 32] for m in _MULTIPLIERS], np.int64), device)
    multipliers = placed(np.array(_MULTIPLIERS, np.uint64).view(np.int64), device)[:, None]
    for of_round in placed(_round_keys([span.key for span in spans]), device)[..., owner]:
        even, odd = (
            _high(even, halves[:, :, None, None]).flip(0) ^ odd ^ of_round,
            (even * multipliers).flip(0),
        )
    words = torch.stack([even[0], odd[0], even[1], odd[1]], 1).split(lengths)
    skipped = [span.start - _WORDS * span.blocks.start for span in spans]
    return [
        block.flatten()[skip : skip + span.count]
        for block, skip, span in zip(words, skipped, spans, strict=True)
    ]


def _round_keys(keys: Sequence[int]) -> NDArray[np.int64]:
    """Return the two words of each key in each round, [10, 2, keys]."""
    words = [[key & _WORD for key in keys], [key >> 64 & _WORD for key in keys]]
    rounds = [
        [
            [word + number * weyl & _WORD for word in of_keys]
            for of_keys, weyl in zip(words, _WEYL, strict=True)
        ]
        for number in range(_ROUNDS)
    ]
    return np.array(rounds, np.uint64).view(np.int64)


def _high(words: torch.Tensor, halves: torch.Tensor) -> torch.Tensor:
    """Return the upper 64 bits of the products of words [2, n] and multipliers, in halves [2, 2, 1, 1]."""
    parts = torch.stack([words & _HALF, (words >> 32) & _HALF], 1)[:, None]  # [2, 1, half, n]
    products = parts * halves  # [2, half of the multiplier, half of the word, n]
    low, carry = products & _HALF, (products >> 32) & _HALF
    middle = carry[:, 0, 0] + low[:, 0, 1] + low[:, 1, 0]
    upper: torch.Tensor = products[:, 1, 1] + carry[:, 0, 1] + carry[:, 1, 0] + (middle >> 32)
    return upper
