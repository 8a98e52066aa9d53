"""Comparison of models in pairs, from the records of one evaluation on the same images.

    import embank
    result = embank.compare(["xrays.bank"], "probe", metric="auroc")
    result.verdict, result.pairs[0].p_holm, result.best

No feature is read and no model fitted: everything comes from the predictions beside the records.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from os import PathLike

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.comparison.answers import Answers, Panel, align
from engine.evals.comparison.choose import Choice, Chosen, choose
from engine.evals.comparison.measures import Measure, by_class, measure, measure_queries
from engine.evals.comparison.options import Options
from engine.evals.comparison.pairs import Models, parts_of
from engine.evals.comparison.result import Comparison, Part, Setting
from engine.evals.comparison.tasks import Queries, class_task, finding_tasks, queries_of
from engine.runtime import usable_cores
from stores.bank.predictions import read_predictions_of
from stores.json_types import Json, JsonObject

Floats = NDArray[np.float64]


def compare(
    sources: str | PathLike[str] | Sequence[str | PathLike[str]],
    evaluation: str | None = None,
    *,
    metric: str | None = None,
    models: Sequence[str] = (),
    label: str | None = None,
    by_finding: bool = False,
    common: bool = False,
    resamples: int = 2000,
    bca: bool = False,
    alpha: float = 0.05,
    seed: int = 0,
    threads: int | None = None,
) -> Comparison:
    """Compare models by their records of one evaluation on the same images.

    Args:
        sources: a bank or several of the same images, whose latest records are taken; or records, as
            `BANK/records/RECORD`.
        evaluation: `probe`, `knn` or `fewshot`; None for that of the newest records of two models.
        metric: `accuracy`, `mean_per_class_accuracy`, `auroc`, `average_precision` or `log_loss`; None for
            the evaluation's own.
        models: slugs or names; none for all.
        label: column that was probed, where several were.
        by_finding: also compare each finding, or each class by its AUROC or average precision.
        common: compare on the images that all models have where these differ.
        resamples: of the patients.
        bca: bias-corrected and accelerated intervals instead of percentiles.
        alpha: adjusted p up to which two models can be told apart.
        seed: of the resamples.
        threads: of the CPU; None takes all usable cores.

    Raises:
        Refused: fewer than two models, different images or labels, or a metric that the records lack.
        BankError: damage.
    """
    several = [sources] if isinstance(sources, str | PathLike) else list(sources)
    cores = usable_cores() if threads is None else threads
    settings = Options(metric, by_finding, common, resamples, bca, alpha, seed, cores)
    return compare_records(choose(several, evaluation, models, label), settings)


def compare_records(choice: Choice, options: Options) -> Comparison:
    """Compare the models of some records.

    Raises:
        Refused, BankError: as `compare`.
    """
    notes = [*choice.notes, *_settings_that_differ(choice)]
    findings = bool(choice.records[0].record.asked.get("multi_label"))
    metric = options.metric_of(choice.evaluation, findings)
    pairs = zip(choice.names, choice.records, strict=True)
    panel = align([Answers.read(name, chosen) for name, chosen in pairs], options.common)
    notes += panel.notes
    measures, queries = _measures(choice, panel, options, metric, findings, notes)
    models = Models(
        choice.names,
        tuple(chosen.entry.id for chosen in choice.records),
        tuple(str(chosen.bank.path) for chosen in choice.records),
    )
    parts = parts_of(models, panel, measures, options, metric, queries)
    parts = [_beside_controls(part, metric, choice) for part in parts]
    tests = sum(math.isfinite(pair.p) for part in parts for pair in part.pairs)
    setting = Setting(
        choice.evaluation,
        metric,
        _task(choice.records[0]),
        len(panel),
        panel.count,
        panel.unit,
        options.resamples,
        options.seed,
        "bca" if options.bca else "percentile",
        options.alpha,
        tests,
    )
    return Comparison(setting, tuple(parts), tuple(dict.fromkeys(notes)))


def _beside_controls(part: Part, metric: str, choice: Choice) -> Part:
    """Return a part whose models say which control is above them, where their records have controls."""
    below = {
        chosen.entry.id: {
            (one["metric"], one["finding"]): str(one["control"])
            for one in _objects(chosen.record.metrics.get("below_control"))
        }
        for chosen in choice.records
    }
    standings = tuple(
        replace(standing, below_control=below[standing.record].get((metric, part.name), ""))
        for standing in part.standings
    )
    return replace(part, standings=standings)


def _objects(value: Json) -> list[JsonObject]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _task(chosen: Chosen) -> str:
    """Say what a record is about."""
    request = chosen.record.asked
    if chosen.record.kind == "fewshot":
        return f"{request.get('n_way')}-way {request.get('n_shot')}-shot"
    if chosen.record.kind == "knn":
        return f"k = {chosen.record.metrics.get('k')}"
    return str(request.get("label", ""))


#: Settings that may differ between records without a word.
_SILENT = ("model", "device", "threads", "backend", "scheduler", "workers")


def _settings_that_differ(choice: Choice) -> list[str]:
    """Return a sentence for each setting in which the records differ."""
    asked = [chosen.record.asked for chosen in choice.records]
    sentences = []
    for name in dict.fromkeys(name for own in asked for name in own):
        values = [own.get(name) for own in asked]
        other = next((place for place, value in enumerate(values) if value != values[0]), None)
        if name not in _SILENT and other is not None:
            sentences.append(
                f"Records differ in {name.replace('_', ' ')}: {choice.names[0]} {str(values[0])[:40]}, "
                f"{choice.names[other]} {str(values[other])[:40]}"
            )
    return sentences


def _measures(
    choice: Choice, panel: Panel, options: Options, metric: str, findings: bool, notes: list[str]
) -> tuple[list[Measure], Queries | None]:
    """Return what is compared: the evaluation's number, and each finding's or class's if requested."""
    if choice.evaluation == "fewshot":
        _refuse_parts(options, "few-shot has one number")
        queries = queries_of(panel, _episodes(choice, options))
        return [measure_queries(queries, panel)], queries
    if findings:
        tasks = finding_tasks(panel, notes)
        own = [measure([task], metric, panel, task.name) for task in tasks] if options.by_finding else []
        return [replace(measure(tasks, metric, panel), mean_of_others=bool(own)), *own], None
    scored = metric in ("auroc", "average_precision", "log_loss")
    task = class_task(panel, scored, choice.evaluation == "probe")
    if not options.by_finding:
        return [measure([task], metric, panel)], None
    if metric not in ("auroc", "average_precision"):
        _refuse_parts(options, "classes are compared by AUROC or average precision")
    mean = len(task.classes) > 2
    first = replace(measure([task], metric, panel), mean_of_others=mean)
    return [first, *by_class(task, metric, panel)], None


def _refuse_parts(options: Options, rule: str) -> None:
    if options.by_finding:
        raise Refused("--by-finding", rule[0].upper() + rule[1:], "leave it out, or choose --metric auroc")


def _episodes(choice: Choice, options: Options) -> list[Floats] | None:
    """Return the accuracies of the episodes, if all models saw the same."""
    records = [chosen.record for chosen in choice.records]
    for name in ("n_way", "n_shot"):
        values = [record.asked.get(name) for record in records]
        if len(set(map(str, values))) > 1:
            raise Refused(
                f"{name} {values[0]} and {next(v for v in values if v != values[0])}",
                "Few-shot accuracies are compared on the same task",
                "name records of the same task",
            )
    if len({str(record.metrics.get("episodes_digest")) for record in records}) > 1:
        if not options.common:
            raise Refused(
                "Records of different episodes",
                "A paired difference over episodes needs the same ones",
                "evaluate the models in one command, or give --common to compare over patients alone",
            )
        return None
    return [
        read_predictions_of(chosen.bank.path, chosen.entry, "episodes").column("accuracy").to_numpy()
        for chosen in choice.records
    ]
