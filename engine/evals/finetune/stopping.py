"""Early stopping, and the choice of the best weights."""

from dataclasses import dataclass, replace
from math import inf, isnan


@dataclass(frozen=True)
class Stopping:
    """The validations so far, as far as stopping depends on them.

    The study's rule: a value strictly below the best one counts, an equal or better one starts the count
    again, and training stops when it reaches the patience (published code of Anton et al., J. Imaging 2022,
    8, 320).

    Attributes:
        patience: count at which training stops; 0 never stops.
        best: highest value so far; a score of which less is better is negated.
        best_loss: validation loss of the best weights.
        best_step: updates before the best weights; 0 before the first validation.
        count: validations below the best one since it was last reached.
    """

    patience: int
    best: float = -inf
    best_loss: float = inf
    best_step: int = 0
    count: int = 0

    def after(self, value: float, loss: float, step: int) -> tuple["Stopping", bool]:
        """Return the state after one more validation, and whether its weights are the best so far.

        Of equal values the smaller loss is better, of equal losses the earlier weights.

        Raises:
            ValueError: the value is undefined.
        """
        if isnan(value):
            raise ValueError("an undefined score cannot be compared")
        if value < self.best:
            return replace(self, count=self.count + 1), False
        if value == self.best and not loss < self.best_loss:
            return replace(self, count=0), False
        return replace(self, best=value, best_loss=loss, best_step=step, count=0), True

    @property
    def stops(self) -> bool:
        """True if training is over."""
        return 0 < self.patience <= self.count
