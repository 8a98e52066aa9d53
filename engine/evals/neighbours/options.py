"""Options of neighbour search, classification and audit."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from engine.errors import Refused
from engine.kernels.vectors import Distance
from stores import limits

Weights = Literal["uniform", "temperature"]
Index = Literal["exact", "ivf", "cagra"]
INDEXES = ("exact", "ivf", "cagra")

#: Default values of k, where the base is large enough; the first one, DINO's, is the headline.
DEFAULT_K = (20, 1, 5, 10, 50, 100, 200)
#: Largest k accepted.
MAX_K = 100_000_000
#: Most pairs that can be listed; all are counted.
MAX_PAIRS = 10_000_000


@dataclass(frozen=True)
class Voting:
    """How neighbours vote.

    Attributes:
        k: numbers of neighbours; the first one's metrics are the headline. Empty takes `DEFAULT_K`.
        distance: `cosine` or `euclidean`.
        weights: `uniform` or `temperature`; None is temperature for cosine, uniform for euclidean.
        temperature: of the weights.
        group_disjoint: images of the query's group (patient) are no neighbours; None: so where groups are
            known.

    Raises:
        Refused: a value out of range.
    """

    k: tuple[int, ...] = ()
    distance: Distance = "cosine"
    weights: Weights | None = None
    temperature: float = 0.07
    group_disjoint: bool | None = None

    def __post_init__(self) -> None:
        if self.distance not in ("cosine", "euclidean"):
            raise Refused(f"distance {self.distance!r}", "It is cosine or euclidean", "choose one")
        if self.weights not in (None, "uniform", "temperature"):
            raise Refused(f"weights {self.weights!r}", "They are uniform or temperature", "choose one")
        if self.weights == "temperature" and self.distance != "cosine":
            raise Refused(
                "temperature weights with euclidean distance",
                "They are exp(cosine similarity / T)",
                "use --distance cosine or --weights uniform",
            )
        limits.check_number("temperature", self.temperature, 1e-6, 1e6, "DINO's is 0.07")
        for k in self.k:
            limits.check_whole("k", k, 1, MAX_K)

    @property
    def voting(self) -> Weights:
        return self.weights or ("temperature" if self.distance == "cosine" else "uniform")


@dataclass(frozen=True)
class KnnOptions(Voting):
    """How neighbours vote, and how they are searched.

    Attributes:
        backend: `auto`, `array` or `faiss`; all give the same answers.
        device: `cpu` or `cuda:N`.
        threads: CPU threads of the float64 part; FAISS and numpy use what their own settings say.

    Raises:
        Refused: a value out of range.
    """

    backend: str = "auto"
    device: str = "cpu"
    threads: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.check_whole("threads", self.threads, 1, limits.MAX_THREADS)


@dataclass(frozen=True)
class ClassifyOptions(Voting):
    """How neighbours vote, and who votes for whom.

    Attributes:
        train_split: the images that vote.
        test_split: the images that are classified.
        leave_one_out: classify every image by all others, whatever the splits.

    Raises:
        Refused: a value out of range.
    """

    train_split: str = "train"
    test_split: str = "test"
    leave_one_out: bool = False

    @classmethod
    def of(
        cls,
        voting: Voting,
        train_split: str = "train",
        test_split: str = "test",
        leave_one_out: bool = False,
    ) -> "ClassifyOptions":
        """Return options with these votes."""
        votes = {field.name: getattr(voting, field.name) for field in fields(Voting)}
        return cls(**votes, train_split=train_split, test_split=test_split, leave_one_out=leave_one_out)

    @property
    def splits(self) -> dict[str, str]:
        """Part -> split; empty where every image is in both parts."""
        return {} if self.leave_one_out else {"train": self.train_split, "test": self.test_split}


@dataclass(frozen=True)
class SearchOptions:
    """Options of a search by example.

    Attributes:
        image, image_id: one of them: a file to embed as the bank's images were, or one of the images. The
            query is not among its own neighbours; a file is known by its SHA-256, where the bank has that.
        k: how many neighbours.
        distance: `cosine` or `euclidean`.
        index: `exact`; `ivf` or `cagra` are FAISS's approximate ones, built for this call, with their recall
            against the exact search measured on a sample of the features.
        weights: the model's weights file, where it is not at its recorded place any more.
        embed_on: device that a file is embedded on; `auto` is where the bank was made if that is here.
        keep_query: list the query among its neighbours if it is one of the images.

    Raises:
        Refused: no query or two, an unknown distance or index, or no neighbour asked for.
    """

    image: Path | None = None
    image_id: str | None = None
    k: int = 10
    distance: Distance = "cosine"
    index: Index = "exact"
    weights: Path | None = None
    embed_on: str = "auto"
    keep_query: bool = False

    def __post_init__(self) -> None:
        if (self.image is None) == (self.image_id is None):
            raise Refused(
                "No query" if self.image is None else "Two queries",
                "A search starts from one image",
                "give either --image FILE or --id ID",
            )
        if self.distance not in ("cosine", "euclidean"):
            raise Refused(f"distance {self.distance!r}", "It is cosine or euclidean", "choose one")
        if self.index not in INDEXES:
            raise Refused(f"index {self.index!r}", f"It is one of {', '.join(INDEXES)}", "choose one")
        limits.check_whole("k", self.k, 1, MAX_K, "10 are the default")


@dataclass(frozen=True)
class AuditOptions:
    """Which pairs are near-duplicates.

    Attributes:
        threshold: least cosine similarity of a pair, in (0, 1].
        max_pairs: the most pairs listed; all are counted.

    Raises:
        Refused: a value out of range.
    """

    threshold: float = 0.99
    max_pairs: int = 10_000

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise Refused(
                f"threshold {self.threshold}", "A cosine similarity above 0, at most 1", "0.99 is a start"
            )
        limits.check_whole("max_pairs", self.max_pairs, 1, MAX_PAIRS, "10000 are the default")
