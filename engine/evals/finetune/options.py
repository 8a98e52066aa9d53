"""Options of finetuning: the optimiser's, when it stops, what is learned from which rows."""

from dataclasses import dataclass, field, replace
from typing import Literal

from engine.errors import Refused
from engine.evals.probe.options import ClassWeight, Policies, SplitOptions, check_columns
from engine.evals.probe.selection import SELECT, Select
from stores import limits

Schedule = Literal["cosine", "constant"]
SCHEDULES: tuple[Schedule, ...] = ("cosine", "constant")

#: Values of the study (Anton et al., J. Imaging 2022, 8, 320, doi:10.3390/jimaging8120320, and its code).
STEPS, BATCH, DENSENET_BATCH = 5000, 64, 16
MAX_STEPS, MAX_BATCH = 10_000_000, 65_536


@dataclass(frozen=True)
class FinetuneOptions:
    """Options of a finetuning run.

    Attributes:
        mode: `default` restores the weights that scored best on validation; `as-published` ends with the last
            ones, and its test part also has an AUROC of class decisions.
        steps: updates of the weights, at most.
        batch_size: images of an update; None is 64, and 16 for DenseNets, as published.
        lr: learning rate of the first step.
        momentum: Nesterov's; 0 is plain SGD.
        weight_decay: of all parameters.
        schedule: `cosine` lets the learning rate fall to 0 over `steps`, `constant` keeps it.
        validate_every: steps between two validations; there is one after the last step, too.
        patience: validations strictly below the best one after which training stops; an equal or better one
            starts the count again; 0 never stops.
        class_weight: `balanced` weighs a row by rows / (classes x rows of its class), as scikit-learn does.
        accumulate: parts that a batch is cut into, whose gradients are added before the update.
        select: validation score that decides; None is `accuracy`, and `auroc` for several findings.
        bootstrap: resamples of the test patients (or images) for intervals; 0 for none.
        seed: of the head's first weights, the order of the images, their crops, and cuts of parts.
        findings: columns that are learned together, one-vs-rest; none learns classes of one column.
        policies: what uncertain and blank cells of findings become; without `findings` they say that the one
            column has the cells of a finding.
        splits: which rows play which part, as for a probe; `as-published` cuts as the study did.

    Raises:
        Refused: a value out of range, or one that the study's protocol excludes in mode `as-published`.
    """

    mode: str = "default"
    steps: int = STEPS
    batch_size: int | None = None
    lr: float = 1e-2
    momentum: float = 0.9
    weight_decay: float = 1e-8
    schedule: Schedule = "cosine"
    validate_every: int = 200
    patience: int = 3
    class_weight: ClassWeight = "none"
    accumulate: int = 1
    select: Select | None = None
    bootstrap: int = 1000
    seed: int = 0
    findings: tuple[str, ...] = ()
    policies: Policies | None = None
    splits: SplitOptions = field(default_factory=SplitOptions)

    def __post_init__(self) -> None:
        self._check_words()
        limits.check_whole("steps", self.steps, 1, MAX_STEPS, f"the study took --steps {STEPS}")
        if self.batch_size is not None:
            limits.check_whole("batch size", self.batch_size, 1, MAX_BATCH, "leave --batch-size out")
        limits.check_number("lr", self.lr, 1e-12, 1e3, "the study took --lr 0.01")
        limits.check_number("momentum", self.momentum, 0, 0.9999, "the study took --momentum 0.9")
        limits.check_number("weight decay", self.weight_decay, 0, 1e3, "the study took --weight-decay 1e-8")
        limits.check_whole("validate every", self.validate_every, 1, MAX_STEPS, "the study took 200 steps")
        limits.check_whole("patience", self.patience, 0, MAX_STEPS, "the study took --patience 3")
        limits.check_whole("accumulate", self.accumulate, 1, MAX_BATCH, "1 updates after every batch")
        limits.check_resamples(self.bootstrap)
        limits.check_seed(self.seed)
        check_columns(self.findings)
        if self.mode == "as-published":
            self._refuse_others()
            object.__setattr__(self, "splits", replace(self.splits, mode=self.mode))

    def _check_words(self) -> None:
        for name, value, words in (
            ("mode", self.mode, ("default", "as-published")),
            ("schedule", self.schedule, SCHEDULES),
            ("class weight", self.class_weight, ("none", "balanced")),
            ("select", self.select, (None, *SELECT)),
        ):
            if value not in words:
                known = ", ".join(word for word in words if word)
                raise Refused(f"{name} {value!r}", f"It is one of {known}", "choose one")

    def _refuse_others(self) -> None:
        """Refuse what the study's protocol does not have; the study set steps, batch and lr by hand."""
        for given, option, rule in (
            (self.schedule != "cosine", f"--schedule {self.schedule}", "Its schedule is cosine"),
            (self.class_weight != "none", f"--class-weight {self.class_weight}", "It weighs no class"),
            (self.accumulate > 1, f"--accumulate {self.accumulate}", "It updates after every batch"),
            (bool(self.findings), "--multi-label", "The study learned one label column at a time"),
            (
                self.select not in (None, "accuracy", "mean-per-class"),
                f"--select {self.select}",
                "Its score is accuracy or mean-per-class",
            ),
        ):
            if given:
                raise Refused(f"as-published with {option}", rule, "drop it, or use --mode default")

    @property
    def score(self) -> Select:
        """The validation score that decides."""
        return self.select or ("auroc" if self.findings else "accuracy")

    @property
    def restores_best(self) -> bool:
        """True if training ends with the best weights, False if with the last."""
        return self.mode == "default"

    def batch_for(self, architecture: str) -> int:
        """Return the images of an update: as given, else 64, and 16 for DenseNets (as published)."""
        if self.batch_size is not None:
            return self.batch_size
        return DENSENET_BATCH if "densenet" in architecture.lower() else BATCH
