"""Options of probes: how they are fitted, on which rows, and what they learn."""

from dataclasses import dataclass, field, fields
from typing import Literal, get_args

from engine.errors import Refused
from engine.evals.common.compute import Compute
from engine.evals.probe.fold_options import Folds, check_folds
from engine.evals.probe.selection import C_LIMITS, MAX_VALUES, SELECT, VALUES, Select, grid
from engine.evals.probe.stratify import Stratify, check_strata
from stores import limits

ClassWeight = Literal["none", "balanced"]
Uncertain = Literal["ignore", "zeros", "ones"]
Blank = Literal["ignore", "zeros"]
#: How a threshold is chosen on validation.
Rule = Literal["youden", "specificity"]

#: Solvers of the probe; all minimise the same objective.
BACKENDS = ("batched", "sklearn", "cuml")
#: Names that backends had before, accepted for one release.
OLD_BACKENDS = {"lockstep": "batched"}

#: Share of the train images that validation takes, in the study and here.
VALIDATION = 0.2
#: Most draws of a low-shot curve; each is a fit for every number of images and value of C.
MAX_SEEDS = 1000


@dataclass(frozen=True)
class Fitting:
    """Options of a probe's fits, and of the choice of C.

    Attributes:
        C: values tried, each once; `selection.grid()` is the study's.
        standardise: features to mean 0 and standard deviation 1 over the rows trained on.
        class_weight: `balanced` weighs a row by rows / (classes x rows of its class), as scikit-learn does.
        select: the validation score that C is chosen by, of equal ones the better log loss, then the larger
            C; None is `accuracy`, and `auroc` for several findings.
        mode: `default`, or `as-published`: the study's grid order, warm starts and 100 iterations.
        backend: `batched`, `sklearn` or `cuml`; all minimise the same objective.
        bootstrap: resamples of the test patients (or images) for intervals; 0 for none.
        seed: of whatever is drawn.
        specificity: at which the sensitivity of two classes is reported.
        threshold: rule by which that of two classes is chosen on validation: `youden` has the largest sum of
            sensitivity and specificity, `specificity` the largest sensitivity at the one above.

    Raises:
        Refused: a value out of range.
    """

    C: tuple[float, ...] = field(default_factory=grid)
    standardise: bool = True
    class_weight: ClassWeight = "none"
    select: Select | None = None
    mode: str = "default"
    backend: str = "batched"
    bootstrap: int = 1000
    seed: int = 0
    specificity: float = 0.95
    threshold: Rule = "youden"

    def __post_init__(self) -> None:
        object.__setattr__(self, "backend", OLD_BACKENDS.get(self.backend, self.backend))
        check_backend(self.backend)
        if self.select not in (None, *SELECT):
            raise Refused(f"select {self.select!r}", f"It is one of {', '.join(SELECT)}", "choose one")
        if self.class_weight not in ("none", "balanced"):
            raise Refused(f"class weight {self.class_weight!r}", "It is none or balanced", "choose one")
        if self.mode not in ("default", "as-published"):
            raise Refused(f"mode {self.mode!r}", "It is default or as-published", "choose one")
        if self.threshold not in get_args(Rule):
            raise Refused(
                f"threshold {self.threshold!r}", f"It is one of {', '.join(get_args(Rule))}", "choose one"
            )
        if not 0 < self.specificity < 1:
            raise Refused(
                f"specificity {self.specificity:g}", "It lies between 0 and 1", "give a share, e.g. 0.95"
            )
        limits.check_resamples(self.bootstrap)
        limits.check_seed(self.seed)
        limits.check_whole("values of C", len(self.C), 1, MAX_VALUES, f"the study took {VALUES}")
        for C in self.C:
            limits.check_number("C", C, *C_LIMITS, "the study's grid goes from 1e-5 to 1e6")


def check_backend(backend: str) -> None:
    """Refuse the name of a solver that does not exist. Raises Refused."""
    if backend not in BACKENDS:
        raise Refused(f"backend {backend!r}", f"It is one of {', '.join(BACKENDS)}", "choose one")


@dataclass(frozen=True)
class ProbeOptions(Fitting):
    """Options of a probe's fits, with its device, threads and memory.

    Attributes:
        device: `cpu` or `cuda:N`.
        threads: of the CPU.
        memory: bytes that the batched solver may take; None for what it takes by itself.

    Raises:
        Refused: a value out of range.
    """

    device: str = "cpu"
    threads: int = 1
    memory: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.check_whole("threads", self.threads, 1, limits.MAX_THREADS)


@dataclass(frozen=True)
class SplitOptions:
    """The splits that make the parts, and cuts of missing ones.

    Attributes:
        train, val, test: values of the split column.
        fraction: of the train part, in (0, 1), cut off as validation where the column names none.
        holdout: cut a test part (0.2) from the train part; for manifests without one.
        seed: of the cuts.
        mode: `default`, or `as-published`, whose cut is fixed.

    Raises:
        Refused: a value out of range, or one split for two parts.
    """

    train: str = "train"
    val: str = "val"
    test: str = "test"
    fraction: float = VALIDATION
    holdout: bool = False
    seed: int = 0
    mode: str = "default"

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1:
            raise Refused(
                f"validation fraction {self.fraction:g}",
                "It lies between 0 and 1",
                f"leave it at {VALIDATION}",
            )
        limits.check_seed(self.seed)
        if len({self.train, self.val, self.test}) < 3:
            raise Refused(
                f"train {self.train!r}, validation {self.val!r} and test {self.test!r}",
                "No image plays two parts",
                "name three different splits",
            )
        if self.mode not in ("default", "as-published"):
            raise Refused(f"mode {self.mode!r}", "It is default or as-published", "choose one")
        if self.mode == "as-published" and self.fraction != VALIDATION:
            raise Refused(
                f"as-published with a validation fraction of {self.fraction:g}",
                f"The study's is {VALIDATION}",
                "drop it, or use --mode default",
            )


@dataclass(frozen=True)
class Policies:
    """Policies for cells that are neither positive nor negative.

    Attributes:
        uncertain: `ignore` masks them, `zeros` makes them negative, `ones` positive.
        blank: `ignore` masks cells without a value, `zeros` makes them negative.

    Raises:
        Refused: an unknown policy, or `soft`, which no solver here knows.
    """

    uncertain: Uncertain = "ignore"
    blank: Blank = "ignore"

    def __post_init__(self) -> None:
        if str(self.uncertain) == "soft":
            raise Refused(
                "uncertain policy 'soft'",
                "The solvers share one objective, whose targets are 0 or 1. The study's soft labels were cut "
                "to 0 before they reached its classifier",
                "choose zeros (what the study did), ones, or ignore",
            )
        for name, kinds in (("uncertain", Uncertain), ("blank", Blank)):
            if getattr(self, name) not in get_args(kinds):
                raise Refused(
                    f"{name} policy {getattr(self, name)!r}",
                    f"It is one of {', '.join(get_args(kinds))}",
                    "choose one",
                )

    @classmethod
    def of(cls, mode: str, uncertain: Uncertain | None, blank: Blank | None) -> "Policies":
        """Return policies, those left out as usual: `ignore`, and `zeros` as published.

        In the study uncertain cells became 0, like blank ones.
        """
        usual: Literal["zeros", "ignore"] = "zeros" if mode == "as-published" else "ignore"
        return cls(uncertain or usual, blank or usual)


@dataclass(frozen=True)
class LowShot:
    """Numbers of images and seeds of a low-shot curve.

    Attributes:
        shots: images per class, each at least 1.
        seeds: how many draws; their seeds are `seed`, `seed` + 1, ...
        seed: of the first.

    Raises:
        Refused: a value out of range, or a number of images given twice.
    """

    shots: tuple[int, ...] = (1, 2, 5, 10)
    seeds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.shots or min(self.shots) < 1 or len(set(self.shots)) < len(self.shots):
            raise Refused(
                f"images per class {list(self.shots)}",
                "They are different whole numbers from 1",
                "give a list such as --low-shot 1,2,5,10",
            )
        limits.check_whole("seeds", self.seeds, 1, MAX_SEEDS, "five draws are usual (--seeds 5)")
        limits.check_seed(self.seed)

    @classmethod
    def parse(cls, shots: str, seeds: int, seed: int) -> "LowShot":
        """Read `1,2,5,10`. Raises Refused for other text."""
        words = shots.split(",")
        if not all(word.strip().isdecimal() and len(word) < 10 for word in words):
            raise Refused(
                f"images per class {shots!r}",
                "They are whole numbers below 10^9 with commas between them",
                "give a list such as --low-shot 1,2,5,10",
            )
        return cls(tuple(int(word) for word in words), seeds, seed)


@dataclass(frozen=True)
class Options(Fitting):
    """Options of a probe: its fits, its targets and its parts.

    Attributes:
        findings: columns that are learned in one run, one-vs-rest; none learns the classes of the features'
            own labels.
        policies: what uncertain and blank cells of findings become, by default masked. Without `findings`
            they say that the features' own labels are the cells of one finding.
        splits: which rows play which part.
        low_shot: also draw low-shot curves.
        strata: also test in strata of the test images.
        folds: test every image by cross-validation, whatever its split.

    Raises:
        Refused: a value out of range, a column named twice, or options that exclude one another.
    """

    findings: tuple[str, ...] = ()
    policies: Policies | None = None
    splits: SplitOptions = field(default_factory=SplitOptions)
    low_shot: LowShot | None = None
    strata: tuple[Stratify, ...] = ()
    folds: Folds | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_columns(self.findings)
        check_strata(self.strata)
        check_combination(self.mode, bool(self.findings), self.low_shot)
        self._check_folds()

    def _check_folds(self) -> None:
        if self.folds is None:
            return
        splits = self.splits
        others = {
            "--mode as-published": self.mode == "as-published",
            "--multi-label": bool(self.findings),
            "--low-shot": self.low_shot is not None,
            "--strata": bool(self.strata),
            "--holdout": splits.holdout,
            "--train-split": splits.train != "train",
            "--val-split": splits.val != "val",
            "--test-split": splits.test != "test",
        }
        check_folds(self.folds, others)
        limits.check_seed(splits.seed + self.folds.repeats - 1)

    @classmethod
    def of(
        cls,
        fitting: Fitting,
        *,
        findings: tuple[str, ...] = (),
        policies: Policies | None = None,
        splits: SplitOptions | None = None,
        low_shot: LowShot | None = None,
        strata: tuple[Stratify, ...] = (),
        folds: Folds | None = None,
    ) -> "Options":
        """Return options with this way of fitting; its device, threads and memory belong to `Compute`."""
        shared = {member.name: getattr(fitting, member.name) for member in fields(Fitting)}
        return cls(
            **shared,
            findings=findings,
            policies=policies,
            splits=splits or SplitOptions(),
            low_shot=low_shot,
            strata=strata,
            folds=folds,
        )

    def on(self, compute: Compute) -> ProbeOptions:
        """Return the options of a probe's fits, with the device, threads and memory of `Compute`."""
        shared = {member.name: getattr(self, member.name) for member in fields(Fitting)}
        return ProbeOptions(**shared, device=compute.device, threads=compute.threads, memory=compute.memory)


def check_columns(columns: tuple[str, ...]) -> None:
    """Refuse a column that is named twice. Raises Refused."""
    if len(set(columns)) < len(columns):
        raise Refused(
            f"label columns {', '.join(columns)}",
            "Each column is named once, and at least one",
            "name the columns to learn",
        )


def check_combination(mode: str, multi_label: bool, low_shot: LowShot | None) -> None:
    """Refuse findings together with a low-shot curve, and both as published. Raises Refused."""
    if multi_label and low_shot:
        raise Refused(
            "--low-shot with --multi-label",
            "So many images per class are drawn of one label column at a time",
            "leave --multi-label out",
        )
    extra = "--multi-label" if multi_label else "--low-shot" if low_shot else ""
    if mode == "as-published" and extra:
        raise Refused(
            f"as-published with {extra}",
            "The study probed one label column with all of its images",
            f"leave {extra} out, or use --mode default",
        )
