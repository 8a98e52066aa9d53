"""The images that each model is most confidently wrong about; pictures and image ids on request."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from engine.report.page.blocks import Block, Column, DataTable, Picture, Section, Value
from engine.report.page.budget import Group, budget_of
from engine.report.page.evidence import Evidence, evidence_of
from engine.report.page.galleries import cut_galleries, picture_of, privacy_note
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.page.predictions import CONFIDENT, Mistake, Mistakes, mistakes_of
from engine.report.page.repeats import repeats_of
from engine.report.page.thumbnails import BankImages
from engine.report.page.values import number_value
from engine.report.record_values import text

#: Most errors of a model whose images are shown.
_MOST = 8
#: Kinds of records with classes, those first whose errors are shown.
_KINDS = ("probe", "finetune", "knn")
_COLUMNS = (
    Column("data set"),
    Column("model"),
    Column("evaluation"),
    Column("predictions", numeric=True, hint="of test images; of findings, one for each that is known"),
    Column("errors", numeric=True),
    Column("confident", numeric=True, hint=f"errors with a probability of at least {CONFIDENT:g}"),
    Column("worst", numeric=True, hint="highest probability of an error; of k-NN, its share of the votes"),
    Column("worst error", hint="classes of the error with the highest probability"),
)
_CAPTION = (
    "Errors on test images and how sure the model was. Confident errors may be wrong labels: look at the "
    "images before you trust either."
)


@dataclass(frozen=True)
class _Judged:
    """A record with the errors of its predictions."""

    cell: Evidence
    mistakes: Mistakes


def sections(page: PageInput, options: PageOptions) -> tuple[Section, ...]:
    """Return the section; empty where no record has predictions of classes."""
    most = _MOST if options.thumbnails else 1
    judged = [_Judged(cell, mistakes_of(cell, most)) for cell in _first_of_each(page)]
    if not judged:
        return ()
    blocks: list[Block] = [
        DataTable("table-errors", _CAPTION, _COLUMNS, tuple(map(_row, judged)), notes=_notes(judged))
    ]
    if options.thumbnails:
        budget = budget_of("errors", page, options)
        shelves = _shelves(page, judged)
        blocks += cut_galleries("gallery-errors", shelves, budget, "images of errors", joined=True)
    else:
        blocks.append(privacy_note("Images of the worst errors"))
    return (Section("errors", "Worst errors", tuple(blocks)),)


def _first_of_each(page: PageInput) -> list[Evidence]:
    """Return one record for each data set, model, kind and label: in the default mode, of the first seed."""
    first: dict[tuple[str, str, str, str], Evidence] = {}
    ranked = sorted(evidence_of(page, *_KINDS), key=lambda cell: (cell.mode != "default", cell.seed or 0))
    for cell in ranked:
        label = text(cell.record.asked.get("label"))
        first.setdefault((cell.source.name, cell.model, cell.record.kind, label), cell)
    chosen = {id(cell.entry) for cell in first.values()}
    return [cell for cell in evidence_of(page, *_KINDS) if id(cell.entry) in chosen]


def _row(one: _Judged) -> tuple[Value, ...]:
    cell, mistakes = one.cell, one.mistakes
    names = (Value(cell.source.name), Value(cell.model), Value(cell.label))
    if mistakes.reason:
        return (*names, *(Value("–", reason=mistakes.reason if i == 0 else "") for i in range(5)))
    numbers = (mistakes.predictions, mistakes.errors, mistakes.confident)
    counted = tuple(number_value(float(number), "{:,.0f}") for number in numbers)
    if not mistakes.worst:
        return (*names, *counted, Value("–"), Value("none"))
    worst = mistakes.worst[0]
    return (*names, *counted, number_value(worst.probability), Value(_confused(worst)))


def _confused(mistake: Mistake) -> str:
    return f"{mistake.truth} taken for {mistake.predicted}"


def _notes(judged: Sequence[_Judged]) -> tuple[str, ...]:
    notes = []
    if any(one.cell.record.kind == "knn" for one in judged):
        notes.append("A share of the votes of k-NN is no calibrated probability.")
    if any(repeats_of(one.cell.record) > 1 for one in judged):
        notes.append("Of a cross-validation with several repeats the first one counts.")
    return tuple(notes)


def _shelves(page: PageInput, judged: Sequence[_Judged]) -> list[tuple[str, list[tuple[str, Group]]]]:
    """Return the errors of each model on each data set, of the first kind that it has."""
    chosen: dict[tuple[str, str], _Judged] = {}
    for kind in _KINDS:
        for one in judged:
            if one.cell.record.kind == kind and one.mistakes.worst:
                chosen.setdefault((one.cell.source.name, one.cell.model), one)
    images = {source.name: BankImages(source) for source in page.sources}
    shelves = []
    for one in judged:
        cell = one.cell
        if chosen.get((cell.source.name, cell.model)) is one:
            title = f"{cell.source.name}, {cell.model}: most confident errors, {cell.label}"
            own = images[cell.source.name]
            groups: list[tuple[str, Group]] = [
                ("", partial(_pictures, own, cell, mistake)) for mistake in one.mistakes.worst
            ]
            shelves.append((title, groups))
    return shelves


def _pictures(images: BankImages, cell: Evidence, mistake: Mistake) -> tuple[Picture, ...]:
    title = f"{_confused(mistake)}, {mistake.probability:.3f}; {mistake.image_id}"
    alt = f"Image {mistake.image_id}: {mistake.truth}, predicted {mistake.predicted}"
    make = partial(images.uncropped, cell.entry.feature, mistake.row)
    return (picture_of(title, make, alt),)
