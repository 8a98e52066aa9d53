"""Executors: dask's workers make the serial bank, bit for bit; they may die, or lose their device."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from benchmarks.faults.chaos import worker_processes
from benchmarks.faults.kill import problems_of
from engine import executors
from engine.embed.run import EmbedOptions, PassProgress, embed
from engine.errors import DeviceLost, MachineFault, OutOfMemory, Refused
from engine.executors.dask import _Flight
from engine.models import resolve
from engine.recipes import Recipe
from engine.runtime import Runtime
from stores.manifest.manifest import Manifest
from tests.engine.dask_tasks import (
    die,
    fail_until,
    lose_device,
    lose_on,
    lose_then_fail,
    refuse,
    run_out,
    square,
    stumble,
)

pytestmark = pytest.mark.slow

ONE = Runtime(threads=1)
OPTIONS = EmbedOptions(batch_size=8, chunk_rows=8)


@pytest.fixture(scope="module")
def two() -> Iterator[executors.DaskExecutor]:
    with executors.local(2, silence_s=30) as executor:
        yield executor


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    root = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for i in range(60):
        Image.fromarray(generator.integers(0, 255, (40, 50, 3), np.uint8)).save(root / f"{i:02}.png")
    (root / "13.png").write_bytes(b"nothing")
    return Manifest.from_folder(root)


def test_every_task_is_done_once(two: executors.DaskExecutor) -> None:
    tasks = [(i,) for i in range(23)]
    expected = {i: i * i for i in range(23)}
    assert dict(executors.Serial().run(square, tasks)) == expected
    assert dict(two.run(square, tasks)) == expected
    assert two.workers == 2
    assert two.ask(square, 7) == executors.Serial().ask(square, 7) == 49


def test_errors_come_back_as_they_are(two: executors.DaskExecutor, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="None is good"):
        list(two.run(refuse, [(1,)]))
    with pytest.raises(ZeroDivisionError, match="a fault of the program"):
        list(two.run(stumble, [(1,)]))
    assert two.ask(fail_until, str(tmp_path / "tried")) == "done"


def test_workers_make_the_serial_bank(two: executors.DaskExecutor, images: Manifest, tmp_path: Path) -> None:
    """Two models in one pass, a bad image, one chunk done before: bit-identical, counted, reported."""
    recipe = replace(Recipe(), size=32, crop=32)
    specs = [resolve("random/squeezenet1_1", recipe=recipe, seed=seed) for seed in (0, 1)]
    serial = embed(images, specs, tmp_path / "serial", runtime=ONE, options=OPTIONS)
    seen: list[PassProgress] = []
    shared = embed(
        images,
        specs,
        tmp_path / "shared",
        runtime=ONE,
        options=OPTIONS,
        executor=two,
        on_progress=seen.append,
    )
    assert problems_of(tmp_path / "shared", tmp_path / "serial") == []
    assert [(r.rows, r.ok, r.failed, r.embedded, r.workers) for r in shared] == [(60, 59, 1, 60, 2)] * 2
    assert [r.key for r in shared] == [r.key for r in serial]
    assert (seen[-1].done, seen[-1].total, seen[-1].failed) == (60, 60, 1)
    assert shared[0].stages["encode"]["images"] == 60
    again = embed(images, specs, tmp_path / "shared", runtime=ONE, options=OPTIONS, executor=two)
    assert [r.embedded for r in again] == [0, 0]


def test_a_killed_worker_costs_nothing(two: executors.DaskExecutor, images: Manifest, tmp_path: Path) -> None:
    spec = resolve("random/squeezenet1_1", recipe=replace(Recipe(), size=32, crop=32))
    embed(images, [spec], tmp_path / "serial", runtime=ONE, options=OPTIONS)
    killed: list[int] = []

    def kill_one(progress: PassProgress) -> None:
        if progress.done >= 16 and not killed:
            killed.append(worker_processes()[0])
            os.kill(killed[0], signal.SIGKILL)

    embed(images, [spec], tmp_path / "bank", runtime=ONE, options=OPTIONS, executor=two, on_progress=kill_one)
    assert killed
    assert problems_of(tmp_path / "bank", tmp_path / "serial") == []


def test_a_task_that_kills_its_workers_ends_the_run(two: executors.DaskExecutor) -> None:
    two.tries = 1
    with pytest.raises(MachineFault, match="ended 4 worker processes"):
        list(two.run(die, [(1,)]))
    two.tries = 3


@pytest.mark.parametrize(
    "message",
    ["CUDA error: an illegal memory access was encountered", "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"],
)
def test_a_worker_with_a_dead_context_ends_itself(
    two: executors.DaskExecutor, tmp_path: Path, message: str
) -> None:
    """Four processes meet it, more than the tries of a task; none of them takes another task."""
    said: list[str] = []
    two.say, two.tries = said.append, 2
    ended = dict(two.run(lose_device, [(str(tmp_path), message, 4, i) for i in range(12)]))
    two.say, two.tries = lambda _: None, 3
    assert [ended[i][0] for i in range(12)] == list(range(12))
    met = {int(path.name): path.read_text() for path in tmp_path.iterdir()}
    assert len(met) == 4
    assert all(len(tasks.split()) == 1 for tasks in met.values()), met
    assert not {pid for _, pid in ended.values()} & met.keys()
    assert not [pid for pid in met if psutil.pid_exists(pid)]
    assert sum("The device failed" in line and "Trying again" in line for line in said) >= 2


def test_lost_devices_are_no_tries_of_a_task(two: executors.DaskExecutor, tmp_path: Path) -> None:
    for name in ("lost", "both"):
        (tmp_path / name).mkdir()
    two.tries = 1
    ended = dict(two.run(lose_device, [(str(tmp_path / "lost"), "CUDA error: misaligned address", 3, 7)]))
    assert ended[0][0] == 7 and len(list((tmp_path / "lost").iterdir())) == 3
    two.tries = 2
    assert two.ask(lose_then_fail, str(tmp_path / "both")) == "done"
    two.tries = 3


class _Client:
    """Takes what is submitted, as dask's client does, and notes where it should go."""

    def __init__(self) -> None:
        self.where: list[dict[str, object]] = []

    def submit(self, *_: object, pure: bool, **where: object) -> Any:
        from concurrent.futures import Future

        self.where.append(where)
        return Future()


def test_a_task_that_met_a_lost_device_goes_to_a_sound_worker() -> None:
    client = _Client()
    flight = _Flight(client, square, [(1,), (2,)])
    flight.fill(2, ["tls://a:1"])
    assert client.where == [{}, {}]
    flight.flying.clear()
    flight.lost(0)
    flight.waiting += [0, 1]
    flight.fill(2, ["tls://a:1"])
    assert client.where[2:] == [{"workers": ["tls://a:1"], "allow_other_workers": True}, {}]
    flight.flying.clear()
    flight.waiting.append(0)
    flight.fill(1, [])  # none is sound: anybody
    assert client.where[4:] == [{}]


def test_a_device_that_is_gone_for_good_does_not_end_the_run(
    two: executors.DaskExecutor, tmp_path: Path
) -> None:
    """Its worker loses tasks again and again; the other does them all."""
    ended = dict(two.run(lose_on, [(str(tmp_path), i) for i in range(60)]))
    assert {name for _, name in ended.values()} == {"1"}
    assert len(ended) == 60
    assert len(list(tmp_path.iterdir())) >= 2


def test_a_task_that_costs_every_worker_its_device_ends_the_run(
    two: executors.DaskExecutor, tmp_path: Path
) -> None:
    with pytest.raises(DeviceLost, match="illegal memory access") as caught:
        list(two.run(lose_device, [(str(tmp_path), "CUDA error: an illegal memory access", 1000, 0)]))
    assert caught.value.exit_code == 3
    # dask has a loss met again where the worker that told of it was gone before anybody listened.
    assert two.losses == 4 <= len(list(tmp_path.iterdir())) <= 8
    assert two.ask(square, 3) == 9  # the cluster is as good as new


def test_memory_that_is_out_counts_as_a_try(two: executors.DaskExecutor) -> None:
    said: list[str] = []
    two.say = said.append
    with pytest.raises(OutOfMemory, match="The device is out of memory"):
        list(two.run(run_out, [(1,)]))
    two.say = lambda _: None
    assert sum("Trying again" in line for line in said) == 2


def test_another_machine_that_would_make_other_features_is_refused(images: Manifest, tmp_path: Path) -> None:
    from engine.embed.worker import Resident, Work
    from stores.bank.layout import FeatureLayout
    from stores.bank.writer import open_or_create
    from tests.stores.banks import make_key

    spec = resolve("random/squeezenet1_1", recipe=replace(Recipe(), size=32, crop=32))
    bank = open_or_create(tmp_path / "bank", images, chunk_rows=8)
    layout = FeatureLayout(bank.path, make_key(images.image_digest), 512, bank.grid)
    with pytest.raises(Refused, match="All processes of a run make the same features"):
        Resident(Work(images.root, (spec,), (layout,), ONE, OPTIONS))


@pytest.mark.parametrize(
    "address", ["tcp://10.0.0.1:8786", "10.0.0.1:8786", "tcp://example.org:8786", "ucx://a:1", "", "tls://"]
)
def test_a_scheduler_in_the_open_is_refused(address: str) -> None:
    with pytest.raises(Refused, match="tls://HOST:PORT"), executors.remote(address):
        pass


def test_a_scheduler_on_loopback_is_used_and_its_absence_said() -> None:
    from distributed import LocalCluster

    cluster = LocalCluster(
        n_workers=1,
        processes=False,
        protocol="tcp",
        host="127.0.0.1",
        dashboard_address=None,
        silence_logs=50,
    )
    with cluster, executors.remote(cluster.scheduler_address) as executor:
        assert executor.ask(square, 5) == 25
    with (
        pytest.raises(MachineFault, match="No scheduler answers"),
        executors.remote("tcp://127.0.0.1:1", timeout_s=0.5),
    ):
        pass


def test_a_scheduler_that_goes_away_is_a_fault_of_the_machine() -> None:
    from distributed import LocalCluster

    cluster = LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=None, silence_logs=50)
    with cluster, executors.remote(cluster.scheduler_address, timeout_s=1) as executor:
        assert executor.workers == 0
        cluster.close()
        with pytest.raises(MachineFault, match="The scheduler is gone"):
            list(executor.run(square, [(1,)]))


def test_tls_without_certificates_is_refused_at_once() -> None:
    with pytest.raises(Refused, match="no certificates"), executors.remote("tls://127.0.0.1:1"):
        pass


def test_without_workers_it_gives_up_and_says_what_to_do() -> None:
    from distributed import LocalCluster

    with (
        LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=None, silence_logs=50) as cluster,
        cluster.get_client() as client,
        pytest.raises(MachineFault, match="dask worker"),
    ):
        list(executors.DaskExecutor(client, patience_s=0.5).run(square, [(1,)]))
