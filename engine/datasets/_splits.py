"""Splits by patient that do not depend on the order of rows, and the study's, which are neither."""

import hashlib
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engine.errors import Refused
from stores.limits import check_seed
from stores.manifest.text import clean

if TYPE_CHECKING:
    import pandas as pd

#: The study's seeds: for the shuffle of the label table, and for the choice of validation images.
PUBLISHED_SHUFFLE_SEED = 42
PUBLISHED_VALIDATION_SEED = 0
#: Size of the study's few-shot pools of large sets: its loop breaks after index 10,000.
PUBLISHED_POOL = 10_001


def seed_of(text: str) -> int:
    """Parse the option `seed`.

    Raises:
        Refused: it is not a whole number from 0 to the largest seed.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 100):
        raise Refused(
            f"seed={text!r}", "A seed is a whole number of zero or more", "write for instance seed=1"
        )
    check_seed(int(text))
    return int(text)


def by_group(groups: "pd.Series[str]", seed: int, test_share: float) -> npt.NDArray[Any]:
    """Assign each group to `train` or `test` by a hash of its name and the seed.

    Nothing else has an influence, neither the order of the rows nor the other groups: the test patients of a
    part of the data are test patients of the complete data. Hence the share of test groups is `test_share` on
    average, with a standard deviation of sqrt(p (1 - p) / groups).

    Args:
        groups: name of each row's group, text [rows]; for rows without a group, a name that replaces it.
        seed: another seed gives another split.
        test_share: probability of `test`.

    Returns:
        `train` or `test`, object [rows].
    """
    import pandas as pd

    codes, names = pd.factorize(groups.map(clean))  # the manifest cleans names in the same way
    uniform = np.array([_uniform(str(name), seed) for name in names])
    return np.where(uniform < test_share, "test", "train").astype(object)[codes]


def _uniform(name: str, seed: int, purpose: str = "split") -> float:
    """Return a number in [0, 1) made of the first 53 bits of a SHA-256."""
    digest = hashlib.sha256(f"embank {purpose}\0{seed}\0{name}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def soft_targets(image_ids: "pd.Series[str]", seed: int, low: float, high: float) -> npt.NDArray[np.float64]:
    """Draw a uniform number in [low, high) for each image, from its id and the seed alone; float64 [rows]."""
    return np.array([low + (high - low) * _uniform(name, seed, "soft label") for name in image_ids])


def published_order(rows: int) -> npt.NDArray[np.int64]:
    """Return the study's shuffle of a label table, int64 [rows]: pandas' `sample(frac=1, random_state=42)`.

    It needs NumPy's legacy generator, whose stream is frozen (NEP 19).
    """
    generator = np.random.RandomState(PUBLISHED_SHUFFLE_SEED)
    return generator.permutation(rows).astype(np.int64)


def published_split(frame: "pd.DataFrame", train_rows: int | None = None) -> "pd.DataFrame":
    """Shuffle a label table as the study did; the first rows are `train`, the others `test`.

    Args:
        frame: the label table in the order of its file.
        train_rows: number of training rows; None for floor(0.8 rows).

    Returns:
        The rows in shuffled order with the column `split`.
    """
    train = math.floor(0.8 * len(frame)) if train_rows is None else train_rows
    shuffled = frame.iloc[published_order(len(frame))].reset_index(drop=True)
    return shuffled.assign(split=np.where(np.arange(len(frame)) < train, "train", "test").astype(object))


def published_validation(train_rows: int) -> npt.NDArray[np.int64]:
    """Return the training rows on which the study's linear and finetune evaluations validate.

    Returns:
        int64 [floor(0.2 rows)]: indices into the shuffled training rows, in the order of the draw.
    """
    indices = np.arange(train_rows)
    np.random.RandomState(PUBLISHED_VALIDATION_SEED).shuffle(indices)
    return indices[: math.floor(0.2 * train_rows)]


def with_validation(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Add the column `validation`: `yes` for the training rows in `published_validation`, else empty."""
    train = np.flatnonzero(frame["split"] == "train")
    marks = np.full(len(frame), "", dtype=object)
    marks[train[published_validation(len(train))]] = "yes"
    return frame.assign(validation=marks)


def part_note(rows: int, published_rows: int) -> list[str]:
    """Return a note if the label table has another number of rows than the study's."""
    if rows == published_rows:
        return []
    return [
        f"the label table has {rows:,} rows, the study's had {published_rows:,}: these are the study's "
        "rules, but not its split, for its shuffle depends on the number of rows"
    ]
