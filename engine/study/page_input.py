"""What the page of a study is made from: the records of its cells, and the cells that have none."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from engine.report.page.inputs import Gap, PageInput, Source
from engine.study import folder
from engine.study.command import command_of
from engine.study.image_sets import image_set_of
from engine.study.status import CellStatus, states_of
from engine.study.study import Study
from stores.backends.location import place
from stores.bank.record_index import RecordEntry


def page_input(study: Study, directory: Path) -> PageInput:
    """Return what the page of a study shows: the newest valid record of each cell, and gaps.

    Raises:
        BankError: a bank is damaged.
    """
    states = states_of(study, directory)
    copy, homes = directory / folder.COPY, (directory, directory.absolute(), directory.resolve(), study.root)
    return PageInput(
        title=study.title,
        sources=_sources(study, states),
        models=tuple(model.name for model in study.models),
        groups={model.name: model.group for model in study.models if model.group},
        gaps=tuple(_gap(state, homes) for state in states if state.entry is None),
        study=copy.read_text("utf-8") if copy.is_file() else "",
        commands={s.entry.id: command_of(study, s.cell, s.bank) for s in states if s.entry is not None},
        evaluations={s.entry.id: s.cell.evaluation for s in states if s.entry is not None},
    )


def _sources(study: Study, states: Sequence[CellStatus]) -> tuple[Source, ...]:
    """Group the records by their banks, in the order of the study."""
    domains = {dataset.name: dataset.domain for dataset in study.datasets}
    own: dict[str, list[RecordEntry]] = {}
    banks: dict[str, CellStatus] = {}
    for state in states:
        name = image_set_of(study, state.cell).name
        banks.setdefault(name, state)
        if state.entry is not None:
            model = state.cell.model or state.entry.model
            own.setdefault(name, []).append(replace(state.entry, model=model))
    return tuple(
        Source(
            banks[name].cell.dataset,
            place(banks[name].bank),
            tuple(entries),
            domains[banks[name].cell.dataset],
        )
        for name, entries in own.items()
    )


def _gap(status: CellStatus, homes: Sequence[Path]) -> Gap:
    cell, failure = status.cell, status.failure
    reason, remedy = status.reason or "it has not been made yet", status.remedy or "run the study again"
    if failure is not None:
        reason, remedy = f"{failure.value}. {failure.rule}", failure.remedy
    reason, remedy = relative(reason, homes), relative(remedy, homes)
    return Gap(cell.dataset, cell.model, cell.evaluation, cell.mode, cell.seed, status.state, reason, remedy)


def relative(text: str, homes: Sequence[Path]) -> str:
    """Return a text whose paths below any of some folders are relative to it, so that no page has them."""
    names = sorted({str(home) for home in homes} - {"."}, key=len, reverse=True)
    home = "|".join(map(re.escape, names))
    return re.sub(rf"(?<![\w./-])(?:{home})/", "", text) if home else text
