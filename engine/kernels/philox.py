"""numpy's random numbers on a device: Philox4x64 with ten rounds, bit for bit.

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, doi:10.1145/2063384.2063405. The n-th
block of four outputs depends on the key and on n alone, so all blocks are computed at once. Unsigned words
are held as int64 of the same bits: sums and products wrap around, and halves of a word are read as two int32
that lie in its place, lower half first. A round takes thirteen operations: a GPU spends longer on starting
each than on its sums.
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
    # Words 0 and 2 change places in each round, and 1 and 3 with them: they lie in turn in both orders.
    orders = np.array([_constants((0, 1)), _constants((1, 0))], np.uint64).view(np.int64)
    in_turn = placed(orders[..., None], device)
    for number, of_round in enumerate(placed(_round_keys([span.key for span in spans]), device)[..., owner]):
        multiplier, *halves = in_turn[number % 2]
        even, odd = _upper(even, *halves) ^ odd.flip(0) ^ of_round, even * multiplier
    words = torch.stack([even[0], odd[0], even[1], odd[1]], 1).split(lengths)
    skipped = [span.start - _WORDS * span.blocks.start for span in spans]
    return [
        block.flatten()[skip : skip + span.count]
        for block, skip, span in zip(words, skipped, spans, strict=True)
    ]


def _round_keys(keys: Sequence[int]) -> NDArray[np.int64]:
    """Return the two words of each key in each round, [10, 2, keys], in the order of their words."""
    words = [[key & _WORD for key in keys], [key >> 64 & _WORD for key in keys]]
    rounds = [
        [
            [word + number * weyl & _WORD for word in of_keys]
            for of_keys, weyl in zip(words, _WEYL, strict=True)
        ]
        for number in range(_ROUNDS)
    ]
    in_turn = [words[:: -1 if number % 2 == 0 else 1] for number, words in enumerate(rounds)]
    return np.array(in_turn, np.uint64).view(np.int64)


def _constants(order: Sequence[int]) -> list[list[int]]:
    """Return the multipliers of two words, their lower halves, their upper halves, and the mask of a half."""
    multipliers = [_MULTIPLIERS[word] for word in order]
    return [multipliers, [m & _HALF for m in multipliers], [m >> 32 for m in multipliers], [_HALF, _HALF]]


def _upper(words: torch.Tensor, low: torch.Tensor, high: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the upper 64 bits of the products of words [2, n] and multipliers, by halves: nine operations.

    Args:
        low, high: halves of the multipliers, [2, 1].
        mask: 2^32 - 1, [2, 1].
    """
    word = _halves(words, mask)
    carry = _halves(word[..., 0] * low, mask, 1)
    middle = _halves(carry.addcmul(word[..., 1], low), mask)
    other = _halves(middle[..., 0].addcmul(word[..., 0], high), mask, 1)
    return middle[..., 1].addcmul(word[..., 1], high) + other


def _halves(words: torch.Tensor, mask: torch.Tensor, half: int | None = None) -> torch.Tensor:
    """Return the halves of words [2, n], int64 [2, n, 2], lower first; or one of them, [2, n].

    A mask of int64 makes int64 of the int32 that the words are read as, and zeros of their signs.
    """
    pairs = words.view(torch.int32).view(*words.shape, 2)
    return pairs[..., half] & mask if half is not None else pairs & mask[..., None]
