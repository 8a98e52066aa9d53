"""The cells of a study: every number that its file asks for, without looking at any data."""

from collections.abc import Iterable, Iterator
from itertools import product

from engine.study.kinds import KINDS_BY_NAME, Kind
from engine.study.study import Cell, DataSet, Evaluation, Study
from stores.json_types import Json

#: Kind of comparisons.
COMPARE = "compare"


def cells_of(study: Study) -> tuple[Cell, ...]:
    """Return the cells of a study in the order of its file, each of which makes one record.

    A data set's options replace those of the evaluation. Evaluations with several transforms, and probes and
    finetuning with several label columns that are learned apart, have a cell for each. Where two models or
    more are compared, the comparison follows their cells.
    """
    cells = (
        cell
        for data in study.datasets
        for evaluation in study.evaluations
        if data.name in evaluation.datasets
        for cell in _of(data, evaluation)
    )
    return tuple(cells)


def count_cells(study: Study, most: int) -> int:
    """Return the number of cells without making them; stops counting above `most`."""
    count = 0
    for evaluation in study.evaluations:
        names = frozenset(evaluation.datasets)
        models = len(evaluation.models)
        own = models + (evaluation.compare and models > 1)
        for data in study.datasets:
            if data.name not in names:
                continue
            kind = KINDS_BY_NAME[evaluation.kind]
            parts = sum(1 for _ in _parts(kind, options_for(evaluation, data), data, evaluation))
            count += own * parts * len(evaluation.modes) * len(evaluation.seeds)
            if count > most:
                return count
    return count


def options_for(evaluation: Evaluation, data: DataSet) -> dict[str, Json]:
    """Return the options of an evaluation on a data set, whose own replace them."""
    return {**evaluation.options, **data.options.get(evaluation.kind, {})}


def _of(data: DataSet, evaluation: Evaluation) -> Iterator[Cell]:
    kind = KINDS_BY_NAME[evaluation.kind]
    parts = list(_parts(kind, options_for(evaluation, data), data, evaluation))
    for mode, seed, options in product(evaluation.modes, evaluation.seeds, parts):
        for model in evaluation.models:
            yield Cell(data.name, model, evaluation.name, kind.name, mode, seed, options)
        if evaluation.compare and kind.metrics and len(evaluation.models) > 1:
            compared: dict[str, Json] = {
                "evaluation": kind.name,
                "metric": evaluation.metric,
                "models": [*evaluation.models],
            }
            if "label" in options:
                compared["label"] = options["label"]
            yield Cell(data.name, "", evaluation.name, COMPARE, mode, seed, compared)


def _parts(
    kind: Kind, options: dict[str, Json], data: DataSet, evaluation: Evaluation
) -> Iterator[dict[str, Json]]:
    """Give the options of the cells of one model, mode and seed."""
    folds = options.get("folds") is not None  # which have neither controls nor strata
    if kind.controls and evaluation.controls and not folds:
        options["controls"] = True
    if kind.strata and data.strata and not folds:
        options["strata"] = [*data.strata]
    if kind.labels:
        together = bool(options.get("multi_label"))
        for columns in [[*data.label]] if together else [[column] for column in data.label]:
            yield {**options, "label": [*columns]}
        return
    transforms = options.get("transforms")
    if kind.part == "transforms" and isinstance(transforms, list):
        for transform in transforms:
            yield {**options, "transforms": [transform]}
        return
    yield options


def compared_cells(cell: Cell, cells: Iterable[Cell]) -> tuple[Cell, ...]:
    """Return the cells whose models a comparison compares, in the order of the study."""
    models, kind = cell.options.get("models"), cell.options.get("evaluation")
    return tuple(
        one
        for one in cells
        if (one.dataset, one.evaluation, one.mode, one.seed)
        == (cell.dataset, cell.evaluation, cell.mode, cell.seed)
        and one.kind == kind
        and (not isinstance(models, list) or one.model in models)
        and ("label" not in cell.options or one.options.get("label") == cell.options["label"])
    )
