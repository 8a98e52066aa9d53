"""Updates against plain torch loops, and losses against float64 numpy, scikit-learn and torch."""

import copy

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight
from torch import nn
from torch.nn import functional

from engine.errors import Refused
from engine.evals.finetune.losses import Loss, balanced_weights
from engine.evals.finetune.network import FinetuneNetwork
from engine.evals.finetune.options import FinetuneOptions
from engine.evals.finetune.trainer import Diverged, LossLog, Trainer, learning_rate
from engine.recipes import IMAGENET_MEAN, IMAGENET_SD, Recipe
from engine.runtime import Runtime, fix_flags

RECIPE, RUNTIME = Recipe(size=8, crop=8), Runtime("cpu", "fp32", 1)
ROWS, BATCH, STEPS = 30, 6, 5
RNG = np.random.default_rng(0)
PIXELS = torch.from_numpy(RNG.integers(0, 256, (ROWS, 8, 8, 3), dtype=np.uint8))
CODES = RNG.integers(0, 3, ROWS)
TRAIN = np.arange(ROWS)


def network(outputs: int, norm: bool = True, dropout: float = 0.0) -> FinetuneNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        layers = [nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5) if norm else nn.Identity(), nn.ReLU()]
        pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout)]
        return FinetuneNetwork(nn.Sequential(*layers, *pooled), nn.Linear(5, outputs), RECIPE)


def options(**more: object) -> FinetuneOptions:
    given = {"steps": STEPS, "lr": 0.3, "weight_decay": 0.01, "batch_size": BATCH, **more}
    return FinetuneOptions(**given)  # type: ignore[arg-type]


def trained(net: FinetuneNetwork, loss: Loss, settings: FinetuneOptions) -> list[float]:
    trainer = Trainer(net, loss, settings, RUNTIME)
    values = []
    for step in range(STEPS):
        rows = range(step * BATCH, (step + 1) * BATCH)
        values.append(float(trainer.update(step, PIXELS[list(rows)], list(rows))))
    return values


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_path_is_that_of_a_plain_torch_loop_step_for_step(schedule: str) -> None:
    net = network(3)
    plain = copy.deepcopy(net)
    values = trained(net, Loss.of(CODES, 3, TRAIN, "none"), options(schedule=schedule))
    sgd = torch.optim.SGD(plain.parameters(), lr=0.3, momentum=0.9, nesterov=True, weight_decay=0.01)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, T_max=STEPS)
    mean, sd = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_SD))
    plain.train()
    for step in range(STEPS):
        rows = list(range(step * BATCH, (step + 1) * BATCH))
        images = (PIXELS[rows].permute(0, 3, 1, 2).float() / 255 - mean) / sd
        loss = functional.cross_entropy(plain.head(plain.backbone(images)), torch.tensor(CODES[rows]))
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        if schedule == "cosine":
            cosine.step()
        assert values[step] == pytest.approx(loss.item(), rel=2e-5)
    for (name, ours), (_, theirs) in zip(net.state_dict().items(), plain.state_dict().items(), strict=True):
        assert torch.allclose(ours.float(), theirs.float(), rtol=2e-4, atol=2e-5), name


def test_the_cosine_schedule_is_torchs_and_ends_at_nothing() -> None:
    sgd = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, T_max=STEPS)
    for step in range(STEPS):
        assert learning_rate(options(), step) == pytest.approx(sgd.param_groups[0]["lr"], rel=1e-12)
        sgd.step()
        cosine.step()
    assert learning_rate(options(), STEPS) == pytest.approx(0, abs=1e-16)


@pytest.mark.parametrize("parts", [2, 4, 6])
@pytest.mark.parametrize("several", [False, True])
def test_gradients_of_parts_add_up_to_those_of_the_batch(parts: int, several: bool) -> None:
    codes = RNG.integers(-1, 2, (ROWS, 2)) if several else CODES
    loss = Loss.of(codes, 2 if several else 3, TRAIN, "balanced")
    at_once, in_parts = network(loss.outputs, norm=False), network(loss.outputs, norm=False)
    losses = trained(at_once, loss, options())
    assert trained(in_parts, loss, options(accumulate=parts)) == pytest.approx(losses, rel=1e-5)
    pairs = zip(at_once.parameters(), in_parts.parameters(), strict=True)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in pairs)


def test_what_layers_draw_depends_on_seed_and_step_alone() -> None:
    loss = Loss.of(CODES, 3, TRAIN, "none")
    first, again, other = (network(3, dropout=0.5) for _ in range(3))
    torch.manual_seed(5)
    values = trained(first, loss, options())
    torch.manual_seed(6)
    assert trained(again, loss, options()) == values
    assert trained(other, loss, options(seed=1)) != values
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))


def test_a_trainer_that_is_restored_goes_on_with_the_same_bits() -> None:
    loss, rows = Loss.of(CODES, 3, TRAIN, "none"), list(range(BATCH))
    whole, stopped, other = (Trainer(network(3), loss, options(), RUNTIME) for _ in range(3))
    for step in range(4):
        whole.update(step, PIXELS[rows], rows)
    for step in range(2):
        stopped.update(step, PIXELS[rows], rows)
    other.restore(stopped.tensors(), stopped.scaler_state())
    for step in (2, 3):
        other.update(step, PIXELS[rows], rows)
    ours, theirs = whole.tensors(), other.tensors()
    assert ours.keys() == theirs.keys() and any(name.startswith("momentum.") for name in ours)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_balanced_weights_are_scikit_learns() -> None:
    codes = np.array([0, 0, 0, 2, 2, 1, -1])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=codes[codes >= 0])
    assert balanced_weights(codes, 3) == pytest.approx(expected, rel=1e-12)
    assert balanced_weights(np.array([0, 2]), 3).tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize("kind", ["none", "balanced"])
def test_cross_entropy_of_classes_is_scikit_learns(kind: str) -> None:
    logits = torch.from_numpy(RNG.normal(size=(ROWS, 3)).astype(np.float32))
    loss = Loss.of(CODES, 3, TRAIN, kind)  # type: ignore[arg-type]
    targets = loss.targets(TRAIN.tolist())
    weights = compute_class_weight("balanced", classes=np.arange(3), y=CODES)[CODES]
    probabilities = loss.probabilities(logits)
    # scikit-learn divides by the sum of the weights, which for balanced ones of all rows is their number.
    expected = log_loss(CODES, probabilities, sample_weight=weights if kind == "balanced" else None)
    assert float(loss.total(logits, targets)) / loss.count(targets) == pytest.approx(expected, rel=1e-5)


def test_masked_labels_of_findings_and_classes_have_no_part_in_the_loss() -> None:
    codes = RNG.integers(-1, 2, (ROWS, 3))
    logits = RNG.normal(size=(ROWS, 3))
    loss = Loss.of(codes, 2, TRAIN, "balanced")
    total = 0.0
    for column in range(3):
        known = codes[:, column] >= 0
        truth, score = codes[known, column], logits[known, column]
        weights = compute_class_weight("balanced", classes=np.arange(2), y=truth)[truth]
        total += float((weights * np.logaddexp(0, np.where(truth == 1, -score, score))).sum())
    targets = loss.targets(TRAIN.tolist())
    assert loss.count(targets) == int((codes >= 0).sum())
    assert float(loss.total(torch.from_numpy(logits), targets)) == pytest.approx(total, rel=1e-5)
    single = Loss.of(np.array([0, -1, 1]), 2, np.array([0, 2]), "none")
    masked = single.targets([0, 1, 2])
    values = torch.tensor([[1.0, 0.0], [9.0, 9.0], [0.0, 2.0]])
    expected = functional.cross_entropy(values[[0, 2]], torch.tensor([0, 1]), reduction="sum")
    assert single.count(masked) == 2 and float(single.total(values, masked)) == pytest.approx(float(expected))


def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_step() -> None:
    log = LossLog(3)
    for step, value in enumerate((1.0, 2.0, float("inf"))):
        if step < 2:
            log.add(step, torch.tensor(value))
            continue
        with pytest.raises(Diverged, match="loss of step 3 is inf") as error:
            log.add(step, torch.tensor(value))
        assert error.value.exit_code == 1 and "--lr" in error.value.remedy
    assert (log.mean, log.last) == (1.5, 2.0)


def test_one_image_that_leaves_a_batch_norm_one_value_is_refused() -> None:
    net = network(3)
    net.backbone.insert(1, nn.AdaptiveAvgPool2d(1))
    trainer = Trainer(net, Loss.of(CODES, 3, TRAIN, "none"), options(batch_size=1), RUNTIME)
    with pytest.raises(Refused, match="single value"):
        trainer.update(0, PIXELS[:1], [0])


@pytest.mark.gpu(needs="autograd")  # whose engine finds no pretended device
@pytest.mark.parametrize("several", [False, True])
def test_updates_on_a_device_are_those_of_the_cpu(several: bool) -> None:
    codes = RNG.integers(-1, 2, (ROWS, 2)) if several else CODES
    loss = Loss.of(codes, 2 if several else 3, TRAIN, "balanced")
    on_device, here = network(loss.outputs), network(loss.outputs)
    device = Runtime("cuda:0", "fp32", 1)
    fix_flags(device)
    trainer, values = Trainer(on_device, loss, options(accumulate=2), device), []
    for step in range(STEPS):
        rows = list(range(step * BATCH, (step + 1) * BATCH))
        values.append(trainer.update(step, PIXELS[rows].to("cuda:0"), rows))
    assert [float(value) for value in values] == pytest.approx(
        trained(here, loss, options(accumulate=2)), rel=1e-4
    )
    expected = here.state_dict()
    for name, tensor in trainer.weights().items():
        assert torch.allclose(tensor.float(), expected[name].float(), rtol=1e-3, atol=1e-5), name


def test_networks_whose_layers_have_versions_take_their_own_weights_back() -> None:
    """MNASNet refuses a state without its version, and converts one of version 1."""
    from torchvision.models import mnasnet0_5

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        first, other = (
            FinetuneNetwork(mnasnet0_5(weights=None, num_classes=4), nn.Linear(4, 2), RECIPE)
            for _ in range(2)
        )
    trainer = Trainer(other, Loss.of(CODES, 3, TRAIN, "none"), options(), RUNTIME)
    trainer.load_weights(dict(first.state_dict()))
    for (name, own), wanted in zip(other.state_dict().items(), first.state_dict().values(), strict=True):
        assert torch.equal(own, wanted), name
