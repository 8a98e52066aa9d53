"""Figure 2: self-supervised against supervised ImageNet models on every task."""

from benchmarks.paper.names import SSL, SUPERVISED
from benchmarks.paper.task_bars import TaskFigure

TITLE = "self-supervised and supervised ImageNet models, scaled accuracy by task"
FIGURE = TaskFigure("figure2", {"SSL": SSL, "Supervised": SUPERVISED}, "models trained on ImageNet")
draw, table, points = FIGURE.draw, FIGURE.table, FIGURE.points
