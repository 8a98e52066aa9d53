"""Patience and the best weights on scripted validations."""

import pytest

from engine.evals.finetune.stopping import Stopping


def run(patience: int, values: list[float], losses: list[float] | None = None) -> tuple[list[int], int, int]:
    """Return the counts after each validation until training stops, the best step, and validations made."""
    state, counts = Stopping(patience), []
    for number, value in enumerate(values, 1):
        state, _ = state.after(value, losses[number - 1] if losses else 1.0, number * 200)
        counts.append(state.count)
        if state.stops:
            break
    return counts, state.best_step, len(counts)


@pytest.mark.parametrize(
    ("values", "counts"),
    [
        ([0.5, 0.6, 0.7], [0, 0, 0]),
        ([0.5, 0.4, 0.4, 0.4, 0.9], [0, 1, 2, 3]),  # stops before the better one
        ([0.5, 0.4, 0.4, 0.5, 0.4, 0.4, 0.4], [0, 1, 2, 0, 1, 2, 3]),  # an equal value starts the count again
        ([0.5, 0.4, 0.45, 0.49], [0, 1, 2, 3]),  # better than the one before, but not than the best
    ],
)
def test_the_count_is_the_studys(values: list[float], counts: list[int]) -> None:
    assert run(3, values)[0] == counts


def test_without_patience_it_never_stops() -> None:
    assert run(0, [0.9, *[0.1] * 20])[2] == 21
    assert run(1, [0.9, 0.1, 0.1])[2] == 2


def test_of_equal_values_the_smaller_loss_is_the_best_and_then_the_earlier_one() -> None:
    assert run(3, [0.5, 0.5, 0.5], [1.0, 0.8, 0.8])[1] == 400
    assert run(3, [0.5, 0.7, 0.6], [1.0, 2.0, 0.1])[1] == 400


def test_an_undefined_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="undefined"):
        Stopping(3).after(float("nan"), 1.0, 200)
