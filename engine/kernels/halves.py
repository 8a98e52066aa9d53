"""float16 to float32 at the speed of memory: numpy converts one number at a time, in about 2 ns."""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SHIFT, _KEEP, _SCALE = np.int32(13), np.int32(-0x70002000), np.float32(2.0**112)
_NATIVE = np.dtype(np.float16).newbyteorder("=")


def widen(source: NDArray[np.float16], into: NDArray[np.float32]) -> None:
    """Write the numbers of `source` into `into`, exactly.

    The sign-extended bits, moved so that exponent and fraction lie where float32 has them, are the number
    times 2^-112; so subnormal numbers come out right as well. Infinity and NaN do not: they become finite,
    from 65,536 on.

    Args:
        source: native float16; `into`: float32 of the same shape. Best both in the cache.
    """
    bits = into.view(np.int32)
    np.copyto(bits, source.view(np.int16))
    np.left_shift(bits, _SHIFT, out=bits)
    np.bitwise_and(bits, _KEEP, out=bits)  # of the 17 copies of the sign, keep the first
    np.multiply(into, _SCALE, out=into)


def finite_rows(features: NDArray[Any], block: int = 512) -> NDArray[np.bool_]:
    """bool [N]: rows of [N, d] without NaN or infinity."""
    found = np.empty(len(features), np.bool_)
    for start in range(0, len(features), block):
        rows = features[start : start + block]
        if rows.dtype == _NATIVE and sys.byteorder == "little" and rows.flags.c_contiguous:
            bits = rows.view(np.int16) & np.int16(0x7C00)
            found[start : start + block] = bits.max(axis=1, initial=0) != 0x7C00
        else:
            found[start : start + block] = np.isfinite(rows).all(axis=1)
    return found
