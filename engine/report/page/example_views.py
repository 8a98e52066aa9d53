"""Views of one image that an invariance compared, made again from the record's parameters."""

from collections.abc import Sequence

import numpy as np

from engine.embed.restore import recipe_of
from engine.errors import BadImage, Refused
from engine.report.page.evidence import Evidence
from engine.report.page.thumbnails import BankImages, NoPicture, Pixels
from engine.report.record_values import at, number, numbers
from stores.bank.reader import Bank
from stores.errors import BankError

#: Most views of a transform that are shown.
_MOST = 5


def views_of(cell: Evidence, images: BankImages, row: int) -> list[tuple[str, Pixels]]:
    """Return the image as the model sees it, then some of its views: title and uint8 [S, S, 3] each.

    The image is rendered by Pillow, whatever decoder made the bank's features; the views are those of the
    default mode, which transforms these pixels.

    Args:
        cell: of an invariance to a transform.
        images: of the data set.
        row: of the image.

    Raises:
        NoPicture: the image is not there, or the transform is not known. MachineFault: the storage failed.
    """
    import torch

    from engine.kernels.transforms import Frame, find_transform

    feature = cell.entry.feature
    try:
        recipe = recipe_of(Bank.open(cell.source.bank), feature)
        transform = find_transform(str(cell.record.asked.get("transform")))
    except (BankError, Refused):
        raise NoPicture("it cannot be made again") from None
    pixels = images.rendered(feature, row, recipe)
    listed = at(cell.record.metrics, "by_view.parameters")
    parameters = [tuple(numbers(view).tolist()) for view in listed] if isinstance(listed, list) else []
    if not parameters or any(len(view) != len(transform.parameters) for view in parameters):
        raise NoPicture("the record has no parameters")
    drawn = np.unique(np.linspace(0, len(parameters) - 1, min(_MOST, len(parameters))).round().astype(int))
    chosen = [parameters[place] for place in drawn.tolist()]
    try:
        frame = Frame(recipe.side / 256, recipe.side)
        made = transform.render(torch.from_numpy(pixels.copy()), chosen, frame).numpy()
    except (BadImage, Refused):
        raise NoPicture("the transform cannot be applied to it") from None
    titles = [_title(transform.parameters, view) for view in chosen]
    return [("image", pixels), *zip(titles, made, strict=True)]


def row_of(cells: Sequence[Evidence]) -> int:
    """Return the first row that all records scored; -1 where there is none."""
    shared: set[int] | None = None
    for cell in cells:
        rows = cell.record.used.get("rows")
        own = {int(number(row)) for row in rows if isinstance(row, int)} if isinstance(rows, list) else set()
        shared = own if shared is None else shared & own
    return min(shared, default=-1) if shared else -1


def _title(names: Sequence[str], values: Sequence[float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in zip(names, values, strict=True))
