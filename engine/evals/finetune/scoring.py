"""The validation score and loss of a network's outputs."""

from dataclasses import dataclass
from math import isnan

import torch

from engine.errors import Refused
from engine.evals.finetune.examine import Outputs
from engine.evals.finetune.losses import Loss
from engine.evals.finetune.problem import Problem
from engine.evals.probe.multilabel import mean_of_defined
from engine.evals.probe.selection import Select, quality


@dataclass(frozen=True)
class Scored:
    """A validation.

    Attributes:
        value: the score.
        rank: the value, negated where less is better.
        loss: mean loss of the labels that are not masked.
    """

    value: float
    rank: float
    loss: float


def check_defined(problem: Problem, loss: Loss, select: Select) -> None:
    """Refuse a score that no outputs for the validation part would have. Raises Refused."""
    rows = problem.parts.val
    score(problem, loss, Outputs(rows, torch.zeros(len(rows), loss.outputs), {}), select)


def score(problem: Problem, loss: Loss, outputs: Outputs, select: Select) -> Scored:
    """Score outputs on validation images; of several findings the mean over those where it is defined.

    Raises:
        Refused: the score is not defined on these images.
    """
    targets = loss.targets(outputs.rows.tolist())
    count = loss.count(targets)
    if not count:
        raise Refused(
            f"Not one of the {len(outputs.rows)} validation images is of a class that train has",
            "Training is stopped, and weights are chosen, by validation images of the classes learned",
            "check the label and split columns (`embank manifest check`), or name a split with --val-split",
        )
    total = float(loss.total(outputs.logits, targets)) / count
    if not torch.isfinite(outputs.logits).all():
        return Scored(float("nan"), float("nan"), float("nan"))
    probabilities = loss.probabilities(outputs.logits)
    values, reasons = [], []
    for number, task in enumerate(problem.tasks):
        truth = task.codes[outputs.rows]
        labelled = truth >= 0
        of_task = problem.of_task(number, probabilities[labelled])
        value, reason = quality(truth[labelled], of_task, select, problem.unseen)
        values.append(value)
        reasons.append(f"{task.name}: {reason}" if reason and problem.several else reason)
    value = mean_of_defined(values)
    if isnan(value):
        raise Refused(
            f"No {select} on the {len(outputs.rows)} validation images: {'; '.join(filter(None, reasons))}",
            "Training is stopped, and weights are chosen, by a score that is defined",
            "choose by another with --select, or give a validation part with every class",
        )
    return Scored(value, -value if select == "log-loss" else value, total)
