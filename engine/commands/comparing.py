"""The options of commands that compare models in pairs."""

from typing import Annotated, Any

from engine.commands.choices import Evaluation, Metric
from engine.commands.declaring import PROTOCOL, WHAT, option


def _evaluation(**settings: Any) -> Any:
    return option(
        WHAT,
        "--evaluation",
        metavar="KIND",
        help="Evaluation whose records are compared: probe, knn or fewshot.",
        **settings,
    )


ComparedEvaluation = Annotated[Evaluation | None, _evaluation(show_default="that of the newest records")]
EvidenceEvaluation = Annotated[Evaluation, _evaluation()]
ComparedMetric = Annotated[
    Metric | None,
    option(
        PROTOCOL,
        "--metric",
        metavar="METRIC",
        help="accuracy, mean-per-class (balanced accuracy), auroc, average-precision or log-loss.",
        show_default="auroc of findings; mean-per-class of probes, else accuracy",
    ),
]
Resamples = Annotated[
    int, option(PROTOCOL, "--resamples", min=2, help="Resamples of the patients for intervals.")
]
Alpha = Annotated[
    float, option(PROTOCOL, "--alpha", help="Adjusted p up to which two models can be told apart.")
]
