"""Inversion of feature maps by several networks that advance together: the arithmetic of a step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from engine.evals.reconstruction.generator import Architecture, Generator, draw_noise
from engine.runtime import Runtime, mixed_precision


@dataclass(frozen=True, eq=False)
class NetworkState:
    """One network between two updates.

    Attributes:
        step: updates done.
        parameters, first_moments, second_moments: float32 [P]: of the network and of Adam.
        losses: float32 [step], before each update.
    """

    step: int
    parameters: NDArray[np.float32]
    first_moments: NDArray[np.float32]
    second_moments: NDArray[np.float32]
    losses: NDArray[np.float32]


@dataclass(frozen=True)
class Protocol:
    """Settings of an inversion.

    Attributes:
        updates: of each network. lr: learning rate of Adam, whose other settings are torch's.
        architecture: of the networks.
    """

    updates: int
    lr: float = 1e-3
    architecture: Architecture = Architecture()  # noqa: RUF009 - frozen


class Lane:
    """N independent networks, each from noise to an image with a given feature map, as one batch.

    The loss of a network is the mean squared error of its image's feature map; the sum over networks is
    minimised, so that the gradient of each is that of its own loss alone.

    Args:
        encode: the frozen backbone: images [N, 3, S, S] of 0-1 -> feature maps [N, C, h, w].
        runtime: device and precision; bf16 is mixed, with parameters, Adam and loss in float32.
        protocol: settings.
        pixels: uint8 [N, S, S, 3], of whose feature maps images are made.
        seeds: of the networks' parameters and inputs.

    Attributes:
        step: updates done. updates: to do in all. checked: updates whose losses were looked at.
        stopped: network -> step at which its loss was not finite.
    """

    def __init__(
        self,
        encode: Callable[[torch.Tensor], torch.Tensor],
        runtime: Runtime,
        protocol: Protocol,
        pixels: NDArray[np.uint8],
        seeds: Sequence[int],
    ) -> None:
        self._encode, self._runtime, self.updates = encode, runtime, protocol.updates
        device, self.side = runtime.torch_device, pixels.shape[1]
        self._noise = draw_noise(seeds, protocol.architecture, protocol.architecture.side_for(self.side)).to(
            device
        )
        self._generator = Generator(seeds, protocol.architecture).to(device)
        self._parameters = list(self._generator.parameters())
        self._adam = torch.optim.Adam(self._parameters, lr=protocol.lr, fused=True)
        self._losses = torch.full((protocol.updates, len(seeds)), torch.nan, device=device)
        self.step, self.stopped, self.checked = 0, dict[int, int](), 0
        with torch.no_grad(), mixed_precision(self._runtime):
            images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float().div_(255)
            self._target = encode(images.contiguous()).float()

    @property
    def networks(self) -> int:
        """N."""
        return len(self._noise)

    def loss(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the loss of each network, float32 [N], and its image [N, 3, S, S]."""
        with mixed_precision(self._runtime):
            images = self._generator(self._noise)[:, :, : self.side, : self.side]
            features = self._encode(images)
        return (features.float() - self._target).square().flatten(1).mean(1), images

    def update(self) -> None:
        """Do one update of every network."""
        self._adam.zero_grad(set_to_none=True)
        losses, _ = self.loss()
        losses.sum().backward()
        self._losses[self.step] = losses.detach()
        self._adam.step()
        self.step += 1

    def gradients(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return losses [N], and the gradient of each with respect to its network's parameters, [N, P]."""
        self._adam.zero_grad(set_to_none=True)
        losses, _ = self.loss()
        losses.sum().backward()
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in self._parameters]
        return losses.detach().cpu().numpy(), self._flat(gradients)

    def check(self) -> NDArray[np.float32]:
        """Look for losses since the last check that are not finite; return the latest ones, [N]."""
        new = self._losses[self.checked : self.step].cpu().numpy()
        for network in np.flatnonzero(~np.isfinite(new).all(axis=0)).tolist():
            first = int(np.argmin(np.isfinite(new[:, network])))
            self.stopped.setdefault(network, self.checked + first)
        self.checked = self.step
        latest: NDArray[np.float32] = new[-1] if len(new) else np.full(self.networks, np.nan, np.float32)
        return latest

    @property
    def running(self) -> bool:
        """Whether a network still has updates to do."""
        return self.step < self.updates and len(self.stopped) < self.networks

    def result(self) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        """Return images [N, S, S, 3] without bounds, their losses [N], and losses of all steps [step, N]."""
        with torch.no_grad():
            losses, images = self.loss()
        pictures = images.float().permute(0, 2, 3, 1).cpu().numpy()
        return pictures, losses.cpu().numpy(), self._losses[: self.step].cpu().numpy()

    # --- state --------------------------------------------------------------------------------------------

    def states(self) -> list[NetworkState]:
        """Return the state of every network."""
        parameters = self._flat(self._parameters)
        first, second = (
            self._flat([self._moment(p, name) for p in self._parameters])
            for name in ("exp_avg", "exp_avg_sq")
        )
        losses = self._losses[: self.step].cpu().numpy()
        return [
            NetworkState(self.step, parameters[i], first[i], second[i], losses[:, i].copy())
            for i in range(self.networks)
        ]

    def _moment(self, parameter: torch.Tensor, name: str) -> torch.Tensor:
        state = self._adam.state.get(parameter)
        moment: torch.Tensor = state[name] if state else torch.zeros_like(parameter)
        return moment

    def _flat(self, tensors: Sequence[torch.Tensor]) -> NDArray[np.float32]:
        joined: NDArray[np.float32] = torch.cat([t.detach().flatten(1) for t in tensors], 1).cpu().numpy()
        return joined

    def restore(self, states: Sequence[NetworkState]) -> None:
        """Go on from states of one step.

        Raises:
            ValueError: they are of another architecture, or of several steps.
        """
        steps = {state.step for state in states}
        sizes = sum(p[0].numel() for p in self._parameters)
        if len(states) != self.networks or len(steps) != 1 or any(s.parameters.size != sizes for s in states):
            raise ValueError("states of other networks, or of several steps")
        self.step = self.checked = steps.pop()
        self._losses[: self.step] = torch.from_numpy(np.stack([s.losses for s in states], 1)).to(self._losses)
        self._scatter([s.parameters for s in states], self._parameters)
        if not self.step:
            return
        first, second = ([torch.zeros_like(p) for p in self._parameters] for _ in range(2))
        self._scatter([s.first_moments for s in states], first)
        self._scatter([s.second_moments for s in states], second)
        for parameter, a, b in zip(self._parameters, first, second, strict=True):
            step = torch.tensor(float(self.step), device=parameter.device)
            self._adam.state[parameter] = {"step": step, "exp_avg": a, "exp_avg_sq": b}

    @staticmethod
    def _scatter(rows: Sequence[NDArray[np.float32]], tensors: Sequence[torch.Tensor]) -> None:
        joined, start = torch.from_numpy(np.stack(rows)), 0
        with torch.no_grad():
            for tensor in tensors:
                stop = start + tensor[0].numel()
                tensor.copy_(joined[:, start:stop].reshape(tensor.shape))
                start = stop


def bytes_of_network(lane: Lane) -> int:
    """Return the memory of a lane's step for each network: saved activations, parameters, gradients, Adam.

    Measured in one forward pass: the storages that its backward pass holds on to.
    """
    storages: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        lane.loss()[0].sum()
    parameters = sum(p.numel() * p.element_size() for p in lane._parameters)
    return (sum(storages.values()) + 4 * parameters) // lane.networks
