"""Evaluation of one cell: its options, a call of its kind's evaluation, and the records that come of it."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from engine.study.attempts import attempt
from engine.study.ledger import of_cell
from engine.study.options import options_of
from engine.study.study import Cell
from stores.bank.records import RunRecord, together
from stores.errors import EmbankError, Refused
from stores.limits import MAX_THREADS, check_whole


@dataclass(frozen=True)
class Machine:
    """Where a study is computed; small, and pickled for worker processes.

    Attributes:
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        precision: of embedding and finetuning, `auto`, `fp32`, `bf16` or `fp16`.
        threads: of the CPU for each process; None takes all usable cores.

    Raises:
        Refused: a number of threads out of range.
    """

    device: str = "auto"
    precision: str = "auto"
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.threads is not None:
            check_whole("threads", self.threads, 1, MAX_THREADS)

    @property
    def cores(self) -> int:
        """Threads as a number."""
        from engine.runtime import usable_cores

        return self.threads or usable_cores()

    @property
    def evaluation_device(self) -> str:
        """Return `cpu` or `cuda:N`, for evaluations from the bank alone."""
        from engine.evals.common.compute import evaluation_device

        return evaluation_device(self.device)


#: Takes a line on how far an evaluation is.
Tell = Callable[[str], None]


def _silent(_: str) -> None:
    pass


def evaluate(bank: Path, cell: Cell, machine: Machine, tell: Tell = _silent) -> RunRecord:
    """Evaluate a cell and return its record, which is not written.

    Args:
        bank: with the feature of the cell's model.
        tell: takes lines on its progress.

    Raises:
        EmbankError: as the evaluation of the cell's kind, or because the record could not be made.
    """
    with _blas_threads(machine.cores), together(write=False) as batch:
        _CALLS[cell.kind](bank, cell, machine, tell)
    if batch.lost:
        raise batch.lost[0]
    if len(batch.waiting) != 1:
        raise Refused(
            f"{len(batch.waiting)} results", "A cell is one number with its details", "split its options"
        )
    return of_cell(batch.waiting[0][0], cell)


def _blas_threads(count: int) -> AbstractContextManager[object]:
    """Let numpy's BLAS compute with `count` threads: the last bits of a sum depend on their number.

    Elsewhere it takes all cores, and in dask's worker processes one, whatever `Machine.threads` says.
    """
    import scipy.linalg  # noqa: F401 - which has a BLAS of its own, limited only if it is loaded
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[object] = threadpool_limits(count, user_api="blas")
    return limits


def evaluated(bank: Path, cell: Cell, machine: Machine, tell: Tell = _silent) -> RunRecord | EmbankError:
    """Evaluate a cell as `evaluate` does; return the errors of this cell alone (`engine.study.attempts`)."""
    return attempt(evaluate, bank, cell, machine, tell)


def _counting(tell: Tell) -> Callable[[str, int, int], None]:
    return lambda what, done, todo: tell(f"{what} {done:,}/{todo:,}")


def _options(cell: Cell) -> Any:
    return options_of(cell.kind, cell.options, cell.mode, cell.seed)


def _labels(cell: Cell) -> tuple[str, ...]:
    """Return the columns to learn."""
    given = cell.options.get("label")
    columns = tuple(map(str, given)) if isinstance(given, list) else (str(given),) if given else ()
    return columns or ("label",)


def _fewshot(bank: Path, cell: Cell, machine: Machine, tell: Tell) -> None:
    from engine.evals.fewshot.bank import fewshots_from_bank

    options = _options(cell)
    fewshots_from_bank(
        bank,
        [cell.model],
        options.protocol,
        split=options.split,
        bootstrap=options.bootstrap,
        device=machine.device,
        threads=machine.cores,
        controls=bool(cell.options.get("controls")),
        progress=lambda _: _counting(tell),
    )


def _knn(bank: Path, cell: Cell, machine: Machine, tell: Tell) -> None:
    from engine.evals.neighbours.knn import KnnOptions, knn_from_bank
    from engine.evals.neighbours.options import Voting

    options = _options(cell)
    voting = {field.name: getattr(options, field.name) for field in fields(Voting)}
    knn_from_bank(
        bank,
        cell.model,
        KnnOptions(**voting, device=machine.evaluation_device, threads=machine.cores),
        train_split=options.train_split,
        test_split=options.test_split,
        leave_one_out=options.leave_one_out,
        controls=bool(cell.options.get("controls")),
        progress=_counting(tell),
    )


def _probe(bank: Path, cell: Cell, machine: Machine, tell: Tell) -> None:
    from engine.evals.common.compute import Compute
    from engine.evals.probe.bank import BankProbe, probes_from_bank

    options = _options(cell)
    request = BankProbe(
        labels=_labels(cell),
        multi_label=bool(options.findings),
        policies=options.policies,
        splits=options.splits,
        low_shot=options.low_shot,
        strata=options.strata,
        controls=bool(cell.options.get("controls")),
        folds=options.folds,
    )
    fitting = options.on(Compute(machine.evaluation_device, machine.cores))
    probes_from_bank(bank, [cell.model], request, fitting, on_progress=lambda _: _counting(tell))


def _finetune(bank: Path, cell: Cell, machine: Machine, tell: Tell) -> None:
    from engine.embed.restore import spec_of
    from engine.evals.finetune.bank import finetune
    from engine.evals.finetune.progress import Hooks
    from engine.report.finetune_progress import progress_line
    from engine.runtime import Runtime
    from stores.bank.reader import Bank

    store = Bank.open(bank)
    spec = spec_of(store, store.features(cell.model).name)
    published = cell.mode == "as-published" and machine.precision == "auto"
    precision = "fp32" if published else machine.precision
    runtime = Runtime.resolve(machine.device, precision, machine.threads, cell.seed)
    hooks = Hooks(on_progress=lambda progress: tell(progress_line(progress)))
    options, labels = _options(cell), _labels(cell)
    finetune(store.manifest(), [spec], bank, options, label=labels, runtime=runtime, hooks=hooks)


def _with_images(
    call: Callable[..., object],
    line: Callable[[Any], str],
    bank: Path,
    cell: Cell,
    machine: Machine,
    tell: Tell,
) -> None:
    """Run an evaluation that embeds images again; `line` says how far it is."""
    call(
        bank,
        cell.model,
        _options(cell),
        device=machine.device,
        threads=machine.threads,
        on_progress=lambda progress: tell(line(progress)),
    )


def _invariance(bank: Path, cell: Cell, machine: Machine, tell: Tell) -> None:
    from engine.evals.invariance.bank import invariances_from_bank
    from engine.report.console import progress_line

    _with_images(invariances_from_bank, progress_line, bank, cell, machine, tell)


def _multiview(bank: Path, cell: Cell, machine: Machine, tell: Tell) -> None:
    from engine.evals.invariance.bank import multiview_from_bank

    multiview_from_bank(
        bank, cell.model, _options(cell), device=machine.evaluation_device, threads=machine.threads
    )


def _saliency(bank: Path, cell: Cell, machine: Machine, tell: Tell) -> None:
    from engine.evals.saliency.bank import saliency_from_bank
    from engine.report.saliency_progress import saliency_line

    _with_images(saliency_from_bank, saliency_line, bank, cell, machine, tell)


def _reconstruct(bank: Path, cell: Cell, machine: Machine, tell: Tell) -> None:
    from engine.evals.reconstruction.bank import reconstruct_from_bank
    from engine.report.reconstruct_progress import reconstruction_line

    _with_images(reconstruct_from_bank, reconstruction_line, bank, cell, machine, tell)


def _audit(bank: Path, cell: Cell, machine: Machine, tell: Tell) -> None:
    from engine.evals.neighbours.audit import audit

    options = _options(cell)
    audit(
        bank,
        cell.model,
        threshold=options.threshold,
        max_pairs=options.max_pairs,
        device=machine.evaluation_device,
    )


#: Kind -> function that evaluates a cell of it, and keeps its records.
_CALLS: Mapping[str, Callable[[Path, Cell, Machine, Tell], None]] = {
    "fewshot": _fewshot,
    "knn": _knn,
    "probe": _probe,
    "finetune": _finetune,
    "invariance": _invariance,
    "multiview": _multiview,
    "saliency": _saliency,
    "reconstruct": _reconstruct,
    "audit": _audit,
}
