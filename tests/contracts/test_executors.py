"""What every executor keeps to: a suite that a new one inherits, with an `executor` fixture of its own."""

import pickle
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from engine.errors import MachineFault, Refused
from engine.executors import SERIAL, DaskExecutor, Executor, Local
from tests.one_by_one import OneByOne

#: What jobs and sessions of this module went through, in this process.
events: list[str] = []


def square(x: int) -> int:
    return x * x


def refuse(x: int) -> int:
    if x == 2:
        raise Refused("the number 2", "It is not accepted", "give another")
    return x


def stumble(x: int) -> int:
    return 1 // x


def fail_once(marker: str) -> str:
    """Fails as a machine does at the first call."""
    if not Path(marker).exists():
        Path(marker).touch()
        raise MachineFault("The disk is full", "It must not be", "free space")
    return "done"


@dataclass(frozen=True)
class Power:
    """Raises numbers to a power, in two halves a number."""

    exponent: int
    here: Local[str] = field(default_factory=Local, compare=False)

    def open(self) -> "Powers":
        events.append(f"open {self.exponent} {self.here.value}")
        return Powers(self.exponent)


@dataclass(frozen=True)
class Powers:
    exponent: int

    def run(self, tasks: Sequence[int], report: Callable[[dict[int, float]], None], /) -> None:
        for number in tasks:
            if number < 0:
                raise Refused(f"{number}", "It is not negative", "give another")
            for part in (0.25, 0.75):
                report({number: part * number**self.exponent})

    def close(self) -> None:
        events.append(f"close {self.exponent}")


def powers(executor: Executor, job: Power, numbers: Sequence[int]) -> dict[int, float]:
    """The reported parts of each number, added up."""
    sums = dict.fromkeys(numbers, 0.0)

    def add(part: dict[int, float]) -> None:
        for number, value in part.items():
            sums[number] += value

    with executor.session(job) as session:
        session.run(numbers, add)
    return sums


class ExecutorContract:
    """Inherit this, and give `executor`."""

    #: Whether a task that a fault of the machine ended is tried again.
    retries = True
    #: Whether tasks are done in the process that asks for them, by what it has ready.
    is_here = False

    @pytest.fixture
    def executor(self) -> Executor:
        raise NotImplementedError

    def test_every_task_is_done_once(self, executor: Executor) -> None:
        results = list(executor.run(square, [(i,) for i in range(23)]))
        assert sorted(results) == [(i, i * i) for i in range(23)]
        assert list(executor.run(square, [])) == []

    def test_ask(self, executor: Executor) -> None:
        assert executor.ask(square, 7) == 49
        with pytest.raises(Refused, match="the number 2"):
            executor.ask(refuse, 2)

    def test_errors_come_back_as_they_are(self, executor: Executor) -> None:
        with pytest.raises(Refused, match="It is not accepted") as caught:
            list(executor.run(refuse, [(1,), (2,), (3,)]))
        assert caught.value.remedy == "give another"
        with pytest.raises(ZeroDivisionError):
            list(executor.run(stumble, [(0,)]))
        assert executor.ask(square, 3) == 9

    def test_a_lost_task_is_done_again_or_said(self, executor: Executor, tmp_path: Path) -> None:
        tasks = [(str(tmp_path / "lost"),)]
        if not self.retries:
            with pytest.raises(MachineFault, match="The disk is full"):
                list(executor.run(fail_once, tasks))
        assert list(executor.run(fail_once, tasks)) == [(0, "done")]

    def test_a_session_reports_all_parts(self, executor: Executor) -> None:
        expected = {number: float(number**3) for number in range(9)}
        assert powers(executor, Power(3), range(9)) == expected
        assert powers(executor, Power(3), []) == {}

    def test_a_job_is_opened_once_for_many_tasks(self, executor: Executor) -> None:
        events.clear()
        powers(executor, Power(5, Local("ready")), range(4))
        powers(executor, Power(6, Local("ready")), range(4))
        ready = "ready" if self.is_here else "None"
        opened = [event for event in events if event.startswith("open")]
        assert opened == [f"open 5 {ready}", f"open 6 {ready}"]
        assert "close 5" in events  # two jobs are not in memory together

    def test_errors_of_a_session_come_back_as_they_are(self, executor: Executor) -> None:
        with pytest.raises(Refused, match="-1"):
            powers(executor, Power(2), [1, -1, 2])
        assert powers(executor, Power(2), [1, 2]) == {1: 1.0, 2: 4.0}


class TestSerial(ExecutorContract):
    retries, is_here = False, True

    @pytest.fixture
    def executor(self) -> Executor:
        return SERIAL

    def test_tasks_are_done_in_order_while_results_are_taken(self, executor: Executor) -> None:
        results = executor.run(refuse, [(1,), (2,)])
        assert next(results) == (0, 1)  # the second, which fails, has not been begun
        assert executor.workers == 0


class TestOneByOne(ExecutorContract):
    """The executor that other tests take for worker processes."""

    retries = False

    @pytest.fixture
    def executor(self) -> Executor:
        return OneByOne()


@pytest.fixture(scope="module")
def dask() -> Iterator[DaskExecutor]:
    from distributed import LocalCluster

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None, silence_logs=50
        ) as cluster,
        cluster.get_client() as client,
    ):
        yield DaskExecutor(client)


@pytest.mark.slow
class TestDask(ExecutorContract):
    @pytest.fixture
    def executor(self, dask: DaskExecutor) -> Executor:
        return dask

    def test_workers_are_counted(self, executor: Executor) -> None:
        assert executor.workers == 1


def test_a_local_value_stays_in_its_process() -> None:
    value = Local(lambda: None)  # cannot be pickled at all
    assert pickle.loads(pickle.dumps(value)) == Local(None)
