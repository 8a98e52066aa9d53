"""Finetuning on the device: updates compared with float64 and with the CPU, resuming, images a second."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.gpu.floors import GEMM, RESNET50_FLOP, Bound
from benchmarks.gpu.suite import Context, Verdict, measurement, proof
from benchmarks.gpu.timing import per_second, same_bits, seconds_each
from benchmarks.images import XRAY
from benchmarks.speed.finetune import Case
from engine.evals.finetune.losses import Loss
from engine.evals.finetune.network import FinetuneNetwork, build_network
from engine.evals.finetune.options import FinetuneOptions
from engine.evals.finetune.trainer import Trainer
from engine.normalise import normalise
from engine.runtime import Precision, Runtime, fix_flags, peak_device_bytes

CLASSES = 3
#: Largest distance of float32 from float64, over the size of what is compared; ReLUs near zero may flip.
_LOSS, _VECTOR = 1e-5, 1e-3


@dataclass(frozen=True)
class _Step:
    """An update from the same weights.

    Attributes:
        loss: before it.
        gradient, change: of all weights and of them by the update, float64 [P] on the CPU.
        statistics: running means and variances after it, float64 [Q].
    """

    loss: float
    gradient: torch.Tensor
    change: torch.Tensor
    statistics: torch.Tensor

    def apart(self, other: "_Step") -> dict[str, float]:
        """Return the relative distances from another one."""
        vectors = {
            name: float((getattr(self, name) - getattr(other, name)).norm() / getattr(other, name).norm())
            for name in ("gradient", "change", "statistics")
        }
        return {"loss": abs(self.loss / other.loss - 1), **vectors}


def _options() -> FinetuneOptions:
    return FinetuneOptions(schedule="constant", steps=100)


def _network(context: Context, slug: str = "random/resnet18") -> FinetuneNetwork:
    return build_network(context.spec(slug), CLASSES, 0)


def _batch(context: Context, count: int) -> torch.Tensor:
    """Return smooth pictures, uint8 [count, S, S, 3] on the CPU."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 7, 7, generator=generator)
    smooth = nn.functional.interpolate(coarse, size=(context.side,) * 2, mode="bicubic").clamp(0, 1)
    return (smooth * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _flat(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.detach().cpu().double().flatten() for tensor in tensors])


def _statistics(network: nn.Module) -> torch.Tensor:
    return _flat([tensor for name, tensor in network.named_buffers() if "running" in name])


def _loss(rows: int) -> Loss:
    return Loss.of(np.arange(rows) % CLASSES, CLASSES, np.arange(rows), "none")


def _trained(context: Context, runtime: Runtime, pixels: torch.Tensor) -> _Step:
    """Make an update as a finetuning does."""
    fix_flags(runtime)
    network = _network(context)
    before = _flat(list(network.parameters()))
    trainer = Trainer(network, _loss(len(pixels)), _options(), runtime)
    loss = float(trainer.update(0, pixels.to(runtime.device), range(len(pixels))))
    weights = list(trainer.network.parameters())
    gradient = _flat([weight.grad for weight in weights if weight.grad is not None])
    return _Step(loss, gradient, _flat(weights) - before, _statistics(trainer.network))


def _exact(context: Context, pixels: torch.Tensor) -> _Step:
    """Make the same update in float64 by torch's own functions."""
    network, options = _network(context), _options()
    inputs = normalise(pixels, context.recipe).contiguous().double()
    model = nn.Sequential(copy.deepcopy(network.backbone), copy.deepcopy(network.head)).double().train()
    weights = list(model.parameters())
    before = _flat(weights)
    sgd = torch.optim.SGD(
        weights, lr=options.lr, momentum=options.momentum, nesterov=True, weight_decay=options.weight_decay
    )
    loss = nn.functional.cross_entropy(model(inputs), torch.arange(len(pixels)) % CLASSES)
    loss.backward()
    sgd.step()
    gradient = _flat([weight.grad for weight in weights if weight.grad is not None])
    return _Step(float(loss.detach()), gradient, _flat(weights) - before, _statistics(model))


@proof("finetune: an update on the device, against the CPU and float64", seconds=20, rank=21)
def update_agrees(context: Context) -> Verdict:
    pixels = _batch(context, context.pick(16, 8))
    exact, on_cpu = _exact(context, pixels), _trained(context, context.cpu, pixels)
    on_device = _trained(context, context.runtime("fp32"), pixels)
    numbers = {
        "device, from float64": on_device.apart(exact),
        "CPU, from float64": on_cpu.apart(exact),
        "device, from the CPU": on_device.apart(on_cpu),
    }
    passed = all(
        apart["loss"] <= _LOSS and max(apart[n] for n in ("gradient", "change", "statistics")) <= _VECTOR
        for apart in numbers.values()
    )
    limit = (
        f"loss within {_LOSS:g}, gradient, change of weights and BatchNorm's statistics within {_VECTOR:g}"
    )
    return Verdict(numbers, passed, limit)


@proof("finetune: a resumed run has the same bits", seconds=20, rank=27)
def resumes(context: Context) -> Verdict:
    runtime, pixels = context.runtime("fp32"), _batch(context, context.pick(16, 4)).to(context.device)
    fix_flags(runtime)
    rows = range(len(pixels))

    slug = context.pick("random/resnet18", "random/shufflenet_v2_x0_5")

    def trainer() -> Trainer:
        return Trainer(_network(context, slug), _loss(len(pixels)), _options(), runtime)

    undisturbed, first = trainer(), trainer()
    for step in range(4):
        undisturbed.update(step, pixels, rows)
    for step in range(2):
        first.update(step, pixels, rows)
    second = trainer()
    second.restore(first.tensors(), first.scaler_state())
    for step in range(2, 4):
        second.update(step, pixels, rows)
    pairs = zip(undisturbed.tensors().items(), second.tensors().items(), strict=True)
    differing = [name for (name, tensor), (_, other) in pairs if not same_bits(tensor, other)]
    return Verdict({"tensors_that_differ": differing}, not differing, "weights and momentum, bit for bit")


@measurement("finetune: images a second", seconds=45, rank=69)
def rate(context: Context) -> Verdict:
    name = context.pick("random/resnet50", "random/squeezenet1_1")
    batch = context.pick(64, 2)
    numbers: dict[str, Any] = {"batch": batch}
    readings = []
    precisions: tuple[Precision, ...] = context.pick(("bf16", "fp32"), ("fp32",))
    for precision in precisions:
        case = _case(context, name, precision, batch)
        pixels = _batch(context, batch).to(context.device)
        peak_device_bytes(context.device, reset=True)
        once = _updates(case.trainer, pixels)
        warm_up = context.pick(5, 0)
        step = seconds_each(context.device, once, budget_s=context.pick(3.0, 0.0), warm_up=warm_up)
        steps = per_second(batch, step)
        budget_s = context.pick(5.0, 0.0)
        with_data = seconds_each(context.device, case.embank, budget_s=budget_s, warm_up=context.pick(1, 0))
        case.close()
        numbers[precision] = {
            "update, img/s": steps,
            "with its data, img/s": per_second(batch * case.steps, with_data),
            "peak device MiB": peak_device_bytes(context.device) / 2**20,
        }
        # A pass backward makes two products for every one of the pass forward.
        bound = Bound("gemm", GEMM[precision], 3 * RESNET50_FLOP, f"6 x 4.089e9 flop an image, {precision}")
        reading = f"ResNet-50 finetuning in {precision}"
        readings.append(context.reading(reading, steps.median, "img/s", bound))
    return Verdict(numbers, limit=f"{XRAY.name}, random crops and flips", readings=tuple(readings))


def _case(context: Context, slug: str, precision: Precision, batch: int) -> Case:
    manifest = context.manifest([XRAY], context.pick(256, 6))
    runtime = context.runtime(precision)
    return Case(manifest, context.spec(slug), runtime, batch, context.pick(16, 1), 0)


def _updates(trainer: Trainer, pixels: torch.Tensor) -> Callable[[], object]:
    return lambda: trainer.update(0, pixels, range(len(pixels)))
