"""Checks of bank, decoder and weights before a run, so that a refusal leaves nothing on disk."""

from collections.abc import Sequence

from engine.embed.plan import Plan, group_by_rendering
from engine.embed.worker import Ready, make_ready
from engine.executors import Executor, Local
from engine.models import ModelSpec
from stores.backends import locks
from stores.backends.location import Place
from stores.bank.layout import FeatureLayout, Grid, default_chunk_rows
from stores.bank.markers import missing_chunks
from stores.bank.reader import Bank


def preflight(plan: Plan, path: Place, bank: Bank | None, executor: Executor) -> Local[Ready]:
    """Refuse whatever a run would refuse later on; changes nothing on disk.

    Weights are read and fitted only of models that have something to compute; else torch is not imported.

    Args:
        path: of the bank.
        bank: None if there is none yet.

    Returns:
        The encoders that were made ready in this process, for a run of one decode pass; a run of several
        loads them again pass by pass, so that their memory does not add up.

    Raises:
        Refused: a decoder or weights that cannot be used, a feature that another process is writing.
    """
    setup = plan.setup
    rows = len(plan.manifest)
    grid = bank.grid if bank else Grid(rows, setup.options.chunk_rows or default_chunk_rows(rows))
    unfinished = _unfinished(plan, path, bank, grid)
    groups = [tuple(unfinished[i] for i in group) for group in group_by_rendering(unfinished)]
    size = setup.options.batch_for(setup.runtime, grid.chunk_rows)
    ready = Local[Ready]()
    for group in groups:
        ready = Local()  # before others are loaded, so that their memory does not add up
        ready = executor.ask(make_ready, group, setup, size)
    return ready if len(groups) == 1 else Local()


def _unfinished(plan: Plan, path: Place, bank: Bank | None, grid: Grid) -> Sequence[ModelSpec]:
    """Return the models with chunks to compute. Raises Refused: another process is writing one's feature."""
    unfinished = []
    for spec in plan.specs:
        layout = FeatureLayout(path.resolve(), plan.setup.key(spec), spec.dim, grid)
        if bank is not None:
            locks.refuse_taken(layout.side / "lock", f"Feature {layout.key.name} of {bank.path}")
        if missing_chunks(layout):
            unfinished.append(spec)
    return unfinished
