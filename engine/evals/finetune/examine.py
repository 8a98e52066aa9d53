"""Outputs of a network for the images of a part, rendered by the recipe."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from engine.decode import ImageSource, make_decoder
from engine.decode.protocol import DecodedBatch
from engine.errors import BadImage, Refused
from engine.evals.finetune.network import FinetuneNetwork
from engine.recipes import Recipe
from engine.runtime import Runtime, autocast

#: Images of a forward pass.
CPU_BATCH, CUDA_BATCH = 32, 256
#: Bytes of rendered images that are held, so that the next validation need not decode them.
HELD_BYTES = 1 << 28


@dataclass(frozen=True, eq=False)
class Outputs:
    """Outputs for the images of a part.

    Attributes:
        rows: intp [m], of the images that could be decoded, in the order of the part.
        logits: float32 [m, K], on the CPU.
        failures: row -> why it could not be decoded.
    """

    rows: NDArray[np.intp]
    logits: torch.Tensor
    failures: dict[int, BadImage]


class Examiner:
    """Renders images and runs a network on them in eval mode.

    Args:
        source: the files.
        recipe: how they are rendered.
        runtime: device, precision, threads.
        decoder: its name.
        between: called between two batches; it may raise.
    """

    def __init__(
        self,
        source: ImageSource,
        recipe: Recipe,
        runtime: Runtime,
        decoder: str = "auto",
        between: Callable[[], None] = lambda: None,
    ) -> None:
        self._source, self._runtime, self._between = source, runtime, between
        self._batch = CUDA_BATCH if runtime.on_cuda else CPU_BATCH
        self._side = recipe.side
        self._decoder = make_decoder(
            decoder,
            recipe.rendering,
            device=runtime.device,
            threads=runtime.threads,
            batch_size=self._batch,
        )
        self._held: dict[str, list[DecodedBatch]] = {}

    def close(self) -> None:
        """Stop the decoder's threads."""
        self._decoder.close()

    def outputs(self, network: FinetuneNetwork, rows: NDArray[np.intp], part: str) -> Outputs:
        """Compute the network's outputs; the mode of its layers is restored afterwards.

        Args:
            part: name of the part, under which its rendered images are held if they are few.

        Raises:
            Refused: not one image of the part can be decoded.
            MachineFault: the storage or the device fails.
        """
        training = network.training
        network.eval()
        logits: list[torch.Tensor] = []
        decoded: list[int] = []
        failures: dict[int, BadImage] = {}
        try:
            for batch in self._rendered(rows, part):
                self._between()
                good = [slot for slot in range(len(batch.rows)) if slot not in batch.failures]
                failures |= {batch.rows[slot]: failure for slot, failure in batch.failures.items()}
                decoded += [batch.rows[slot] for slot in good]
                with autocast(self._runtime):
                    logits.append(network(batch.pixels).float().cpu()[good])
        finally:
            network.train(training)
        if not decoded:
            raise nothing_decodable(part, failures)
        return Outputs(np.array(decoded, np.intp), torch.cat(logits), failures)

    def _rendered(self, rows: NDArray[np.intp], part: str) -> Iterator[DecodedBatch]:
        if part in self._held:
            yield from self._held[part]
            return
        listed = rows.tolist()
        batches = [listed[i : i + self._batch] for i in range(0, len(listed), self._batch)]
        on_cuda = self._runtime.on_cuda
        hold = len(listed) * 3 * self._side**2 <= HELD_BYTES
        held: list[DecodedBatch] = []
        for batch in self._decoder.stream(self._source, batches):
            yield batch
            if hold:
                # A device's decoder may use the memory of a batch again.
                held.append(replace(batch, pixels=batch.pixels.clone()) if on_cuda else batch)
        if hold:
            self._held[part] = held


def nothing_decodable(part: str, failures: dict[int, BadImage]) -> Refused:
    """Return the error for a part of which no image can be decoded."""
    reasons = sorted({failure.code for failure in failures.values()})
    return Refused(
        f"Not one of the {len(failures)} {part} images can be decoded ({', '.join(reasons)})",
        "Images are trained and tested on",
        "check the files with `embank manifest check`, and say where they are with --root",
    )
