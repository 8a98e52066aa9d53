"""Finetuning on a CUDA device: resumed there with the same bits, validated as on the CPU.

The pretended device has no backward passes: torch queues them for a driver's devices.
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from engine.embed.restore import images_listed
from engine.evals.finetune.examine import Examiner
from engine.evals.finetune.losses import Loss
from engine.evals.finetune.options import FinetuneOptions
from engine.evals.finetune.trainer import Trainer
from engine.recipes import Recipe
from engine.runtime import Runtime, fix_flags
from tests.engine.evals.finetune.images import write_images
from tests.engine.evals.finetune.test_trainer import network

CODES = np.arange(12) % 3
ROWS = range(12)
PIXELS = torch.from_numpy(np.random.default_rng(3).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8))
OPTIONS = FinetuneOptions(steps=5, lr=0.1, weight_decay=0.01, batch_size=12)


def _trainer(device: str) -> Trainer:
    runtime = Runtime(device, "fp32", 1)
    fix_flags(runtime)
    return Trainer(network(3), Loss.of(CODES, 3, np.arange(12), "balanced"), OPTIONS, runtime)


@pytest.mark.gpu(needs="autograd")
def test_a_resumed_run_on_the_device_has_the_same_bits() -> None:
    pixels = PIXELS.to("cuda:0")
    undisturbed, first, second = (_trainer("cuda:0") for _ in range(3))
    for step in range(4):
        undisturbed.update(step, pixels, ROWS)
    for step in range(2):
        first.update(step, pixels, ROWS)
    second.restore(first.tensors(), first.scaler_state())
    for step in range(2, 4):
        second.update(step, pixels, ROWS)
    for name, tensor in undisturbed.tensors().items():
        assert torch.equal(tensor, second.tensors()[name]), name


@pytest.mark.gpu
def test_validation_on_the_device_gives_the_logits_of_the_cpu(tmp_path: Path) -> None:
    manifest = write_images(tmp_path / "images", 6)
    outputs = {}
    for device in ("cpu", "cuda:0"):
        examiner = Examiner(
            images_listed(manifest), Recipe(size=8, crop=8), Runtime(device, "fp32", 1), "turbo"
        )
        try:
            net = network(3).to(device)
            outputs[device] = [examiner.outputs(net, np.arange(6), "val").logits for _ in range(2)]
        finally:
            examiner.close()
    for logits in outputs["cuda:0"]:  # rendered, and held on the device
        torch.testing.assert_close(logits, outputs["cpu"][0], rtol=1e-4, atol=1e-5)
