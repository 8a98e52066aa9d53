"""The simulation against what a pencil finds; the benchmark whole, with a handful of workers."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.speed import scale_out
from benchmarks.speed.simulate import Chunks, Costs, Load, Server, simulate

pytestmark = pytest.mark.slow

FREE = Server((Load(1, 0.0),))


def server(task_s: float, idle: float = 0.0) -> Server:
    return Server((Load(1, task_s, idle),))


@pytest.mark.parametrize(
    ("workers", "chunks", "turns"), [(1, 7, 7), (2, 7, 4), (7, 7, 1), (10, 7, 1), (3, 9, 3)]
)
def test_free_servers_leave_whole_turns(workers: int, chunks: int, turns: int) -> None:
    found = simulate(workers, [2.0] * chunks, Costs(FREE, FREE))
    assert found.seconds == pytest.approx(2.0 * turns)
    assert found.efficiency == pytest.approx(chunks / (workers * turns))
    assert found.scheduler_busy == found.coordinator_busy == 0


def test_overheads_are_paid_where_they_are_said_to_be() -> None:
    found = simulate(2, [1.0] * 10, Costs(FREE, FREE, worker_s=0.5, start_s=3.0))
    assert found.seconds == pytest.approx(3.0 + 5 * 1.5)


def test_one_worker_with_work_ahead_does_not_wait_for_the_servers() -> None:
    """In, 20 chunks without a gap, out: half of each server's time at either end."""
    found = simulate(1, [1.0] * 20, Costs(server(0.2), server(0.1)))
    assert found.seconds == pytest.approx(0.15 + 20 + 0.15)


@pytest.mark.parametrize("slow", ["coordinator", "scheduler"])
def test_a_full_server_sets_the_pace(slow: str) -> None:
    costs = Costs(**{"coordinator": FREE, "scheduler": FREE, slow: server(0.1)})
    found = simulate(100, [1.0] * 1000, costs)
    assert 1000 * 0.1 - 1e-6 <= found.seconds < 1000 * 0.1 + 2
    assert getattr(found, f"{slow}_busy") > 0.98
    assert costs.limit(1.0) is None  # not measured with so many
    more = Costs(**{"coordinator": FREE, "scheduler": FREE, slow: Server((Load(1, 0.1), Load(100, 0.1)))})
    assert more.limit(1.0) == 10


def test_heartbeats_take_their_share() -> None:
    assert server(0.1, idle=0.5).seconds(7) == pytest.approx(0.2)
    assert server(0.1, idle=1.0).seconds(7) == math.inf
    between = Server((Load(1, 0.1), Load(11, 0.3)))
    assert between.seconds(6) == pytest.approx(0.2)
    growing = Server((Load(1, 0.1, 0.1), Load(11, 0.1, 0.2)))
    assert growing.seconds(51) == pytest.approx(0.1 / (1 - 0.6))  # a percent more idling for each worker


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.floats(0.01, 5), min_size=1, max_size=60),
    st.integers(1, 12),
    st.floats(0, 0.3),
    st.floats(0, 0.3),
)
def test_no_schedule_beats_its_bounds(chunks: list[float], workers: int, a: float, b: float) -> None:
    """Graham's bound for list scheduling without overheads; with them, never faster than any one resource."""
    free = simulate(workers, chunks, Costs(FREE, FREE)).seconds
    best = max(max(chunks), sum(chunks) / workers)
    assert best - 1e-9 <= free <= (2 - 1 / workers) * best + 1e-9
    paid = simulate(workers, chunks, Costs(server(a), server(b))).seconds
    assert paid >= max(best, len(chunks) * max(a, b)) - 1e-9


def test_drawn_chunks_have_the_mean_and_the_spread() -> None:
    import numpy as np

    drawn = np.array(Chunks(200_000, 3.0, 0.25).draw(0))
    assert drawn.mean() == pytest.approx(3.0, rel=0.01)
    assert drawn.std() / drawn.mean() == pytest.approx(0.25, rel=0.02)
    assert Chunks(5, 3.0).draw(0) == pytest.approx([3.0] * 5)


def test_real_workers_are_measured_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scale_out, "_SETTLE_S", 0.2)
    monkeypatch.setattr(scale_out, "_IDLE_S", 2.0)
    found = scale_out.run(
        crowds=(3,), chunk_s=(1.0,), chunks_each=3, tasks=40, images=32, dozing=(1,), embedding=(1,)
    )
    assert [load["workers"] for load in found["servers"]["scheduler"]] == [3]
    assert all(0 < load["task_s"] < 1 for loads in found["servers"].values() for load in loads)
    assert [(check["tasks"], check["workers"]) for check in found["checks"]] == [("sleep", 1), ("embed", 1)]
    assert all(check["real_s"] > 0 for check in found["checks"])
    assert [row["workers"] for row in found["expected"]] == list(scale_out.WORKERS)
    assert "chunks of 1 s" in scale_out.tables(found)
