"""A few-shot run wholly on a device: episodes, predictions and counts are there, and the counts return.

The host waits for the drawn rows of each block, whose digest it computes while the device goes on with later
work, and once for the counts of all models together, however many images and models there are. Patients that
are kept apart cost a further wait a block (`engine.kernels.device_episodes`).
"""

from collections import deque
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch

from engine.evals.fewshot.predictors import Predictor, Resident
from engine.evals.fewshot.run import BLOCK_ROWS, MOST_CONFUSED, Clock, Run, Tally
from engine.kernels.device_episodes import DeviceEpisodes, DeviceSampler
from engine.kernels.prototypes import Distance, classify_on_device
from engine.runtime import HostCopy, all_arrived, fetched, float32_products

#: Blocks whose drawn rows are in page-locked memory at a time.
_LOCKED = 2


class DeviceTally:
    """Counts of one model over all episodes, on the device."""

    def __init__(self, classes: int, rows: int, device: str) -> None:
        zeros: dict[str, Any] = {"dtype": torch.int64, "device": device}
        self.right: list[torch.Tensor] = []  # counts: a GPU divides by a number inexactly, so the host does
        self.confusion = torch.zeros(classes**2 if classes <= MOST_CONFUSED else 0, **zeros)
        self.correct = torch.zeros(rows, **zeros)

    def add(self, drawn: DeviceEpisodes, predicted: torch.Tensor) -> None:
        """Count predictions, int64 [E, N, Q]."""
        ways, queries = predicted.shape[1:]
        right = predicted == torch.arange(ways, device=predicted.device)[:, None]
        self.right.append(right.sum((1, 2)))
        self.correct.index_add_(0, drawn.query.flatten(), right.flatten().long())
        if len(self.confusion):
            classes = drawn.classes[:, :, None].expand(-1, -1, queries)
            cells = classes * round(len(self.confusion) ** 0.5) + classes.gather(1, predicted)
            self.confusion.index_add_(0, cells.flatten(), torch.ones_like(cells).flatten())


def go_on_device(run: Run, predictors: Mapping[str, Predictor], clock: Clock, device: str) -> None:
    """Do `Run.go` on a device.

    Args:
        predictors: model -> `Resident` features there.
    """
    p, distance = run.protocol, cast(Distance, run.protocol.distance)
    arrays = {name: model.array for name, model in predictors.items() if isinstance(model, Resident)}
    run.tallies = {name: Tally(p.episodes, len(run.pools), run.rows) for name in arrays}
    sampler = DeviceSampler(run.pools, p.identity(run.data_set), run.groups, device)
    tallies = {name: DeviceTally(len(run.pools), run.rows, device) for name in arrays}
    queries = torch.zeros(run.rows, dtype=torch.int64, device=device)
    step = max(1, BLOCK_ROWS // (p.ways * (p.n_shot + p.n_query)))
    copies: deque[list[HostCopy]] = deque()
    for start in range(0, p.episodes, step):
        drawn = sampler.draw(min(step, p.episodes - start))
        if len(copies) == _LOCKED:  # torch lends the memory of the oldest again
            _digest(run, copies.popleft())
        copies.append([HostCopy(drawn.support.contiguous()), HostCopy(drawn.query.contiguous())])
        queried = drawn.query.flatten()
        queries.index_add_(0, queried, torch.ones_like(queried))
        clock.lap("sampling")
        for name, array in arrays.items():
            with float32_products():
                tallies[name].add(drawn, classify_on_device(array, drawn.support, drawn.query, distance))
            clock.lap("kernel", name)
    while copies:
        _digest(run, copies.popleft())
    clock.lap("digest")
    _return(run, tallies, queries)
    clock.lap("counting")


def _digest(run: Run, copies: list[HostCopy]) -> None:
    """Add the drawn rows of a block to the digest, once they have arrived."""
    for rows in all_arrived(copies):
        run.digest.update(rows.numpy().astype("<i8", copy=False).data)


def _return(run: Run, tallies: Mapping[str, DeviceTally], queries: torch.Tensor) -> None:
    """Bring the counts of all models to the host, together."""
    parts: list[Any] = [queries]
    for tally in tallies.values():
        parts += [torch.cat(tally.right), tally.confusion, tally.correct]
    run.queries, *counts = (np.array(part) for part in fetched(*parts))
    for number, name in enumerate(tallies):
        into = run.tallies[name]
        right, confusion, into.correct = counts[3 * number : 3 * number + 3]
        into.accuracies = right / (run.protocol.ways * run.protocol.n_query)
        if into.confusion is not None:
            into.confusion = confusion.reshape(into.confusion.shape)
