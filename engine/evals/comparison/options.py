"""Settings of a comparison."""

from dataclasses import dataclass

from engine.errors import Refused
from stores import limits

#: Evaluations whose records can be compared -> their metrics, the one that is taken by default first.
METRICS = {
    "probe": ("mean_per_class_accuracy", "accuracy", "auroc", "average_precision", "log_loss"),
    "knn": ("accuracy", "mean_per_class_accuracy", "auroc", "average_precision"),
    "fewshot": ("accuracy",),
}
#: Metric -> what it is called in a sentence.
WORDS = {
    "accuracy": "accuracy",
    "mean_per_class_accuracy": "balanced accuracy",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "log_loss": "log loss",
}
#: Metrics that are better when smaller.
SMALLER_IS_BETTER = frozenset({"log_loss"})


@dataclass(frozen=True)
class Options:
    """How models are compared.

    Attributes:
        metric: a key of `WORDS`; None for the evaluation's first in `METRICS`, `auroc` of several findings.
        by_finding: also compare each finding, or each class by its AUROC or average precision.
        common: compare on the images that all models have where these differ.
        resamples: of the patients.
        bca: bias-corrected and accelerated intervals instead of percentiles.
        alpha: adjusted p up to which two models can be told apart.
        seed: of the resamples.
        threads: of the CPU.

    Raises:
        Refused: a value out of range.
    """

    metric: str | None = None
    by_finding: bool = False
    common: bool = False
    resamples: int = 2000
    bca: bool = False
    alpha: float = 0.05
    seed: int = 0
    threads: int = 1

    def __post_init__(self) -> None:
        if self.metric is not None and self.metric not in WORDS:
            raise Refused(f"metric {self.metric!r}", f"It is one of {', '.join(WORDS)}", "name one of these")
        limits.check_whole("resamples", self.resamples, 2, 10_000_000)
        limits.check_seed(self.seed)
        limits.check_whole("threads", self.threads, 1, limits.MAX_THREADS)
        if not 0 < self.alpha < 1:
            raise Refused(f"alpha {self.alpha}", "It lies between 0 and 1", "take 0.05, which is usual")

    def metric_of(self, evaluation: str, findings: bool) -> str:
        """Return the metric of an evaluation.

        Raises:
            Refused: the evaluation does not have it.
        """
        known = METRICS[evaluation]
        if self.metric is None:
            return "auroc" if findings and "auroc" in known else known[0]
        if self.metric not in known:
            raise Refused(
                f"{WORDS[self.metric]} of {evaluation}",
                f"Its records have {', '.join(WORDS[name] for name in known)}",
                f"choose one of these with --metric, for instance {known[0].replace('_', '-')}",
            )
        return self.metric
