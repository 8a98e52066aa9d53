"""The order of the training images."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engine.evals.finetune.order import Order, permutation


@given(st.integers(1, 60), st.integers(1, 20), st.integers(0, 2**40), st.data())
def test_every_epoch_shows_every_row_once_and_a_resumed_run_the_same_batches(
    count: int, size: int, seed: int, data: st.DataObject
) -> None:
    order = Order(np.arange(count) * 3 + 1, size, seed)
    stop = 3 * order.per_epoch
    batches = list(order.batches(0, stop))
    for epoch in range(3):
        rows = [row for batch in batches if batch.epoch == epoch for row in batch.rows]
        left_out = count - len(rows)
        assert len(set(rows)) == len(rows) and set(rows) <= {*(np.arange(count) * 3 + 1).tolist()}
        assert left_out == (count > size > 1 and count % size == 1)  # a last batch of a single image
    start = data.draw(st.integers(0, stop))
    assert list(order.batches(start, stop)) == batches[start:]


def test_orders_differ_by_seed_and_epoch_and_are_fair() -> None:
    first = permutation(50, 0, 0)
    assert sorted(first) == list(range(50)) and (permutation(50, 0, 0) == first).all()
    assert (permutation(50, 0, 1) != first).any() and (permutation(50, 1, 0) != first).any()
    places = np.array([permutation(4, 7, epoch) for epoch in range(4000)])
    counts = np.array([np.bincount(places[:, place], minlength=4) for place in range(4)])
    # 1,000 expected in each cell, standard deviation 27.
    assert abs(counts - 1000).max() < 5 * 27.4
