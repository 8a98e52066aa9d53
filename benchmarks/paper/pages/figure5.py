"""Figure 5: the models trained on chest X-rays on every task."""

from benchmarks.paper.names import MIMIC_CHEXPERT, MOCO_CXR
from benchmarks.paper.task_bars import TaskFigure

TITLE = "models trained on chest X-rays, scaled accuracy by task"
FIGURE = TaskFigure(
    "figure5",
    {"MIMIC-CheXpert": MIMIC_CHEXPERT, "MoCo-CXR": MOCO_CXR},
    "checkpoints trained on chest X-rays",
)
draw, table, points = FIGURE.draw, FIGURE.table, FIGURE.points
