"""Splits: by patient and independent of row order, and the study's, which are neither."""

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

#: Seeds of the study's shuffle of the label table and of its choice of validation images.
PUBLISHED_SHUFFLE_SEED = 42
PUBLISHED_VALIDATION_SEED = 0
#: The study's few-shot pools of large sets: its loop breaks after index 10,000.
PUBLISHED_POOL = 10_001


def seed_of(text: str) -> int:
    """The option `seed` as a number.

    Raises:
        Refused: it is no whole number of zero or more, or larger than any seed may be.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 100):
        raise Refused(
            f"seed={text!r}", "A seed is a whole number of zero or more", "write for instance seed=1"
        )
    check_seed(int(text))
    return int(text)


def by_group(groups: "pd.Series[str]", seed: int, test_share: float) -> npt.NDArray[Any]:
    """Put each group into `train` or `test` by a hash of its name and the seed.

    A group's side depends on nothing else: not on the order of the rows, nor on which other groups there
    are, so the test patients of a part of the data are test patients of the whole. The share of test groups
    is therefore `test_share` on average, with a standard deviation of sqrt(p (1 - p) / groups).

    Args:
        groups: name of each row's group, text [rows]; for rows without one, what stands for it.
        seed: another seed gives another split.
        test_share: probability of `test`.

    Returns:
        `train` or `test`, object [rows].
    """
    import pandas as pd

    codes, names = pd.factorize(groups.map(clean))  # what looks the same is one patient in the manifest too
    uniform = np.array([_uniform(str(name), seed) for name in names])
    return np.where(uniform < test_share, "test", "train").astype(object)[codes]


def _uniform(name: str, seed: int, purpose: str = "split") -> float:
    """A number in [0, 1) from the first 53 bits of a SHA-256."""
    digest = hashlib.sha256(f"embank {purpose}\0{seed}\0{name}".encode()).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53


def soft_targets(image_ids: "pd.Series[str]", seed: int, low: float, high: float) -> npt.NDArray[np.float64]:
    """A uniform draw in [low, high) for each image, from its name and the seed alone; float64 [rows]."""
    return np.array([low + (high - low) * _uniform(name, seed, "soft label") for name in image_ids])


def published_order(rows: int) -> npt.NDArray[np.int64]:
    """The study's shuffle of a label table, int64 [rows]; equal to pandas' `sample(frac=1, random_state=42)`.

    The legacy generator is needed: its stream is frozen (NumPy NEP 19).
    """
    generator = np.random.RandomState(PUBLISHED_SHUFFLE_SEED)
    return generator.permutation(rows).astype(np.int64)


def published_split(frame: "pd.DataFrame", train_rows: int | None = None) -> "pd.DataFrame":
    """Shuffle as the study did, and call the first rows `train`.

    Args:
        frame: the label table in the order of its file.
        train_rows: how many; floor(0.8 rows) if not given.

    Returns:
        the rows in shuffled order with the column `split`.
    """
    train = math.floor(0.8 * len(frame)) if train_rows is None else train_rows
    shuffled = frame.iloc[published_order(len(frame))].reset_index(drop=True)
    return shuffled.assign(split=np.where(np.arange(len(frame)) < train, "train", "test").astype(object))


def published_validation(train_rows: int) -> npt.NDArray[np.int64]:
    """Which training rows the study's linear and finetune evaluations validate on, int64 [floor(0.2 rows)].

    Indices into the training rows in shuffled order, in the order of the draw.
    """
    indices = np.arange(train_rows)
    np.random.RandomState(PUBLISHED_VALIDATION_SEED).shuffle(indices)
    return indices[: math.floor(0.2 * train_rows)]


def with_validation(frame: "pd.DataFrame") -> "pd.DataFrame":
    """Add the column `validation`: `yes` for the training rows that `published_validation` names."""
    train = np.flatnonzero(frame["split"] == "train")
    marks = np.full(len(frame), "", dtype=object)
    marks[train[published_validation(len(train))]] = "yes"
    return frame.assign(validation=marks)


def part_note(rows: int, whole: int) -> list[str]:
    """A note that the label table has another number of rows than the study's; nothing if not."""
    if rows == whole:
        return []
    return [
        f"the label table has {rows:,} rows, the study's had {whole:,}: these are the study's rules, but not "
        "its split, for its shuffle depends on the number of rows"
    ]
