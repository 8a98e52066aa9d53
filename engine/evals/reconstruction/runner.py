"""The networks of a run: in batches that fit into memory, several at a time, saved while they advance.

On a device a batch of networks is one module (grouped convolutions). On the CPU each network has its own
threads: that is as fast, and no bit of a result depends on which networks are computed beside it.
"""

import threading
import time
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.evals.reconstruction.lane import Lane, Protocol, bytes_of_network
from engine.evals.reconstruction.progress import Estimate, Hooks, Progress
from engine.evals.reconstruction.store import Finished, Store
from engine.faults import device_faults
from engine.models.forward.encoder import thread_workers
from engine.models.forward.feature_map import FeatureMap
from engine.runtime import Runtime, free_device_bytes
from stores.limits import available_memory

#: Seconds between two checkpoints of a batch.
SAVE_EVERY_S = 60.0
#: Updates between two looks at the losses on a device, which wait for it.
CHECK_EVERY = 25
#: Updates before the time of one is measured, and of which it is measured.
_WARM, _TIMED = 1, 2
#: Share of the free memory that networks may take, and largest number of networks in a batch.
_SHARE, _MOST = 0.7, 64
_POLL_S = 0.2


@dataclass(frozen=True, eq=False)
class Job:
    """One network to optimise.

    Attributes:
        image: SHA-256 of the image's file. seed: of the network.
        pixels: uint8 [S, S, 3].
    """

    image: str
    seed: int
    pixels: NDArray[np.uint8]


@dataclass(frozen=True)
class Diverged:
    """A network that stopped because its loss was not finite at this update."""

    step: int


Outcome = Finished | Diverged


@dataclass
class _Shared:
    """Counts that the batches at work share; changed under `lock`."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    computed: int = 0
    latest: dict[int, float] = field(default_factory=dict)
    seconds_an_update: float = float("nan")
    memory: int = 0


class Runner:
    """Optimises networks.

    Args:
        encode: the backbone. runtime: device, precision, threads.
        protocol: settings of the networks. store: of checkpoints and finished reconstructions.
        hooks: called in `run`'s own thread.

    Attributes:
        computed: updates done.
        width: networks in a batch, abreast: batches at a time; once `run` has begun.
    """

    def __init__(
        self, encode: FeatureMap, runtime: Runtime, protocol: Protocol, store: Store, hooks: Hooks
    ) -> None:
        self._encode, self._runtime, self._protocol = encode, runtime, protocol
        self._store, self._hooks = store, hooks
        self._stop, self._shared = threading.Event(), _Shared()
        self.width = self.abreast = 1

    @property
    def computed(self) -> int:
        """Updates done by this run."""
        return self._shared.computed

    def run(self, jobs: Sequence[Job], requested: int) -> Generator[tuple[Job, Outcome], None, None]:
        """Optimise the networks of all jobs, and yield outcomes as they come.

        Args:
            jobs: in their order.
            requested: networks of the request, of which some may be finished already: threads are shared out
                among these, so that a run that goes on has the same threads for a network.

        Raises:
            MachineFault: the disk or the device failed. KeyboardInterrupt. Checkpoints are kept.
        """
        if not jobs:
            return
        begun, start = {job: self._step_of(job) for job in jobs}, time.perf_counter()
        threads = max(1, self._runtime.threads // min(requested, self._runtime.threads))
        self._fit_memory(jobs)
        done = sum(begun.values())
        finished = 0
        with thread_workers(self.abreast, threads) as pool:
            futures = {pool.submit(self._work, batch): batch for batch in self._batches(jobs, begun)}
            estimated = False
            try:
                while futures:
                    ready, _ = wait(futures, timeout=_POLL_S, return_when=FIRST_COMPLETED)
                    estimated = estimated or self._estimate(begun)
                    for future in ready:
                        batch = futures.pop(future)
                        finished += len(batch)
                        yield from zip(batch, future.result(), strict=True)
                    self._report(finished, len(jobs), done, start)
            except BaseException:
                # The batches at work write their checkpoints; what they raise now is not the cause.
                self._stop.set()
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    # --- what is computed together ------------------------------------------------------------------------

    def _fit_memory(self, jobs: Sequence[Job]) -> None:
        """Choose how many networks are in a batch, and how many batches there are at a time."""
        with device_faults():
            probe = Lane(
                self._encode, self._runtime, self._protocol, np.stack([jobs[0].pixels]), [jobs[0].seed]
            )
            self._shared.memory = bytes_of_network(probe)
        if self._runtime.on_cuda:
            del probe
            room = free_device_bytes(self._runtime.device)
            self.width = self._fitting(room, min(len(jobs), _MOST))
        else:
            self.abreast = self._fitting(available_memory(), min(len(jobs), self._runtime.threads))

    def _fitting(self, room: float, most: int) -> int:
        return max(1, min(most, int(room * _SHARE // self._shared.memory)))

    def _batches(self, jobs: Sequence[Job], begun: dict[Job, int]) -> Iterator[list[Job]]:
        """Yield networks that are computed together; those of a batch have done as many updates."""
        batch: list[Job] = []
        for job in sorted(jobs, key=lambda job: -begun[job]):
            if batch and (len(batch) == self.width or begun[job] != begun[batch[0]]):
                yield batch
                batch = []
            batch.append(job)
        yield batch

    def _step_of(self, job: Job) -> int:
        state = self._store.checkpoint(job.image, job.seed)
        return state.step if state else 0

    # --- in a thread of its own ---------------------------------------------------------------------------

    def _work(self, batch: Sequence[Job]) -> list[Outcome]:
        with device_faults():
            pixels, seeds = np.stack([job.pixels for job in batch]), [job.seed for job in batch]
            lane = Lane(self._encode, self._runtime, self._protocol, pixels, seeds)
            states = [self._store.checkpoint(job.image, job.seed) for job in batch]
            known = [state for state in states if state is not None]
            if len(known) == len(batch):
                lane.restore(known)
            self._advance(lane, batch)
            if self._stop.is_set():
                return []
            return self._outcomes(lane, batch)

    def _advance(self, lane: Lane, batch: Sequence[Job]) -> None:
        every = CHECK_EVERY if self._runtime.on_cuda else 1
        saved, first = time.monotonic(), lane.step
        began = time.perf_counter()
        while lane.running and not self._stop.is_set():
            lane.update()
            done = lane.step - first
            if lane.step % every == 0 or not lane.running or done in (_WARM, _WARM + _TIMED):
                self._note(lane, batch, done, time.perf_counter() - began)
            if done == _WARM:
                began = time.perf_counter()
            if time.monotonic() - saved > SAVE_EVERY_S:
                self._save(lane, batch)
                saved = time.monotonic()
        with self._shared.lock:
            self._shared.latest.pop(id(batch), None)
        if self._stop.is_set() and lane.running and lane.step > first:
            self._save(lane, batch)

    def _note(self, lane: Lane, batch: Sequence[Job], steps: int, seconds: float) -> None:
        before = lane.checked
        losses = lane.check()
        finite = losses[np.isfinite(losses)]
        with self._shared.lock:
            self._shared.computed += (lane.step - before) * lane.networks
            if len(finite):
                self._shared.latest[id(batch)] = float(finite.mean())
            if steps == _WARM + _TIMED:
                self._shared.seconds_an_update = seconds / _TIMED / lane.networks

    def _save(self, lane: Lane, batch: Sequence[Job]) -> None:
        for network, (job, state) in enumerate(zip(batch, lane.states(), strict=True)):
            if network not in lane.stopped:
                self._store.keep_checkpoint(job.image, job.seed, state)

    def _outcomes(self, lane: Lane, batch: Sequence[Job]) -> list[Outcome]:
        images, last, losses = lane.result()
        outcomes: list[Outcome] = []
        for network, job in enumerate(batch):
            if network not in lane.stopped and not np.isfinite(last[network]):
                lane.stopped[network] = lane.step
            if network in lane.stopped:
                outcomes.append(Diverged(lane.stopped[network]))
                continue
            rounded = np.rint(images[network].clip(0, 1) * 255).astype(np.uint8)
            curve = np.append(losses[:, network], last[network]).astype(np.float32)
            finished = Finished(rounded, curve)
            self._store.keep(job.image, job.seed, finished)
            outcomes.append(finished)
        return outcomes

    # --- what is reported ---------------------------------------------------------------------------------

    def _estimate(self, begun: dict[Job, int]) -> bool:
        with self._shared.lock:
            seconds, memory = self._shared.seconds_an_update, self._shared.memory
        if seconds != seconds:
            return False
        updates = sum(self._protocol.updates - step for step in begun.values())
        abreast = self.abreast * self.width
        total = updates * seconds / self.abreast
        if self._hooks.on_estimate:
            self._hooks.on_estimate(Estimate(len(begun), updates, abreast, total, memory * abreast))
        return True

    def _report(self, finished: int, networks: int, done: int, start: float) -> None:
        with self._shared.lock:
            computed, latest = self._shared.computed, list(self._shared.latest.values())
        if self._hooks.on_progress:
            loss = float(np.mean(latest)) if latest else float("nan")
            total, seconds = networks * self._protocol.updates, time.perf_counter() - start
            self._hooks.on_progress(
                Progress(finished, networks, done + computed, total, computed, seconds, loss)
            )
