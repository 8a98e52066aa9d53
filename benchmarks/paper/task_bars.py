"""Bars of two groups of models on every task: figures 2 and 5."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.paper.bars import draw_bars, means_table, points_table, separate, task_ticks
from benchmarks.paper.experiments import absent, models_of, provenance
from benchmarks.paper.scaled import TASKS_IN, TASKS_OUT, Task, refuse_without, tasks
from benchmarks.paper.style import caption as write_caption
from benchmarks.paper.style import legend_of_groups, new_figure, save
from benchmarks.paper.values import Values
from engine.report.page.blocks import DataTable

_TASKS = (*TASKS_IN, *TASKS_OUT)


@dataclass(frozen=True)
class TaskFigure:
    """A figure with a place for each task and a bar for each group.

    Attributes:
        name: of its page, e.g. `figure2`.
        groups: name -> models; all of them give the scale.
        trained: what the models have in common, e.g. `models trained on ImageNet`.
    """

    name: str
    groups: Mapping[str, Sequence[str]]
    trained: str

    @property
    def models(self) -> tuple[str, ...]:
        """Return the models of all groups."""
        return tuple(model for models in self.groups.values() for model in models)

    def shown(self, values: Values) -> tuple[Task, ...]:
        """Return the tasks.

        Raises:
            Refused: no task has two different accuracies of the models.
        """
        result = tasks(values, _TASKS, self.groups)
        refuse_without(result, self.name, f"different accuracies of two of {', '.join(self.models)}")
        return result

    def caption(self, values: Values) -> str:
        """Return what is shown, n, and where the values are from."""
        result = self.shown(values)
        counts = {name: sorted({task.means[name].n for task in result}) for name in self.groups}
        n = ", ".join(f"n = {' or '.join(map(str, number))} {name}" for name, number in counts.items())
        return (
            f"Figure {self.name[6:]}. Accuracy by task, scaled to 0 for the lowest and 1 for the highest of "
            f"the {self.trained}. Bars: means over models ({n}); markers: the models, in the legend's order. "
            f"{absent(_TASKS, [task.experiment for task in result])} {provenance(values)}"
        )

    def draw(self, values: Values, out: Path) -> None:
        """Draw the figure. Raises Refused if values are lacking."""
        save(lambda: self._figure(values), out, self.name)

    def _figure(self, values: Values) -> Any:
        result = self.shown(values)
        figure = new_figure(max(6.4, 0.82 * len(result) + 1.6), 4.4)
        axes = figure.subplots()
        draw_bars(
            axes, [task.means for task in result], [task.scaled.values for task in result], errors=False
        )
        task_ticks(axes, [task.experiment for task in result])
        axes.set_ylim(-0.04, 1.14)
        inside = sum(task.experiment in TASKS_IN for task in result)
        if 0 < inside < len(result):
            separate(axes, inside, ("chest X-rays", "other images"))
        axes.set_ylabel("scaled accuracy", fontsize=8.5)
        legend_of_groups(figure, self.groups, models_of(values, self.models))
        write_caption(figure, self.caption(values))
        return figure

    def table(self, values: Values) -> DataTable:
        """Return the means. Raises Refused if values are lacking."""
        rows = [
            (task.experiment.label, group, mean)
            for task in self.shown(values)
            for group, mean in task.means.items()
        ]
        return means_table(self.name, self.caption(values), rows)

    def points(self, values: Values) -> DataTable:
        """Return every model's scaled accuracy. Raises Refused if values are lacking."""
        rows = [
            (task.experiment.label, model, task.scaled.values[model])
            for task in self.shown(values)
            for mean in task.means.values()
            for model in mean.models
        ]
        return points_table(f"{self.name}-points", self.caption(values), rows, "scaled accuracy")
