"""The evaluations by kind: where each is, and one function that runs any of them.

A module of an evaluation has `Options` (a frozen dataclass that refuses nonsense when it is made),
`evaluate(features, options, compute)` and `Result` (`engine.evals.common.result`).
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from engine.errors import Refused
from engine.evals.common.compute import Compute
from engine.evals.common.features import Features
from engine.evals.common.result import Result


@dataclass(frozen=True)
class Evaluation:
    """One kind of evaluation.

    Attributes:
        kind: its name, and that of its records unless `recorded_as` is another.
        module: with `Options`, `evaluate` and `Result`.
        classifies: needs labels.
        opens_images: needs a bank, whose images it embeds again.
        recorded_as: kind of its records, where they stand beside those of another evaluation.
    """

    kind: str
    module: str
    classifies: bool = True
    opens_images: bool = False
    recorded_as: str = ""

    def load(self) -> Any:
        """Import and return the evaluation's module."""
        return import_module(self.module)


EVALUATIONS = {
    evaluation.kind: evaluation
    for evaluation in (
        Evaluation("fewshot", "engine.evals.fewshot.evaluate"),
        Evaluation("knn", "engine.evals.neighbours.knn"),
        Evaluation("search", "engine.evals.neighbours.search", classifies=False),
        Evaluation("audit", "engine.evals.neighbours.audit", classifies=False),
        Evaluation("probe", "engine.evals.probe.evaluate"),
        Evaluation("invariance", "engine.evals.invariance.evaluate", classifies=False, opens_images=True),
        Evaluation(
            "multiview", "engine.evals.invariance.multiview", classifies=False, recorded_as="invariance"
        ),
        Evaluation("finetune", "engine.evals.finetune.evaluate", opens_images=True),
        Evaluation("saliency", "engine.evals.saliency.evaluate", classifies=False, opens_images=True),
        Evaluation(
            "reconstruct", "engine.evals.reconstruction.evaluate", classifies=False, opens_images=True
        ),
    )
}


def evaluate(kind: str, features: Features, compute: Compute | None = None, **options: Any) -> Result:
    """Run an evaluation of any kind; keeps no record.

    Args:
        kind: one of `EVALUATIONS`, e.g. `fewshot`.
        compute: where; None decides by itself (`Compute.resolve`), on the CPU without a GPU.
        options: of the evaluation's `Options`.

    Returns:
        Its `Result`: `metrics()`, `predictions()`, `notes`, `to_dict()`.

    Raises:
        Refused: an unknown kind or option, or what the evaluation refuses.
    """
    if kind not in EVALUATIONS:
        raise Refused(f"evaluation {kind!r}", f"It is one of {', '.join(EVALUATIONS)}", "name one of these")
    module = EVALUATIONS[kind].load()
    known = [name for name, field in module.Options.__dataclass_fields__.items() if field.init]
    if unknown := [name for name in options if name not in known]:
        raise Refused(f"option {unknown[0]!r} of {kind}", f"It has {', '.join(known)}", "name one of these")
    result: Result = module.evaluate(features, module.Options(**options), compute or Compute.resolve())
    return result
