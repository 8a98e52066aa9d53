"""float16 to float32 at the speed of memory: numpy converts one number at a time, in about 2 ns."""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SHIFT, _KEEP = np.int32(13), np.int32(-0x70002000)
_NATIVE = np.dtype(np.float16).newbyteorder("=")
#: What `widen` leaves to be multiplied.
SCALE = np.float32(2.0**112)


def widen(source: NDArray[np.float16], into: NDArray[np.float32]) -> None:
    """Write the numbers of `source`, divided by `SCALE`, into `into`: exactly, subnormal ones as well.

    They are the sign-extended bits, moved to where float32 has exponent and fraction. Multiplying by the
    power of two is left to the caller, who can often do it to something smaller. Infinity and NaN become
    finite, from 65,536 on.

    Args:
        source: native float16; `into`: float32 of the same shape. Best both in the cache.
    """
    bits = into.view(np.int32)
    np.copyto(bits, source.view(np.int16))
    np.left_shift(bits, _SHIFT, out=bits)
    np.bitwise_and(bits, _KEEP, out=bits)  # of the 17 copies of the sign, keep the first


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
