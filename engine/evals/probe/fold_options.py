"""Options of a probe's cross-validation."""

from dataclasses import dataclass

from engine.errors import Refused
from stores import limits

#: Most folds, and most repeats.
MAX_FOLDS, MAX_REPEATS = 1000, 1000


@dataclass(frozen=True)
class Folds:
    """Cross-validation by patient, stratified by class.

    Attributes:
        folds: how many, 2 or more.
        repeats: how often the images are cut into folds, each time with another seed.

    Raises:
        Refused: a value out of range.
    """

    folds: int = 5
    repeats: int = 1

    def __post_init__(self) -> None:
        limits.check_whole("folds", self.folds, 2, MAX_FOLDS, "five are usual (--folds 5)")
        limits.check_whole("repeats", self.repeats, 1, MAX_REPEATS, "leave --repeats out for 1")


def check_folds(folds: Folds | None, others: dict[str, bool]) -> None:
    """Refuse folds together with options that say otherwise which images are learned from and tested.

    Args:
        others: option -> whether it was given.

    Raises:
        Refused: naming one.
    """
    given = [name for name, is_given in others.items() if is_given]
    if folds is not None and given:
        raise Refused(
            f"--folds with {given[0]}",
            "Every labelled image is tested in its fold by a probe of one label column",
            f"leave {given[0]} out, or run it apart",
        )
