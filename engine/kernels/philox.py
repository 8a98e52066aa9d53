"""numpy's random numbers on a device: Philox4x64 with ten rounds, bit for bit.

Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, doi:10.1145/2063384.2063405. The n-th
block of four outputs depends on the key and on n alone, so all blocks are computed at once. Unsigned words
are held as int64 of the same bits: sums and products wrap around, and shifts are masked.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from engine.runtime import placed

_ROUNDS, _WORDS = 10, 4
_HALF, _WORD = (1 << 32) - 1, (1 << 64) - 1
#: Multipliers of words 0 and 2, and what the two words of the key grow by in each round.
_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)


def uniform(key: int, start: int, count: int, device: str) -> torch.Tensor:
    """Return numbers of a stream as `engine.kernels.episodes.Stream.uniform` gives them, float64 in [0, 1).

    Args:
        key: of 128 bits. start: how many numbers of the stream are passed over. count: how many are returned.
    """
    raw = random_raw(key, start, count, device)
    return ((raw >> 11) & ((1 << 53) - 1)).double() * 2.0**-53


def random_raw(key: int, start: int, count: int, device: str) -> torch.Tensor:
    """Return outputs of `numpy.random.Philox(key=key)`, the bits of each as int64 [count].

    Args:
        key, start, count: as for `uniform`; fewer than 2^62 outputs are passed over.
    """
    first, last = start // _WORDS, -(-(start + count) // _WORDS)
    words = torch.zeros(_WORDS, last - first, dtype=torch.int64, device=device)
    # numpy counts before it computes: its first block has the counter 1.
    words[0] = torch.arange(first + 1, last + 1, device=device)
    even, odd = words[0::2], words[1::2]  # counter words 0 and 2, and 1 and 3
    multipliers, low, high, *keys = placed(_constants(key), device)[..., None]  # [2, 1] each
    halves = torch.stack([low, high], 1)[..., None]
    for of_round in keys:
        even, odd = _high(even, halves).flip(0) ^ odd ^ of_round, (even * multipliers).flip(0)
    words = torch.stack([even[0], odd[0], even[1], odd[1]], 1).flatten()
    return words[start - first * _WORDS :][:count]


def _constants(key: int) -> NDArray[np.int64]:
    """Return the multipliers, their lower and upper halves, and the key of each round, [13, 2]."""
    rows = [list(_MULTIPLIERS), [m & _HALF for m in _MULTIPLIERS], [m >> 32 for m in _MULTIPLIERS]]
    words = [key & _WORD, key >> 64 & _WORD]
    rows += [
        [word + number * weyl & _WORD for word, weyl in zip(words, _WEYL, strict=True)]
        for number in range(_ROUNDS)
    ]
    return np.array(rows, np.uint64).view(np.int64)


def _high(words: torch.Tensor, halves: torch.Tensor) -> torch.Tensor:
    """Return the upper 64 bits of the products of words [2, n] and multipliers, in halves [2, 2, 1, 1]."""
    parts = torch.stack([words & _HALF, (words >> 32) & _HALF], 1)[:, None]  # [2, 1, half, n]
    products = parts * halves  # [2, half of the multiplier, half of the word, n]
    low, carry = products & _HALF, (products >> 32) & _HALF
    middle = carry[:, 0, 0] + low[:, 0, 1] + low[:, 1, 0]
    upper: torch.Tensor = products[:, 1, 1] + carry[:, 0, 1] + carry[:, 1, 0] + (middle >> 32)
    return upper
