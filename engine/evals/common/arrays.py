"""What evaluations on plain arrays share: usable rows, and parts as a bank's columns."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.errors import Refused
from engine.evals.common.labels import Labels, group_codes
from engine.evals.probe.parts import Columns
from engine.kernels.vectors import Vectors


def finite(features: NDArray[Any]) -> NDArray[np.bool_]:
    """bool [N]: rows of finite numbers, looked at block by block."""
    found = np.empty(len(features), bool)
    for start, block in Vectors(features).blocks():
        # A sum is finite only if its terms are; in float64 finite float32 terms cannot overflow.
        found[start : start + len(block)] = np.isfinite(block.sum(axis=1, dtype=np.float64))
    return found


def columns_of(rows: int, parts: Mapping[str, ArrayLike | None], groups: ArrayLike | None) -> Columns:
    """Boolean parts and group codes as the columns of a manifest.

    Args:
        rows: N.
        parts: name -> bool [N], or None where there is none.
        groups: [N] whole numbers or texts (`engine.evals.common.labels`).

    Raises:
        Refused: lengths that differ, or a row in two parts.
    """
    given = {name: np.asarray(each, bool) for name, each in parts.items() if each is not None}
    read = Labels(np.full(rows, -1, np.int64)) if groups is None else group_codes(groups)
    values, group = np.unique(read.codes, return_inverse=True)
    known = values >= 0
    group = group - int((~known).sum())
    lengths = {len(each) for each in (*given.values(), group)} | {rows}
    if len(lengths) > 1:
        raise Refused(
            f"Arrays of {', '.join(map(str, sorted(lengths)))} rows",
            "Features, labels, parts and groups belong to the same rows",
            "give arrays of one length",
        )
    twice = int((np.sum(list(given.values()), axis=0) > 1).sum())
    if twice:
        raise Refused(f"{twice} rows in two parts", "No row plays two parts", "separate the parts")
    split = np.full(rows, -1, np.int64)
    for code, part in enumerate(given.values()):
        split[part] = code
    names = [str(code) if read.names is None else read.names[code] for code in values[known].tolist()]
    return Columns([str(row) for row in range(rows)], split, list(given), group, names)
