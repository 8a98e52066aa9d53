"""Pairs of views of one subject, for invariance between views."""

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engine.errors import Refused

if TYPE_CHECKING:
    from stores.manifest.manifest import Manifest

#: Column that names, in the row of one view, the `image_id` of the view it is compared with.
COLUMN = "pair"


def view_pairs(manifest: "Manifest") -> npt.NDArray[np.int64]:
    """Rows of the manifest that show one subject in two views.

    Adapters write the column `pair`: CheXpert in each lateral's row (its partner is `view1_frontal` of the
    study), EyePACS in each left eye's (its partner is the right eye of the same level). Several laterals may
    share a frontal. Pairs whose partner is not in the manifest are passed over.

    Returns:
        int64 [pairs, 2]: row of the view that bears the label, row of its partner; in row order.

    Raises:
        Refused: the manifest has no such column.
    """
    if COLUMN not in manifest.table.column_names:
        raise Refused(
            "A manifest without the column `pair`",
            "Pairs of views are known for CheXpert and EyePACS",
            "build it with `embank manifest build`, or add a column `pair` with the partner's image_id",
        )
    row_of = {name: row for row, name in enumerate(manifest.image_ids)}
    rows: list[Any] = [
        (row, row_of[partner])
        for row, partner in enumerate(manifest.column(COLUMN))
        if partner and partner in row_of
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 2)
