"""External validation of every bank by every other: a matrix of sources and targets."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from engine.errors import Refused
from engine.evals.probe.bank import BankProbe, probes_from_bank
from engine.evals.probe.evaluate import ProbeOptions, Progress
from engine.executors import Executor
from stores.bank.records import together
from stores.json_types import JsonObject


def probe_matrix(
    bank: Path | str,
    models: Sequence[str],
    wanted: BankProbe,
    options: ProbeOptions | None = None,
    *,
    executor: Executor | None = None,
    on_progress: Callable[[str], Progress] | None = None,
) -> list[JsonObject]:
    """Fit probes on each bank and test them on its own test part and on all other banks.

    Args:
        bank: the first; `wanted.external` names the others.
        models, wanted, options, executor, on_progress: as for `probes_from_bank`.

    Returns:
        What `probes_from_bank` returns for each bank, with `bank`; the record of each lies in its bank.

    Raises:
        Refused: there is no other bank, or as `probes_from_bank`. BankError: a damaged bank.
    """
    banks = (str(bank), *wanted.external.banks)
    if len(banks) < 2:
        raise Refused(
            "--matrix with one bank", "Every bank is tested by all others", "name others with --external"
        )
    results: list[JsonObject] = []
    with together():  # no record of the first bank where a later one is refused
        for source in banks:
            others = replace(wanted.external, banks=tuple(other for other in banks if other != source))
            here = replace(wanted, external=others)
            made = probes_from_bank(source, models, here, options, executor=executor, on_progress=on_progress)
            for entry in made:
                entry["bank"] = source
            results += made
    return results
