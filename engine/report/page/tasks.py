"""The main numbers of one evaluation in one mode, by data set and model."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.report.page.inputs import PageInput
from engine.report.page.numbers import finite
from engine.report.page.results import Result, models_of, results_of
from engine.report.statistics import Numbers


@dataclass(frozen=True)
class Task:
    """One evaluation in one mode; modes are never mixed.

    Attributes:
        kind: of its records.
        protocol: what was asked, in a few words.
        mode: `default` or `as-published`.
        results: data set -> model -> its result.
    """

    kind: str
    protocol: str
    mode: str
    results: Mapping[str, Mapping[str, Result]]

    def metric(self, dataset: str) -> tuple[str, str]:
        """Return the metric of a data set and its name: the one that most of the models are judged by."""
        numbers = [one.number for one in self.results.get(dataset, {}).values() if one.number is not None]
        counted = Counter((number.metric, number.word) for number in numbers if number.value is not None)
        return max(counted, key=lambda metric: counted[metric], default=("", ""))

    def numbers(self, dataset: str) -> Numbers:
        """Return the values of a data set's metric by model; models without one are not in it."""
        metric, _ = self.metric(dataset)
        values: dict[str, float] = {}
        for model, one in self.results.get(dataset, {}).items():
            if one.number is not None and one.number.value is not None and one.number.metric == metric:
                values[model] = one.number.value
        return values


def tasks_of(page: PageInput) -> tuple[tuple[Task, ...], str]:
    """Return the evaluations of a page in the order of its results, and a note on seeds left out, or "".

    Of several seeds of a kind the smallest is taken.
    """
    every = results_of(page)
    lowest: dict[str, int] = {}
    for one in every:
        lowest[one.kind] = min(_seed(one), lowest.get(one.kind, _seed(one)))
    results = [one for one in every if _seed(one) == lowest[one.kind]]
    grouped: dict[tuple[str, str, str], dict[str, dict[str, Result]]] = {}
    for one in results:
        own = grouped.setdefault((one.kind, one.protocol, one.mode), {})
        own.setdefault(one.dataset, {})[one.model] = one
    note = "Of several seeds only the smallest one enters." if len(results) < len(every) else ""
    return tuple(Task(*key, own) for key, own in grouped.items()), note


def all_models(page: PageInput, tasks: Sequence[Task]) -> tuple[str, ...]:
    """Return the models of the study and all others with results, in the order of the page."""
    results = [one for task in tasks for own in task.results.values() for one in own.values()]
    return tuple(dict.fromkeys((*page.models, *models_of(page, results))))


def _seed(one: Result) -> int:
    return int(finite(one.record.asked.get("seed")) or 0)
