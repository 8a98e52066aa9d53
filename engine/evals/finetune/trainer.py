"""One update of a network's weights after another: SGD with Nesterov momentum."""

import contextlib
import hashlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from engine.errors import EmbankError, Refused
from engine.evals.finetune.losses import Loss
from engine.evals.finetune.network import Tensors, copied, load_own
from engine.evals.finetune.options import FinetuneOptions
from engine.runtime import Runtime, mixed_precision

_WEIGHTS, _MOMENTUM = "weights.", "momentum."


class Diverged(EmbankError):
    """A loss that is not finite: training ended without a result, and its last sound checkpoint is kept."""

    exit_code = 1


def learning_rate(options: FinetuneOptions, step: int) -> float:
    """Return the learning rate of an update, counted from 0.

    `cosine` is lr (1 + cos(pi step / steps)) / 2, torch's `CosineAnnealingLR` stepped after every batch.
    """
    if options.schedule == "constant":
        return options.lr
    return options.lr * (1 + math.cos(math.pi * step / options.steps)) / 2


class Trainer:
    """A network and its optimiser.

    Args:
        network: uint8 [B, S, S, 3] -> [B, K]; moved to the device, in train mode.
        loss: of its outputs.
        options: of the optimiser.
        runtime: device and precision.

    Attributes:
        network: as given.
    """

    def __init__(self, network: nn.Module, loss: Loss, options: FinetuneOptions, runtime: Runtime) -> None:
        self.network = network.to(runtime.torch_device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network.train()
        self._loss, self._options, self._runtime = loss, options, runtime
        self._optimiser = torch.optim.SGD(
            self.network.parameters(),
            lr=options.lr,
            momentum=options.momentum,
            nesterov=options.momentum > 0,
            weight_decay=options.weight_decay,
        )
        self._scaler = torch.amp.GradScaler(
            runtime.torch_device.type, enabled=runtime.precision == "fp16" and runtime.on_cuda
        )

    def update(self, step: int, pixels: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
        """Make one update, and return the loss before it, float32 [] on the device.

        What layers draw (dropout, stochastic depth) is determined by seed and step alone.

        Args:
            step: its number, from 0.
            pixels: uint8 [b, S, S, 3] on the device.
            rows: of the images.

        Raises:
            Refused: one image at a time, of which a BatchNorm sees a single value.
        """
        targets = self._loss.targets(rows)
        count = self._loss.count(targets)
        targets = targets.to(pixels.device, non_blocking=True)
        torch.manual_seed(_seed(self._options.seed, step))
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate(self._options, step)
        self._optimiser.zero_grad(set_to_none=True)
        parts = min(self._options.accumulate, len(pixels))
        total = torch.zeros((), device=pixels.device)
        for images, labels in zip(pixels.tensor_split(parts), targets.tensor_split(parts), strict=True):
            with mixed_precision(self._runtime), _single_values():
                logits = self.network(images)
            value = self._loss.total(logits, labels) / max(count, 1)
            self._scaler.scale(value).backward()
            total += value.detach()
        self._scaler.step(self._optimiser)
        self._scaler.update()
        return total

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return copies of all weights and of their momentum, by name, on the CPU."""
        state = self._optimiser.state
        momentum = {
            name: state[parameter]["momentum_buffer"]
            for name, parameter in self.network.named_parameters()
            if state.get(parameter, {}).get("momentum_buffer") is not None
        }
        weights = {_WEIGHTS + name: tensor for name, tensor in self.network.state_dict().items()}
        return copied({**weights, **{_MOMENTUM + name: tensor for name, tensor in momentum.items()}})

    def restore(self, tensors: Tensors, scaler: dict[str, Any]) -> None:
        """Take up what `tensors` and `scaler_state` returned."""
        self.load_weights(
            {name.removeprefix(_WEIGHTS): t for name, t in tensors.items() if name.startswith(_WEIGHTS)}
        )
        for name, parameter in self.network.named_parameters():
            if (saved := tensors.get(_MOMENTUM + name)) is not None:
                buffer = torch.empty_like(parameter, memory_format=torch.preserve_format).copy_(saved)
                self._optimiser.state[parameter]["momentum_buffer"] = buffer.detach()
        if scaler:
            self._scaler.load_state_dict(scaler)

    def scaler_state(self) -> dict[str, Any]:
        """Return the state of the loss scaling of fp16; empty without it."""
        return dict(self._scaler.state_dict())

    @property
    def bytes(self) -> int:
        """Bytes of all weights and statistics of the network."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.network.state_dict().values())

    def weights(self) -> dict[str, torch.Tensor]:
        """Return a copy of all weights and statistics of the network, on the CPU."""
        return copied(self.network.state_dict())

    def load_weights(self, weights: Tensors) -> None:
        """Replace all weights and statistics of the network."""
        load_own(self.network, weights)


def _seed(seed: int, step: int) -> int:
    """Return the seed of what the layers draw in one update."""
    digest = hashlib.sha256(f"embank finetune layers 1 {seed} {step}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


@contextlib.contextmanager
def _single_values() -> Iterator[None]:
    """Refuse a batch that is too small for BatchNorm, which torch reports as a ValueError."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise Refused(
            "one image at a time, which leaves a BatchNorm a single value a channel",
            "BatchNorm needs two values or more",
            "raise --batch-size, or lower --accumulate",
        ) from error


class LossLog:
    """Losses since the last validation; looked at in blocks, because looking waits for the device.

    Args:
        every: number of losses in a block.

    Attributes:
        total, count: sum and number of the losses that were looked at since `clear`.
        last: the newest of them; NaN before the first.
    """

    def __init__(self, every: int, total: float = 0.0, count: int = 0) -> None:
        self._every = every
        self._waiting: list[tuple[int, torch.Tensor]] = []
        self.total, self.count, self.last = total, count, math.nan

    def add(self, step: int, loss: torch.Tensor) -> None:
        """Note the loss of an update. Raises Diverged as `look`."""
        self._waiting.append((step, loss))
        if len(self._waiting) >= self._every:
            self.look()

    def look(self) -> None:
        """Look at all losses.

        Raises:
            Diverged: one of them is not finite.
        """
        if not self._waiting:
            return
        values = torch.stack([loss for _, loss in self._waiting]).tolist()
        for (step, _), value in zip(self._waiting, values, strict=True):
            if not math.isfinite(value):
                raise _diverged(step, value)
            self.total, self.count, self.last = self.total + value, self.count + 1, value
        self._waiting.clear()

    @property
    def mean(self) -> float:
        """Mean loss since `clear`; NaN without any."""
        return self.total / self.count if self.count else math.nan

    def clear(self) -> None:
        """Begin a new mean."""
        self.total, self.count = 0.0, 0


def _diverged(step: int, value: float) -> Diverged:
    return Diverged(
        f"The loss of step {step + 1:,} is {value}",
        "Training goes on while the loss is finite",
        "train with a smaller learning rate, for instance a tenth (--lr)",
    )
