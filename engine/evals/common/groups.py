"""When evaluations keep a patient's images apart, and what they say where patients are unknown.

By default they are kept apart wherever groups (patients) are known. `as-published` never does, as the study.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.common.advice import name_column
from engine.evals.common.labels import group_codes
from engine.evals.common.validity import ValidityIssue, issue

#: Why there is no interval over patients.
NO_GROUP = "no image names its patient (group)"


def known_groups(groups: Any, count: int, rows: NDArray[np.intp]) -> NDArray[np.int64] | None:
    """Read groups as codes int64 [N], or None if not one of the rows has a group.

    Args:
        groups: [N] whole numbers or texts (`engine.evals.common.labels`); None where there are none.
        count: N, the number of labels.
        rows: that take part.

    Raises:
        Refused: not one group a label, or as `engine.evals.common.labels.group_codes`.
    """
    if groups is None:
        return None
    codes = group_codes(groups).codes
    if len(codes) != count:
        raise Refused(f"{len(codes)} groups for {count} labels", "There is one a row", "give one a row")
    return codes if (codes[rows] >= 0).any() else None


def kept_apart(
    requested: bool | None, known: bool, *, what: str, published: bool = False
) -> tuple[bool, tuple[ValidityIssue, ...]]:
    """Decide whether patients are kept apart; also return what that means for the numbers.

    Args:
        requested: the option; None decides by default.
        known: whether an image that takes part has a group.
        what: where one patient's images could meet.
        published: follow the study, which did not keep patients apart.

    Raises:
        Refused: they are to be kept apart, and no group is known.
    """
    if requested and not known:
        raise Refused(
            "No image that takes part has a group",
            "--group-disjoint keeps a patient's images apart by the group column",
            f"{name_column('group')}, or leave --group-disjoint out",
        )
    if published:
        return False, (issue("patients_mixed", f"As in the study, images of one patient may be {what}"),)
    if not known:
        text = f"No image names its patient (group): images of one patient may be {what}"
        return False, (issue("patients_unknown", text),)
    if requested is False:
        return False, (issue("patients_mixed", f"Images of one patient may be {what}"),)
    return True, ()
