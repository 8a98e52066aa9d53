"""The three-stage pipeline: order, back-pressure, errors, interruption."""

import threading
import time
from collections.abc import Iterator

import pytest

from engine.pipeline import Stages


def test_items_pass_in_order() -> None:
    seen: list[int] = []
    Stages[int, int]().run(lambda: range(50), lambda x: x * x, seen.append)
    assert seen == [x * x for x in range(50)]


def test_a_slow_consumer_holds_the_producer_back() -> None:
    produced, consumed, lead = 0, 0, []

    def produce() -> Iterator[int]:
        nonlocal produced
        for i in range(30):
            produced += 1
            yield i

    def consume(_: int) -> None:
        nonlocal consumed
        time.sleep(0.005)
        lead.append(produced - consumed)
        consumed += 1

    stages = Stages[int, int](depth=2)
    stages.run(produce, lambda x: x, consume)
    # two queues of two, one item in each stage's hands
    assert max(lead) <= 2 * 2 + 3
    assert stages.first.blocked_s > 0


@pytest.mark.parametrize("where", ["produce", "transform", "consume"])
def test_an_error_in_any_stage_ends_all_and_is_raised(where: str) -> None:
    def produce() -> Iterator[int]:
        for i in range(10_000):
            if where == "produce" and i == 5:
                raise OSError("disk gone")
            yield i

    def act(name: str, x: int) -> int:
        if where == name and x == 5:
            raise OSError("disk gone")
        return x

    with pytest.raises(OSError, match="disk gone"):
        Stages[int, int]().run(produce, lambda x: act("transform", x), lambda x: act("consume", x) and None)
    assert not [t for t in threading.enumerate() if t.name in ("decode", "commit")]


def test_interruption_closes_the_producer_in_its_own_thread() -> None:
    closed_in: list[str] = []

    def produce() -> Iterator[int]:
        try:
            yield from range(10_000)
        finally:
            closed_in.append(threading.current_thread().name)

    def transform(x: int) -> int:
        if x == 3:
            raise KeyboardInterrupt
        return x

    with pytest.raises(KeyboardInterrupt):
        Stages[int, int]().run(produce, transform, lambda _: None)
    assert closed_in == ["decode"]


def test_waiting_for_input_is_counted_as_starving() -> None:
    def produce() -> Iterator[int]:
        for i in range(5):
            time.sleep(0.02)
            yield i

    stages = Stages[int, int]()
    stages.run(produce, lambda x: x, lambda _: None)
    assert stages.second.waiting_s >= 0.08
    assert stages.third.waiting_s >= 0.08
