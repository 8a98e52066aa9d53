"""Compact letter display: models that share a letter cannot be told apart.

Insert-and-absorb of Piepho, Journal of Computational and Graphical Statistics 13 (2004) 456, doi
10.1198/1061860043515.
"""

from string import ascii_lowercase

import numpy as np
from numpy.typing import NDArray


def letters(different: NDArray[np.bool_]) -> tuple[str, ...]:
    """Return the letters of each of M models; two have one in common exactly if they are not different.

    Args:
        different: bool [M, M], symmetric; the models are in order, the best first, so that it has `a`.
    """
    models = len(different)
    columns = [frozenset(range(models))] if models else []
    for first, second in zip(*np.nonzero(np.triu(different, 1)), strict=True):
        pair = {int(first), int(second)}
        split = [column for column in columns if pair <= column]
        columns = [column for column in columns if not pair <= column]
        columns += [column - {member} for column in split for member in pair]
        columns = _absorbed(columns)
    columns.sort(key=sorted)
    return tuple(
        "".join(_letter(place) for place, column in enumerate(columns) if model in column)
        for model in range(models)
    )


def _absorbed(columns: list[frozenset[int]]) -> list[frozenset[int]]:
    """Leave out columns that are part of another one."""
    unique = list(dict.fromkeys(columns))
    return [column for column in unique if not any(column < other for other in unique)]


def _letter(place: int) -> str:
    """Return a, b, ... z, and then a1, b1, ..."""
    turn, letter = divmod(place, len(ascii_lowercase))
    return ascii_lowercase[letter] + (str(turn) if turn else "")
