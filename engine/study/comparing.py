"""Paired comparisons of a study's models, and of the models of any bank, as records of kind `compare`."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from engine.evals.comparison.choose import Choice, Chosen, question_of
from engine.evals.comparison.evaluate import compare_records
from engine.evals.comparison.options import METRICS, Options
from engine.evals.comparison.words import objects
from engine.runtime import usable_cores
from engine.study.cells import COMPARE
from engine.study.ledger import Ledger, of_cell
from engine.study.study import Cell
from engine.versions import versions
from stores.backends.location import Place
from stores.bank.reader import Bank
from stores.bank.record_index import RecordEntry, text_of
from stores.bank.records import RunRecord
from stores.errors import EmbankError, Refused
from stores.json_types import Json, JsonObject


def compare_cell(ledger: Ledger | None, cell: Cell, cells: Sequence[Cell], threads: int | None) -> RunRecord:
    """Compare the models of cells that are done, on the images that all of them have.

    Args:
        ledger: of the bank; None where there is none.
        cell: the comparison.
        cells: `compared_cells`.
        threads: of the CPU; None takes all usable cores.

    Raises:
        Refused: fewer than two models are done, or what `engine.evals.comparison` refuses.
        BankError: damage.
    """
    done = [(one.model, ledger.record(one) if ledger else None) for one in cells]
    entries = [replace(entry, model=model) for model, entry in done if entry is not None]
    if ledger is None or len(entries) < 2:
        raise Refused(
            f"{len(entries)} of {len(cells)} models have a result of {cell.evaluation}",
            "A comparison needs two",
            "see why the others have none (`embank study status`), and run the study again",
        )
    metric = text_of(cell.options.get("metric")) or None
    options = Options(metric=metric, common=True, seed=cell.seed, threads=threads or usable_cores())
    settings: JsonObject = {"evaluation": cell.evaluation, "mode": cell.mode, "seed": cell.seed}
    own = _record(ledger.bank, entries, options, settings, {"records": {**ledger.basis(cells)}})
    return of_cell(own, cell)


def comparison_records(bank: Place | str, entries: Sequence[RecordEntry]) -> list[RecordEntry]:
    """Compare the models of a bank in memory: nothing is written.

    Args:
        entries: records of the bank, oldest first. Those that answer the same question are compared, the
            latest of each model; questions that a record of kind `compare` answers are left out.

    Returns:
        A record for each question that two models and more have answered, as an entry without a file. What
        cannot be compared, e.g. records of different images, is left out.
    """
    store = Bank.open(bank)
    answered = {_names_compared(entry) for entry in entries if _kind(entry) == COMPARE}
    made = []
    for own in _questions(entries):
        names = frozenset(entry.name for entry in own)
        if len(own) < 2 or any(names <= names_answered for names_answered in answered):
            continue
        try:
            record = _record(store, own, Options(threads=usable_cores()), _settings(own[0]), {})
        except EmbankError:
            continue
        newest = max(entry.record.created for entry in own if entry.record is not None)
        made.append(RecordEntry("", "", replace(record, created=newest)))  # the same again, when made again
    return made


def _questions(entries: Iterable[RecordEntry]) -> list[list[RecordEntry]]:
    """Group records of comparable kinds by their question; of each model the latest."""
    groups: dict[str, dict[str, RecordEntry]] = {}
    for entry in entries:
        if entry.record is not None and entry.record.kind in METRICS:
            question = f"{entry.record.kind} {question_of(entry.record)}"
            groups.setdefault(question, {})[entry.feature or entry.model] = entry
    return [list(own.values()) for own in groups.values()]


def _settings(entry: RecordEntry) -> JsonObject:
    """Return the settings of a record that say which comparison of a bank it belongs to."""
    assert entry.record is not None
    own = entry.record.asked
    return {"evaluation": entry.record.kind, "mode": own.get("mode"), "seed": own.get("seed")}


def _record(
    bank: Bank,
    entries: Sequence[RecordEntry],
    options: Options,
    settings: Mapping[str, Json],
    more_used: Mapping[str, Json],
) -> RunRecord:
    """Compare the models of some records of one kind, which the settings name."""
    start = time.perf_counter()
    chosen = tuple(Chosen(bank, entry) for entry in entries)
    names = tuple(entry.model for entry in entries)
    result = compare_records(Choice(_kind(entries[0]), chosen, names, ()), options)
    asked: JsonObject = {
        **settings,
        "kind": result.setting.evaluation,
        "metric": result.setting.metric,
        "models": list(names),
        "label": _label(entries[0]),
        "resamples": options.resamples,
    }
    used: JsonObject = {
        "manifest_digest": bank.manifest_digest,
        "image_digest": bank.image_digest,
        "compared": [entry.name for entry in entries],
        **more_used,
    }
    seconds: JsonObject = {"total": round(time.perf_counter() - start, 4)}
    metrics = result.to_dict()
    for standing in objects(metrics["models"]):
        del standing["bank"]  # the record's own, wherever it is taken
    return RunRecord.now(
        COMPARE, asked=asked, used=used, metrics=metrics, seconds=seconds, versions=versions()
    )


def _names_compared(entry: RecordEntry) -> frozenset[str]:
    assert entry.record is not None
    names = entry.record.used.get("compared")
    return frozenset(map(text_of, names)) if isinstance(names, list) else frozenset()


def _kind(entry: RecordEntry) -> str:
    return "" if entry.record is None else entry.record.kind


def _label(entry: RecordEntry) -> str:
    return "" if entry.record is None else text_of(entry.record.asked.get("label"))
