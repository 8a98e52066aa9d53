"""Predictions of single images, as tables that are written beside a record."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from stores.bank.records import Attachment
from stores.parquet import Coded, Column, Texts, encode

#: Most scores that are written beside a record: images times classes.
MOST_SCORES = 50_000_000


@dataclass(frozen=True, eq=False, repr=False)
class Table:
    """Named columns of one length.

    Attributes:
        columns: name -> numbers, bools or texts.
        images: ending -> intp [n], which image of the features each row is about: "" where it is about one,
            `_a` and `_b` where about two; empty where about none.
    """

    columns: Mapping[str, Column]
    images: Mapping[str, NDArray[np.intp]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter([*self.images.values(), *self.columns.values()])))

    def to_parquet(self, image_ids: Callable[[], Texts]) -> bytes:
        """Return a Parquet file; rows about images begin with `row` and `image_id`, perhaps with an ending.

        Args:
            image_ids: of all images of the features, called only where rows are about images.
        """
        named: dict[str, Column] = {}
        for ending, rows in self.images.items():
            named[f"row{ending}"] = rows.astype(np.int64)
            named[f"image_id{ending}"] = image_ids().take(rows)
        return encode({**named, **self.columns})


@dataclass(frozen=True, eq=False, repr=False)
class Predictions:
    """Predictions of an evaluation.

    Attributes:
        tables: name -> table; an only table is called "".
    """

    tables: Mapping[str, Table] = field(default_factory=dict)

    @classmethod
    def of(cls, rows: NDArray[np.intp], columns: Mapping[str, Column]) -> "Predictions":
        """Return predictions of one table with a row for each image."""
        return cls({"": Table(columns, {"": rows})})

    def attachments(self, image_ids: Callable[[], Texts]) -> dict[str, Attachment]:
        """Return the files that belong beside a record; arguments as for `Table.to_parquet`."""
        return {
            name: Attachment(table.to_parquet(image_ids), len(table)) for name, table in self.tables.items()
        }


def coded(codes: NDArray[np.integer], names: tuple[str, ...] | None) -> Coded:
    """Return a column of labels as texts; numbers that stand for themselves become texts too.

    Args:
        codes: [n], none negative.
        names: what they stand for; None if for themselves.
    """
    if names is not None:
        return Coded(codes, names)
    values, places = np.unique(codes, return_inverse=True)
    return Coded(places, [str(value) for value in values.tolist()])


def class_scores(
    truth: NDArray[np.integer], scores: NDArray[np.float64], classes: Sequence[str]
) -> dict[str, Column]:
    """Return `truth`, `predicted` and `score.CLASS` of each class; only the best `score` if these are many.

    Args:
        truth: [n] positions in `classes`.
        scores: [n, K]; the class of the largest is predicted, of ties the first.
        classes: K different names.
    """
    columns: dict[str, Column] = {
        "truth": Coded(truth, classes),
        "predicted": Coded(scores.argmax(axis=1), classes),
    }
    if scores.size > MOST_SCORES:
        return {**columns, "score": scores.max(axis=1)}
    return {**columns, **{f"score.{name}": scores[:, position] for position, name in enumerate(classes)}}
