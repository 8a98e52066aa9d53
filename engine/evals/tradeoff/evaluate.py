"""Which model for some data: paired evidence beside costs.

    import embank
    choice = embank.choose_model("xrays.bank", "label")
    choice.verdict, choice.members, choice.candidates[0].costs

The answer is a set, not a rank: see `engine.evals.tradeoff.pareto`.
"""

import math
from collections.abc import Callable, Sequence
from os import PathLike, fspath

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.common.compute import evaluation_device
from engine.evals.comparison.evaluate import compare_records
from engine.evals.comparison.options import SMALLER_IS_BETTER
from engine.evals.comparison.options import Options as ComparisonOptions
from engine.evals.comparison.result import Comparison, Pair, Standing
from engine.evals.probe.evaluate import ProbeOptions, Progress
from engine.evals.tradeoff.costs import ModelCosts, costs_of
from engine.evals.tradeoff.evidence import Evidence, evidence_of
from engine.evals.tradeoff.options import Options
from engine.evals.tradeoff.pareto import pareto_set
from engine.evals.tradeoff.result import Candidate, ModelChoice
from engine.runtime import usable_cores
from stores.bank.feature_info import FeatureInfo
from stores.bank.reader import Bank
from stores.bank.record_index import read_index
from stores.json_types import Json, JsonObject


def choose_model(
    bank: str | PathLike[str],
    label: str = "label",
    *,
    evaluation: str = "probe",
    models: Sequence[str] = (),
    metric: str | None = None,
    mode: str = "default",
    margin: float = 0.1,
    resamples: int = 2000,
    alpha: float = 0.05,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    on_progress: Callable[[str], Progress] | None = None,
) -> ModelChoice:
    """Return the models of a bank with paired evidence and costs, and the Pareto set among them.

    Models without a record are probed with the default settings, and the records are kept in the bank.

    Args:
        bank: its directory or URL.
        label: column that the models are judged by.
        evaluation: `probe`; or `knn` or `fewshot`, whose records must be there.
        models: slugs or names of features; none for all that are finished.
        metric: as for `compare`; None for the evaluation's own.
        mode: of the evidence, `default` or `as-published`.
        margin: rates that differ by no more than this share count as equal.
        resamples, alpha, seed: as for `compare`.
        device, threads: where probes are fitted; None takes all usable cores.
        on_progress: as for `engine.evals.probe.bank.probes_from_bank`.

    Raises:
        Refused: no finished feature, no record and none that could be made, or a metric that records lack.
        BankError: damage.
    """
    cores = usable_cores() if threads is None else threads
    comparing = ComparisonOptions(metric, False, True, resamples, False, alpha, seed, cores)
    options = Options(label, evaluation, mode, margin, comparing)
    comparing.metric_of(evaluation, findings=False)  # refused before anything is fitted
    store = Bank.open(fspath(bank))
    features, notes = _features(store, models)
    fitting = ProbeOptions(mode=mode, device=evaluation_device(device), threads=cores)
    evidence = evidence_of(store, features, options, fitting, on_progress)
    comparison = compare_records(evidence.choice, comparing)
    costs = costs_of(store, evidence.features, read_index(store.path))
    candidates = _candidates(evidence, comparison, costs, margin)
    notes = (*notes, *evidence.notes, *_notes_on_costs(costs), *comparison.notes)
    return ModelChoice(str(store.path), label, comparison, candidates, margin, tuple(dict.fromkeys(notes)))


def _features(bank: Bank, models: Sequence[str]) -> tuple[tuple[FeatureInfo, ...], tuple[str, ...]]:
    """Return the features to choose among, and notes on those that are not finished."""
    listed = bank.list()
    if models:
        names = [bank.features(model).name for model in models]
        if len(set(names)) < len(names):
            raise Refused(f"models {list(models)}", "Each model is named once", "drop the repetition")
        return tuple(info for info in listed if info.name in names), ()
    finished = tuple(info for info in listed if info.sealed and info.ok)
    if not finished:
        raise Refused(
            f"{bank.path} has no finished feature with an embedding",
            "Models are judged by their features",
            "embed with `embank embed`, or run the interrupted command again",
        )
    return finished, tuple(
        f"{info.title} is not judged: "
        + ("no image has an embedding" if info.sealed else "its embedding is not finished")
        for info in listed
        if info not in finished
    )


def _candidates(
    evidence: Evidence, comparison: Comparison, costs: Sequence[ModelCosts], margin: float
) -> tuple[Candidate, ...]:
    """Return the models, the best first.

    Models without a value, or whose record has an error of validity, are not judged: the set may be empty.
    """
    own = {
        info.title: (info.name, cost, _issues(chosen.record.validity))
        for info, cost, chosen in zip(evidence.features, costs, evidence.choice.records, strict=True)
    }
    standings = comparison.parts[0].standings
    undefined = comparison.parts[0].reason or "see its record"
    barred = {one.model: _why_not_judged(one, own[one.model][2], undefined) for one in standings}
    names = [one.model for one in standings if not barred[one.model]]
    better, alike = orders_of(names, comparison)
    pareto = pareto_set(better, alike, [own[name][1].costs for name in names], margin)
    candidates = []
    for standing in standings:
        feature, cost, issues = own[standing.model]
        reason = barred[standing.model]
        if reason:
            candidates.append(Candidate(standing, feature, cost, False, (), reason, issues))
            continue
        place = names.index(standing.model)
        by = tuple(names[other] for other in pareto.replaced_by[place])
        candidates.append(
            Candidate(standing, feature, cost, bool(pareto.members[place]), by, validity=issues)
        )
    return tuple(candidates)


def _issues(validity: Sequence[Json] | None) -> tuple[JsonObject, ...]:
    return tuple(one for one in validity or () if isinstance(one, dict))


def _why_not_judged(standing: Standing, issues: Sequence[JsonObject], undefined: str) -> str:
    """Return why a model's value is no evidence; "" if it is.

    A record names a control that is better in any metric; only the metric that is judged by counts.
    """
    if not math.isfinite(standing.value):
        return f"its value is undefined: {undefined}"
    errors = [one for one in issues if one.get("severity") == "error"]
    grave = [one for one in errors if one.get("code") != "below_control" or standing.below_control]
    return f"its numbers are no evidence: {grave[0].get('sentence')}" if grave else ""


def orders_of(names: Sequence[str], comparison: Comparison) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which models are better than others, and which were tested and cannot be told apart.

    Returns:
        bool [M, M] each: a (rows) is better than b (columns) by the test; a and b are alike, symmetric.
    """
    place = {name: i for i, name in enumerate(names)}
    better = np.zeros((len(names), len(names)), np.bool_)
    alike = better.copy()
    sign = -1.0 if comparison.setting.metric in SMALLER_IS_BETTER else 1.0
    for pair in comparison.pairs:
        if pair.a not in place or pair.b not in place:
            continue
        a, b = place[pair.a], place[pair.b]
        if pair.different:
            better[(a, b) if sign * pair.difference > 0 else (b, a)] = True
        elif _tested(pair):
            alike[a, b] = alike[b, a] = True
    return better, alike


def _tested(pair: Pair) -> bool:
    """Return whether a pair was tested; models that differ in no resample have no p value."""
    return math.isfinite(pair.p) or pair.low == pair.high == 0


def _notes_on_costs(costs: Sequence[ModelCosts]) -> list[str]:
    if not any(math.isfinite(cost.costs.img_per_s) for cost in costs):
        return ["No rate is known of any model: they are chosen among without it"]
    if any(cost.rate_reason for cost in costs):
        return ["A model whose rate is unknown replaces none and is replaced by none"]
    return []
