"""Options of few-shot evaluations: the drawing and classification of episodes."""

from dataclasses import dataclass, fields

from engine.errors import Refused
from engine.kernels import prototypes
from engine.kernels.episodes import Identity
from stores import limits

MODES = ("default", "as-published")

#: Default number of classes an episode; all classes if there are fewer.
USUAL_WAYS = 5
#: Upper limits of a protocol's values, a thousand times what any study has used.
MOST = {"n_way": 1_000_000, "n_shot": 10_000_000, "n_query": 10_000_000, "episodes": 10_000_000}


@dataclass(frozen=True)
class Protocol:
    """An N-way K-shot protocol.

    Attributes:
        n_way: classes an episode; None for 5, or for all that are large enough if these are fewer.
        n_shot, n_query: support and query images a class.
        episodes: number of them, at least 2. seed: of the drawing.
        distance: `sqeuclidean`, `cosine` or `centred` (`engine.kernels.prototypes`).
        mode: `default`; `as-published` has the study's pool of 10,001 images and its interval, 1.96 times the
            population sd over sqrt(episodes).
        group_disjoint: no group (patient) in both support and query of an episode; None: so where groups are
            known and the mode is `default`.
        cap: images a class that may be drawn, chosen by the seed; None for all.

    Raises:
        Refused: a value out of range, or an option that the study did not have in `as-published`.
    """

    n_way: int | None = None
    n_shot: int = 20
    n_query: int = 15
    episodes: int = 600
    seed: int = 0
    distance: str = "sqeuclidean"
    mode: str = "default"
    group_disjoint: bool | None = None
    cap: int | None = None

    def __post_init__(self) -> None:
        limits.check_seed(self.seed)
        for name, least in {"n_way": 2, "n_shot": 1, "n_query": 1, "episodes": 2}.items():
            if name != "n_way" or self.n_way is not None:
                limits.check_whole(name, getattr(self, name), least, MOST[name])
        for name, known in (("distance", prototypes.DISTANCES), ("mode", MODES)):
            if getattr(self, name) not in known:
                raise Refused(
                    f"{name} {getattr(self, name)!r}", f"It is one of {', '.join(known)}", "choose one"
                )
        if self.cap is not None:
            limits.check_whole("cap", self.cap, 1, MOST["n_shot"])
        if self.cap is not None and self.cap < self.n_shot + self.n_query:
            raise Refused(
                f"cap = {self.cap}",
                f"A class needs n_shot + n_query = {self.n_shot + self.n_query} images",
                "raise --cap, or lower --n-shot or --n-query",
            )
        if self.published and (self.group_disjoint or self.cap or self.distance != "sqeuclidean"):
            raise Refused(
                "as-published with a cap, another distance or disjoint patients",
                "The study drew from all images, patients shared, by squared Euclidean distance",
                "leave these options out, or use --mode default",
            )

    @property
    def published(self) -> bool:
        return self.mode == "as-published"

    @property
    def ways(self) -> int:
        """`n_way` as a number; only an evaluation that has run is sure to have it."""
        return USUAL_WAYS if self.n_way is None else self.n_way

    def identity(self, data_set: str) -> Identity:
        """Return what determines the episodes; the model is not part of it."""
        return Identity(self.seed, data_set, self.ways, self.n_shot, self.n_query)


@dataclass(frozen=True)
class Options(Protocol):
    """A protocol, and the part of the features that it is run on.

    Attributes:
        split: draw images of this split only; None for all.
        bootstrap: resamples of an interval over patients (over images where none are known); 0 for none.

    Raises:
        Refused: as `Protocol`; a split in `as-published`, or a number of resamples out of range.
    """

    split: str | None = None
    bootstrap: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.check_resamples(self.bootstrap)
        if self.split is not None and self.published:
            raise Refused(
                f"as-published with split {self.split!r}",
                "The study drew from train and test images together",
                "leave out --split, or use --mode default",
            )

    @classmethod
    def of(cls, protocol: Protocol, split: str | None = None, bootstrap: int = 0) -> "Options":
        """Return options that run a protocol."""
        return cls(**vars(protocol), split=split, bootstrap=bootstrap)

    @property
    def protocol(self) -> Protocol:
        """The protocol without the other options."""
        return Protocol(**{field.name: getattr(self, field.name) for field in fields(Protocol)})
