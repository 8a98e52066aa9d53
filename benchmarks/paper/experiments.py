"""Experiments of the paper, i.e. a protocol on a data set, and the numbers of values by model."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.paper.names import (
    DATASET_LABELS,
    DATASETS,
    IN_DOMAIN,
    MODELS,
    OUT_OF_DOMAIN,
    dataset_label,
    transfer,
)
from benchmarks.paper.values import STORED, Names, Values
from engine.errors import Refused

PROTOCOL_LABELS = {"few_shot": "few-shot", "linear": "linear", "finetune": "finetuned"}


@dataclass(frozen=True)
class Experiment:
    """A protocol (`few_shot`, `linear`, `finetune`) on a data set."""

    protocol: str
    dataset: str

    @property
    def name(self) -> str:
        """Return e.g. `few_shot:bach`."""
        return f"{self.protocol}:{self.dataset}"

    @property
    def label(self) -> str:
        """Return e.g. `BACH, few-shot`."""
        return f"{dataset_label(self.dataset)}, {PROTOCOL_LABELS[self.protocol]}"


def listed(experiments: Iterable[Experiment]) -> str:
    """Return e.g. `few-shot on BACH and iC-PM, linear on EyePACS`."""
    by_protocol: dict[str, list[str]] = {}
    for experiment in experiments:
        by_protocol.setdefault(experiment.protocol, []).append(dataset_label(experiment.dataset))
    return ", ".join(
        f"{PROTOCOL_LABELS[protocol]} on {' and '.join(filter(None, (', '.join(names[:-1]), names[-1])))}"
        for protocol, names in by_protocol.items()
    )


def few_shots(datasets: Iterable[str]) -> tuple[Experiment, ...]:
    """Return the few-shot experiments on data sets."""
    return tuple(Experiment("few_shot", dataset) for dataset in datasets)


#: Experiments on chest X-rays, and on other images, in the order of the figures.
MANY_SHOT_IN = (Experiment("linear", "chexpert"), Experiment("finetune", "chexpert"))
MANY_SHOT_OUT = (Experiment("linear", "eyepacs"), Experiment("finetune", "eyepacs"))
IN = (*few_shots(IN_DOMAIN), *MANY_SHOT_IN)
OUT = (*few_shots(OUT_OF_DOMAIN), *MANY_SHOT_OUT)


def metric_of(values: Values, experiment: Experiment) -> str:
    """Return the metric of an experiment: the paper's, or else the first that values have of the protocol."""
    usual = transfer(experiment.protocol, experiment.dataset)
    metrics = values.where(dataset=experiment.dataset).metrics()
    others = [metric for metric in metrics if metric.startswith(f"{experiment.protocol}_")]
    return usual if usual in metrics or not others else others[0]


def numbers(values: Values, dataset: str, metric: str, models: Names = None) -> dict[str, float]:
    """Return model -> value of a metric on a data set, without those that are undefined."""
    rows = values.where(model=models, dataset=dataset, metric=metric)
    return {one.model: one.value for one in rows if math.isfinite(one.value)}


def half_widths(values: Values, dataset: str, metric: str) -> dict[str, float]:
    """Return model -> half width of the 95 % interval, of those that have one."""
    rows = values.where(dataset=dataset, metric=metric)
    return {one.model: one.ci95 for one in rows if one.ci95 is not None and math.isfinite(one.ci95)}


def accuracies(values: Values, experiment: Experiment) -> dict[str, float]:
    """Return model -> accuracy in percent."""
    return numbers(values, experiment.dataset, metric_of(values, experiment))


def models_of(values: Values, of: Sequence[str] | None = None) -> tuple[str, ...]:
    """Return the models of values in the paper's order, others behind them.

    Args:
        of: choose among these, e.g. `names.SSL`; None for all.
    """
    there = values.models()
    ordered = [model for model in MODELS if model in there]
    ordered += [model for model in there if model not in MODELS]
    return tuple(model for model in ordered if of is None or model in of)


def datasets_of(values: Values) -> tuple[str, ...]:
    """Return the data sets of values that figures show: the paper's in its order, and a study's own."""
    there = values.datasets()
    return (
        *(dataset for dataset in DATASETS if dataset in there),
        *(dataset for dataset in there if dataset not in DATASET_LABELS),
    )


def transfers(values: Values) -> tuple[Experiment, ...]:
    """Return the experiments of values: few-shot on all data sets, then linear, then finetuned."""
    return tuple(
        experiment
        for protocol in PROTOCOL_LABELS
        for dataset in datasets_of(values)
        if accuracies(values, experiment := Experiment(protocol, dataset))
    )


def present(values: Values, wanted: Sequence[Experiment], figure: str) -> tuple[Experiment, ...]:
    """Return the experiments that at least one model has, in order.

    Raises:
        Refused: there is none.
    """
    here = tuple(experiment for experiment in wanted if accuracies(values, experiment))
    if not here:
        raise missing(figure, f"an accuracy on {' or '.join(dict.fromkeys(e.dataset for e in wanted))}")
    return here


def missing(figure: str, what: str) -> Refused:
    """Return the refusal of a figure for which values are lacking."""
    return Refused(
        f"{figure} of these values",
        f"It needs {what}",
        "run these evaluations first, or leave `--from` out for the published values",
    )


def absent(wanted: Sequence[Experiment], here: Sequence[Experiment]) -> str:
    """Return a sentence about experiments that are not shown, or nothing."""
    left = [experiment for experiment in wanted if experiment not in here]
    return f"No values: {listed(left)}." if left else ""


def provenance(values: Values) -> str:
    """Return where values are from, in a sentence."""
    sources = dict.fromkeys(one.source for one in values)
    if set(sources) == {STORED}:
        return "Published values: results of all checkpoints that the authors stored with their code."
    if all(source.startswith("Table ") for source in sources):
        return f"Published values, as printed in {', '.join(sources)}."
    return " ".join([f"Our own values, from {len(sources)} records.", *deviations(values)])


def deviations(values: Values) -> list[str]:
    """Return in which metrics and settings our own values are not the paper's, a sentence each."""
    others: dict[str, list[Experiment]] = {}
    for experiment in transfers(values):
        metric = metric_of(values, experiment)
        if metric != transfer(experiment.protocol, experiment.dataset):
            others.setdefault(_task(metric), []).append(experiment)
    said = [f"Not the paper's metric: {task}, of {listed(own)}." for task, own in others.items()]
    settings = dict.fromkeys(one.reason for one in values if one.reason and math.isfinite(one.value))
    return [*said, *([f"Settings of some values: {'; '.join(settings)}."] if settings else [])]


def _task(metric: str) -> str:
    """Return what a metric measures in a few words, e.g. `2-way 5-shot accuracy`."""
    words = metric.removesuffix("_pct").removeprefix("few_shot_").replace("_", " ")
    return words.replace("way ", "-way ").replace("shot ", "-shot ")
