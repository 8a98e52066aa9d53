"""The certificate: its truth is the plain model, so a fault of the fast path shows."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models
from torchvision.transforms import v2

from engine.embed.certify import certify
from engine.embed.run import EmbedOptions, embed
from engine.errors import BankError
from engine.models import Encoder, ModelSpec, resolve
from engine.models.forward import encoder as encoder_module
from engine.models.forward import fx_fusion
from engine.models.forward.plain import PlainModel
from engine.recipes import Recipe
from engine.runtime import Runtime
from stores.bank.reader import Bank
from stores.manifest.manifest import Manifest
from tests.engine.models.plain import pictures, saved, trained

pytestmark = pytest.mark.slow

SMALL = replace(Recipe(), size=40, crop=32)
CPU = Runtime(device="cpu", precision="fp32", threads=1)
OPTIONS = EmbedOptions(decoder="reference", batch_size=7, chunk_rows=16)
N = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    (root / "a").mkdir()
    for i, picture in enumerate(pictures(N, 48).numpy()):
        Image.fromarray(picture).save(root / "a" / f"{i:02}.png")
    (root / "a" / "05.png").write_bytes(b"no image")
    return root


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = trained(models.resnet18(weights=None), 32)
    return resolve(
        "torchvision/resnet18", weights=saved(module, tmp_path_factory.mktemp("weights")), recipe=SMALL
    )


@pytest.fixture(scope="module")
def bank(folder: Path, spec: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bank") / "bank"
    embed(Manifest.from_folder(folder), [spec], path, runtime=CPU, options=OPTIONS)
    return path


def _certify(folder: Path, spec: ModelSpec, bank: Path, **changes: Any) -> dict[str, Any]:
    runtime, options = changes.pop("runtime", CPU), replace(OPTIONS, **changes)
    return certify(Manifest.from_folder(folder), spec, bank, runtime=runtime, options=options)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[fx_fusion.PackedConv], None]], None]:
    """Spoil a layer of every network that the rewriting makes: where a fault of the fast path would be."""

    def spoil(change: Callable[[fx_fusion.PackedConv], None]) -> None:
        sound = fx_fusion.rewrite

        def rewrite(module: nn.Module, **how: Any) -> tuple[nn.Module, fx_fusion.Rewrites]:
            net, rewrites = sound(module, **how)
            convs = [m for m in net.modules() if isinstance(m, fx_fusion.PackedConv)]
            change(convs[len(convs) // 2])
            return net, rewrites

        monkeypatch.setattr(fx_fusion, "rewrite", rewrite)

    return spoil


def test_a_sound_run_is_certified(folder: Path, spec: ModelSpec, bank: Path) -> None:
    made = _certify(folder, spec, bank)
    assert (made["n"], made["undefined"], len(made["rows"])) == (N - 1, 0, N)
    assert made["embedding"]["min_cosine"] > 1 - 1e-9
    assert made["embedding"]["max_relative_error"] < 1e-5
    assert (made["batch_size"], made["precision"], made["decoder"]) == (7, "fp32", "reference")
    assert made["truth"] == {
        "model": "eager, unfused",
        "precision": "fp32",
        "tf32": False,
        "decoder": "reference",
    }
    assert Bank.open(bank).describe(Bank.open(bank).list()[0].name)["certificate"] == made


def _scale(conv: fx_fusion.PackedConv) -> None:
    assert conv.weight is not None
    conv.weight.mul_(1.5)


def _lose_a_bias(conv: fx_fusion.PackedConv) -> None:
    assert conv.bias is not None
    conv.bias.zero_()


def _lose_an_activation(conv: fx_fusion.PackedConv) -> None:
    conv.activation = None


@pytest.mark.skipif(not fx_fusion.can_pack(), reason="this torch has no oneDNN convolutions")
@pytest.mark.parametrize("change", [_scale, _lose_a_bias, _lose_an_activation])
def test_a_fault_of_the_fast_path_shows(
    change: Callable[[fx_fusion.PackedConv], None], folder: Path, spec: ModelSpec, bank: Path, faulty: Any
) -> None:
    faulty(change)
    shown = _certify(folder, spec, bank)["embedding"]
    assert shown["min_cosine"] < 0.9999
    assert shown["precision_min_cosine"] < 0.9999
    assert shown["max_relative_error"] > 0.01
    assert shown["decoder_min_cosine"] > 1 - 1e-9


def test_a_wrong_normalisation_shows(
    folder: Path, spec: ModelSpec, bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = encoder_module.normalise
    monkeypatch.setattr(encoder_module, "normalise", lambda x, recipe: sound(x, recipe) + 0.2)
    assert _certify(folder, spec, bank)["embedding"]["min_cosine"] < 0.9999


def test_features_of_another_length_show(
    folder: Path, spec: ModelSpec, bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No cosine sees it."""
    sound = Encoder.__call__
    monkeypatch.setattr(Encoder, "__call__", lambda self, pixels: 2 * sound(self, pixels))
    shown = _certify(folder, spec, bank)["embedding"]
    assert shown["min_cosine"] > 1 - 1e-9
    assert shown["max_relative_error"] == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_what_has_no_cosine_is_counted(
    value: float, folder: Path, spec: ModelSpec, bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sound = Encoder.__call__

    def broken(self: Encoder, pixels: torch.Tensor) -> torch.Tensor:
        features = sound(self, pixels)
        features[1] = value
        return features

    monkeypatch.setattr(Encoder, "__call__", broken)
    made = _certify(folder, spec, bank)
    assert (made["n"], made["undefined"]) == (N - 1 - 3, 3)


@pytest.mark.parametrize(
    ("batch_size", "compiled", "sizes"),
    [(7, False, [7, 7, 6]), (7, True, [7, 7, 7]), (64, False, [16, 4]), (64, True, [16, 16])],
)
def test_both_sides_see_the_batches_of_the_run(
    batch_size: int,
    compiled: bool,
    sizes: list[int],
    folder: Path,
    spec: ModelSpec,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A chunk has 16 rows, and no batch is larger; where shapes are fixed, the last one is padded."""
    monkeypatch.setattr(encoder_module, "_compile", lambda net, runtime: net)
    runtime, seen = replace(CPU, compile=compiled), {Encoder: [], PlainModel: []}
    for kind, batches in seen.items():
        sound = kind.__call__
        monkeypatch.setattr(
            kind, "__call__", lambda self, x, s=sound, b=batches: (b.append(len(x)), s(self, x))[1]
        )
    options = replace(OPTIONS, batch_size=batch_size)
    embed(Manifest.from_folder(folder), [spec], tmp_path / "bank", runtime=runtime, options=options)
    seen[Encoder].clear()
    made = _certify(folder, spec, tmp_path / "bank", runtime=runtime, batch_size=batch_size)
    assert made["batch_size"] == min(batch_size, 16)
    assert seen == {Encoder: sizes * 2, PlainModel: sizes * 2}  # of the run's decoder, and of Pillow
    assert made["embedding"]["min_cosine"] > 1 - 1e-9


@pytest.fixture
def tf32() -> Iterator[Any]:
    """TF32 switched on wherever torch has it, as by another library in the process."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic = True, True, False
    yield lambda: (matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic)
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.deterministic = before


def test_the_truth_is_without_tf32_and_leaves_the_flags_alone(spec: ModelSpec, tf32: Any) -> None:
    plain, flags = PlainModel(spec, "cpu"), []
    plain._net.register_forward_hook(lambda *_: flags.append(tf32()))
    plain(pictures(2, 32).numpy())
    assert flags == [(False, False, True)]
    assert tf32() == (True, True, False)


def test_the_truth_is_torchvisions_own_model(spec: ModelSpec) -> None:
    assert spec.weights_path is not None
    theirs = models.resnet18(weights=None).eval()
    theirs.load_state_dict(torch.load(spec.weights_path, weights_only=True))
    theirs.fc = nn.Identity()
    pixels = pictures(5, 32)
    prepare = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(SMALL.mean, SMALL.sd)])
    with torch.no_grad():
        expected = theirs(prepare(pixels.permute(0, 3, 1, 2).contiguous())).numpy()
    np.testing.assert_allclose(
        PlainModel(spec, "cpu")(pixels.numpy()),
        expected,
        rtol=1e-4,
        atol=1e-5 * float(np.abs(expected).max()),
    )


def test_features_that_the_bank_does_not_hold_are_not_certified(
    folder: Path, spec: ModelSpec, bank: Path
) -> None:
    before = sorted(bank.rglob("*"))
    with pytest.raises(BankError, match="turbo"):
        _certify(folder, spec, bank, decoder="turbo")
    assert sorted(bank.rglob("*")) == before
