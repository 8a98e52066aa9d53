"""Class labels of a fit: how many classes there are, and the weight of each row in the loss."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.kernels.codes import distinct


def count_classes(targets: NDArray[np.integer[Any]]) -> int:
    """Return the number of classes K, after checking that each of 0 to K - 1 has a row.

    Args:
        targets: int [n], classes from 0; -1 for unlabelled rows.

    Raises:
        Refused: fewer than two classes, or a class without rows.
    """
    classes = distinct(targets[targets >= 0])
    if len(classes) < 2:
        raise Refused(
            f"{len(classes)} class among {int((targets >= 0).sum())} labelled rows",
            "A classifier needs at least two classes",
            "check the label column and the rows chosen",
        )
    if len(classes) <= classes[-1]:
        missing = int(np.flatnonzero(classes != np.arange(len(classes)))[0])
        raise Refused(
            f"class {missing} without rows",
            "Every class below the largest needs rows to be fitted",
            "number the classes that have rows from 0 on",
        )
    return len(classes)


def row_weights(
    codes: NDArray[np.intp], classes: int, class_weight: str | Sequence[float] | None
) -> NDArray[np.float64]:
    """Return the weight of every row in the loss, float64 [n]; 0 where the code is -1.

    Args:
        codes: intp [n], class of each row, or -1.
        class_weight: None, `balanced` (n / (K n_k), as in scikit-learn) or K positive numbers.

    Raises:
        Refused: a class without rows, or class weights that are none of these.
    """
    labelled = codes >= 0
    counts = np.bincount(codes[labelled], minlength=classes)
    if (counts == 0).any():
        raise Refused(
            f"{int((counts > 0).sum())} of {classes} classes among {int(labelled.sum())} rows of a task",
            "Every class needs rows to be fitted",
            "leave that task out",
        )
    if class_weight is None:
        weights = np.ones(classes)
    elif isinstance(class_weight, str):
        if class_weight != "balanced":
            raise Refused(f"class weight {class_weight!r}", "It is balanced, or K numbers", "use balanced")
        weights = labelled.sum() / (classes * counts)
    else:
        weights = np.asarray(class_weight, np.float64)
        if weights.shape != (classes,) or not (np.isfinite(weights) & (weights > 0)).all():
            raise Refused(
                f"class weights {class_weight}",
                "They are positive and finite, one for each class",
                f"give {classes} positive numbers",
            )
    return np.where(labelled, weights[codes.clip(min=0)], 0.0)
