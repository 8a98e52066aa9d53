"""Order of the training images: a pure function of seed and epoch, so that a resumed run needs no state.

The batches are those of a shuffling DataLoader without `drop_last`, as the study's: every epoch shows every
image once, and its last batch may be smaller. A last batch of a single image is left out, because BatchNorm
has no statistics of one value; the next epoch has another order.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.decode.protocol import TrainingBatch
from engine.kernels.episodes import Stream


def permutation(count: int, seed: int, epoch: int) -> NDArray[np.intp]:
    """Return positions 0 to count - 1 in the order of an epoch, intp [count].

    They are sorted by numbers of a stream of their own, whose key is the first 128 bits of SHA-256 over
    `embank finetune order 1 SEED EPOCH`; of equal numbers the first position comes first.
    """
    key = hashlib.sha256(f"embank finetune order 1 {seed} {epoch}".encode()).digest()[:16]
    return np.argsort(Stream(key).uniform(count), kind="stable")


@dataclass(frozen=True)
class Order:
    """The batches of a run.

    Attributes:
        rows: intp [n], rows of the train part.
        batch_size: images of a batch; fewer at the end of an epoch.
        seed: of the shuffling.
    """

    rows: NDArray[np.intp]
    batch_size: int
    seed: int

    @property
    def per_epoch(self) -> int:
        """Number of batches in an epoch."""
        full, tail = divmod(len(self.rows), self.batch_size)
        return full + (tail > 1 or not full)

    def batches(self, start: int, stop: int) -> Iterator[TrainingBatch]:
        """Yield the batches of the steps from `start` to `stop` - 1, both counted from 0."""
        order, of_epoch = np.zeros(0, np.intp), -1
        for step in range(start, stop):
            epoch, place = divmod(step, self.per_epoch)
            if epoch != of_epoch:
                order, of_epoch = self.rows[permutation(len(self.rows), self.seed, epoch)], epoch
            batch = order[place * self.batch_size : (place + 1) * self.batch_size]
            yield TrainingBatch(batch.tolist(), epoch)
