"""The encoder: right features, from the image alone, frozen. Every row of the catalogue is held to it."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models
from torchvision.transforms import v2

from engine.errors import ModelError, WeightsError
from engine.models import ModelSpec, load, resolve
from engine.models.backbones import architectures
from engine.models.catalog import lookup
from engine.models.checkpoints import weights
from engine.models.forward import encoder as encoder_module
from engine.normalise import normalise_numpy
from engine.recipes import Recipe
from engine.runtime import Runtime
from tests.engine.models.plain import cosine, pictures, saved, settle, trained

SIDE = 64
SMALL = replace(Recipe(), size=SIDE, crop=SIDE)
LITE = "efficientnet-lite0"
#: A model of each family of the catalogue.
FAMILIES = ["torchvision/resnet18", "timm/resnet18", "random/densenet121", LITE]
#: What else is embedded often, what is built unlike these, and the catalogue's variants.
MORE = [
    "torchvision/resnet50",
    "byol+same",
    "xrv-densenet121",
    "torchvision/mobilenet_v3_small",
    "torchvision/convnext_tiny",
    "torchvision/swin_t",
    "supervised-alexnet",
    "supervised-squeezenet",
]
MODELS = [*FAMILIES[:2], *(pytest.param(slug, marks=pytest.mark.slow) for slug in (*FAMILIES[2:], *MORE))]
#: Where layer norms and products of matrices stand for convolutions, and where activations are unlike.
UNLIKE = ("torchvision/convnext_tiny", "torchvision/mobilenet_v3_small")
FEWER = [
    *FAMILIES,
    *(pytest.param(slug, marks=() if slug in UNLIKE else pytest.mark.thorough) for slug in MORE),
]


@pytest.fixture(autouse=True)
def quick_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Truncated normal numbers take most of a builder's time, and these tests need any numbers."""
    monkeypatch.setattr(
        nn.init, "trunc_normal_", lambda t, mean=0.0, std=1.0, *a, **k: t.data.normal_(mean, std)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


def _module(spec: ModelSpec) -> nn.Module:
    """The headless model as its library builds it, with the spec's weights."""
    module = architectures.build_seeded(spec.architecture, spec.seed or 0)
    if spec.weights_path is not None:
        body, head = architectures.body(module), architectures.head_prefixes(spec.architecture)
        weights.fit(body, weights.read(spec.weights_path), head)
    return module.eval()


def _spec(slug: str, folder: Path, recipe: Recipe = SMALL) -> ModelSpec:
    """The slug with trained-like weights of its own, where the row takes a file and does not ship one."""
    if "timm" in slug or slug == LITE:
        pytest.importorskip("timm")
    if slug.startswith("random/") or slug == LITE:
        return resolve(slug, recipe=recipe)
    path = folder / (slug.replace("/", "-") + ".pth")
    if not path.exists():
        module = trained(architectures.build_seeded(lookup.find(slug).architecture, 1), recipe.side)
        torch.save(architectures.body(module).state_dict(), path)
    return resolve(slug, weights=path, recipe=recipe)


def _plain(spec: ModelSpec, pixels: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Unfolded and contiguous, from float64 preprocessing; bfloat16 by autocast."""
    x = torch.from_numpy(normalise_numpy(pixels.numpy(), spec.recipe)).contiguous()
    exact = dtype == torch.float64
    module = _module(spec).to(dtype if exact else torch.float32)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        return module(x if exact else x.float())


def _exact(spec: ModelSpec, pixels: torch.Tensor) -> torch.Tensor:
    return _plain(spec, pixels, torch.float64)


# --- the contract -----------------------------------------------------------------------------------


def test_every_architecture_of_the_catalogue_is_tested() -> None:
    """Rows share architectures; each of these is held to the contract, under one slug or another."""
    tested = {lookup.find(slug).architecture.partition("+")[0] for slug in [*FAMILIES, *MORE]}
    rows = {row.architecture.partition("+")[0] for row in lookup.ROWS if "{name}" not in row.architecture}
    # Transformers take one size or are large: a small one is tested below, and in test_huggingface.py.
    # VGG-16 is as large, and built like AlexNet.
    others = ("transformers/", "timm/vit_", "torchvision/vgg16")
    assert {a for a in rows if not a.startswith(others)} <= tested


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["", pytest.param("+cls", marks=pytest.mark.thorough), "+mean"])
def test_transformers_of_timm(variant: str, folder: Path) -> None:
    pytest.importorskip("timm")
    slug = f"timm/vit_tiny_patch16_224{variant}"
    spec = _spec(slug, folder, Recipe())
    pixels = pictures(3, 224)
    one, two = (load(spec, Runtime(threads=t)) for t in (1, 2))
    found = two(pixels)
    assert cosine(found[:2], _exact(spec, pixels[:2])) > 1 - 1e-8
    assert torch.equal(torch.cat([one(pixels[i : i + 1]) for i in range(3)]), found)
    assert spec.layer == ("mean" if variant == "+mean" else "cls")


@pytest.mark.parametrize("slug", MODELS)
def test_features_are_the_plain_models(slug: str, folder: Path) -> None:
    spec = _spec(slug, folder)
    pixels = pictures(6, SIDE)
    found = load(spec, Runtime(threads=2))(pixels)
    exact = _exact(spec, pixels)
    assert found.dtype == torch.float32
    assert found.shape == (6, spec.dim)
    assert not found.requires_grad
    assert cosine(found, exact) > 1 - 1e-8
    # Other roundings than eager float32's, but no larger ones.
    eager = _plain(spec, pixels, torch.float32)
    assert float((found - exact).abs().max()) < 3 * float((eager - exact).abs().max())
    assert cosine(exact, exact.roll(1, 0)) < 1 - 1e-5  # the pictures are told apart at all


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("slug", FEWER)
def test_a_feature_depends_on_its_image_alone(slug: str, precision: str, folder: Path) -> None:
    """Bit for bit: any batch size, any place in the batch, any neighbours, any number of threads."""
    spec = _spec(slug, folder)
    pixels = pictures(7, SIDE)
    one, two = (load(spec, Runtime(precision=precision, threads=t)) for t in (1, 2))  # type: ignore[arg-type]
    whole = two(pixels)
    for encoder in (one, two):
        for size in (1, 4, 7):
            parts = torch.cat([encoder(pixels[i : i + size]) for i in range(0, 7, size)])
            assert torch.equal(parts, whole), (size, encoder.runtime.threads)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(0))
    assert torch.equal(two(pixels[order]), whole[order])
    strangers = torch.randint(
        0, 256, pixels.shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )
    strangers[::3] = pixels[::3]
    strangers[1] = 0  # what a failed row looks like
    assert torch.equal(two(strangers)[::3], whole[::3])


@pytest.mark.slow
@pytest.mark.parametrize(
    "slug",
    [
        LITE,
        *(
            pytest.param(s, marks=pytest.mark.thorough)
            for s in ("torchvision/resnet18", "random/densenet121")
        ),
    ],
)
def test_a_feature_depends_on_its_image_alone_at_full_size(slug: str, folder: Path) -> None:
    spec = _spec(slug, folder, Recipe())
    pixels = pictures(5, 224)
    one, two = (load(spec, Runtime(threads=t)) for t in (1, 2))
    whole = two(pixels)
    for size in (1, 3):
        assert torch.equal(torch.cat([one(pixels[i : i + size]) for i in range(0, 5, size)]), whole)
    assert torch.equal(one(pixels.flip(0)).flip(0), whole)
    assert cosine(whole[:2], _exact(spec, pixels[:2])) > 1 - 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("slug", FEWER)
def test_bf16_is_as_close_as_autocast(slug: str, folder: Path) -> None:
    """bfloat16 has 8 bits; what a network makes of that is its own affair, but folding must not add to it."""
    spec = _spec(slug, folder)
    pixels = pictures(6, SIDE)
    exact = _exact(spec, pixels)
    found = load(spec, Runtime(precision="bf16", threads=2))(pixels)
    assert found.dtype == torch.float32
    if slug != "supervised-alexnet":  # ends in a product, not in a pooling, which keeps its bits
        assert not torch.equal(found, found.bfloat16().float())
    stock = _plain(spec, pixels, torch.bfloat16)
    assert 1 - cosine(found, exact) < 2 * (1 - cosine(stock, exact))


@pytest.mark.slow
@pytest.mark.parametrize("slug", ["torchvision/resnet18", LITE])
def test_the_backbone_is_frozen(slug: str, folder: Path) -> None:
    encoder = load(_spec(slug, folder), Runtime(threads=1))
    pixels = pictures(3, SIDE)
    before, first = pixels.clone(), encoder(pixels)
    assert torch.equal(encoder(pixels), first)
    assert torch.equal(pixels, before)
    assert not any(p.requires_grad for p in encoder._net.parameters())
    encoder._net.train()
    with pytest.raises(RuntimeError, match="train mode"):
        encoder(pixels)
    encoder._net.eval()
    next(iter(encoder._net.children())).train()
    with pytest.raises(RuntimeError, match="train mode"):
        encoder(pixels)


# --- details ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("recipe", [replace(SMALL, normalise="none"), replace(SMALL, normalise="histogram")])
def test_other_normalisations(recipe: Recipe, folder: Path) -> None:
    spec = _spec("torchvision/resnet18", folder, recipe)
    pixels = pictures(5, SIDE)
    assert cosine(load(spec, Runtime(threads=1))(pixels), _exact(spec, pixels)) > 1 - 1e-9


def test_against_the_code_people_write(tmp_path: Path) -> None:
    """torchvision's transforms and model, float32, nothing of ours."""
    torch.manual_seed(0)
    plain = settle(models.resnet18(weights=None))
    spec = resolve("torchvision/resnet18", weights=saved(plain, tmp_path), recipe=SMALL)
    pixels = pictures(8, SIDE)
    plain.fc = nn.Identity()
    prepare = v2.Compose(
        [v2.ToDtype(torch.float32, scale=True), v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    )
    with torch.no_grad():
        expected = plain(prepare(pixels.permute(0, 3, 1, 2)))
    assert cosine(load(spec, Runtime(threads=2))(pixels), expected) > 1 - 1e-8


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["dtype", "channels", "side", "rank"])
def test_wrong_pixels_are_refused(fault: str, folder: Path) -> None:
    encoder = load(_spec("torchvision/resnet18", folder), Runtime(threads=1))
    pixels = pictures(2, SIDE)
    wrong = {
        "dtype": pixels.float(),
        "channels": pixels.permute(0, 3, 1, 2),
        "side": pictures(2, SIDE // 2),
        "rank": pixels[0],
    }[fault]
    with pytest.raises(ValueError, match="uint8"):
        encoder(wrong)


def test_no_images_give_no_features(folder: Path) -> None:
    assert load(_spec("torchvision/resnet18", folder), Runtime(threads=1))(pictures(0, SIDE)).shape == (
        0,
        512,
    )


def test_the_callers_thread_count_is_left_alone(folder: Path) -> None:
    before = torch.get_num_threads()
    encoder = load(_spec("torchvision/resnet18", folder), Runtime(threads=3))
    assert torch.get_num_threads() == before
    assert encoder._workers is not None
    together = threading.Barrier(3)

    def ask(_: int) -> int:
        together.wait()
        return torch.get_num_threads()

    assert list(encoder._workers.map(ask, range(3))) == [1, 1, 1]


def test_an_error_in_a_worker_reaches_the_caller(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load(_spec("torchvision/resnet18", folder), Runtime(threads=2))

    def fail(*args: object) -> torch.Tensor:
        raise MemoryError("no room")

    monkeypatch.setattr(encoder_module, "normalise", fail)
    with pytest.raises(MemoryError):
        encoder(pictures(5, SIDE))


def test_describe_says_what_was_done(folder: Path) -> None:
    said = load(_spec("torchvision/resnet18", folder), Runtime(threads=1)).describe()
    assert (said["folded"], said["kept"], said["precision"], said["compiled"]) == (20, 0, "fp32", False)
    plain = models.resnet18(weights=None)
    assert said["parameters"] == sum(
        p.numel() for n, p in plain.named_parameters() if not n.startswith("fc.")
    )
    assert said["torch"] == torch.__version__


def test_weights_that_changed_since_resolve_are_refused(tmp_path: Path) -> None:
    path = saved(models.resnet18(weights=None), tmp_path)
    spec = resolve("torchvision/resnet18", weights=path, recipe=SMALL)
    torch.save(models.resnet18(weights=None).state_dict(), path)
    with pytest.raises(WeightsError, match="SHA-256"):
        load(spec, Runtime(threads=1))


def test_a_seed_that_draws_other_numbers_is_refused() -> None:
    spec = replace(resolve("random/resnet18", recipe=SMALL), weights_sha256="0" * 64)
    with pytest.raises(WeightsError, match="other numbers"):
        load(spec, Runtime(threads=1))


# --- real weights, real pictures ----------------------------------------------------------------------

#: Pictures that scikit-image ships, and ImageNet classes that name what is on them.
SEEN = {
    "chelsea.png": {"tabby", "tiger cat", "Egyptian cat"},
    "coffee.png": {"espresso", "cup", "coffee mug"},
    "rocket.jpg": {"missile", "projectile", "space shuttle"},
    "motorcycle_left.png": {"moped", "motor scooter", "crash helmet", "disk brake"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SEEN)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_embedded_weights_recognise_real_pictures(name: str, precision: str) -> None:
    """The right ImageNet class shows weights, key map, padding and recipe to be right at once."""
    pytest.importorskip("timm")
    skimage = pytest.importorskip("skimage")
    spec = resolve(LITE)
    image = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
    image = v2.CenterCrop(spec.recipe.side)(v2.Resize(spec.recipe.size, v2.InterpolationMode.BICUBIC)(image))
    pixels = torch.from_numpy(np.array(image))[None]
    feature = load(spec, Runtime(precision=precision, threads=1))(pixels)  # type: ignore[arg-type]
    assert spec.weights_path is not None
    file = weights.read(spec.weights_path)
    chances = nn.functional.linear(feature, file["_fc.weight"], file["_fc.bias"]).softmax(1)[0]
    categories = models.ResNet18_Weights.DEFAULT.meta["categories"]
    top = chances.topk(3)
    assert {categories[i] for i in top.indices} & SEEN[name]
    assert float(sum(chances[i] for i, c in enumerate(categories) if c in SEEN[name])) > 0.4


# --- compiled, and on the GPU -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_features(precision: str, folder: Path) -> None:
    spec = _spec("torchvision/resnet18", folder)
    pixels = pictures(9, SIDE)
    encoder = load(spec, Runtime(precision=precision, threads=2, compile=True))  # type: ignore[arg-type]
    found = encoder(pixels)
    assert cosine(found, _exact(spec, pixels)) > (1 - 1e-9 if precision == "fp32" else 0.999)
    assert torch.equal(torch.cat([encoder(pixels[i : i + 1]) for i in range(9)]), found)
    assert encoder.describe()["compiled"]


@pytest.mark.slow
def test_a_failed_compilation_has_a_remedy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("no compiler")

    monkeypatch.setattr(encoder_module, "_compile", lambda net, runtime: broken)
    with pytest.raises(ModelError, match=r"install g\+\+"):
        load(_spec("torchvision/resnet18", folder), Runtime(threads=1, compile=True))


@pytest.mark.slow
@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "least"), [("fp32", 1 - 1e-8), ("bf16", 0.995), ("fp16", 0.9999)])
@pytest.mark.parametrize("slug", MODELS)
def test_cuda_features(slug: str, precision: str, least: float, folder: Path) -> None:
    spec = _spec(slug, folder)
    pixels = pictures(16, SIDE)
    encoder = load(spec, Runtime(device="cuda:0", precision=precision))  # type: ignore[arg-type]
    found = encoder(pixels.cuda())
    assert found.is_cuda
    assert found.dtype == torch.float32
    assert cosine(found.cpu(), _exact(spec, pixels)) > least
    assert torch.equal(encoder(pixels.cuda()), found)
    # With the batch size fixed, neighbours and places do not matter on the device either.
    assert torch.equal(encoder(pixels.flip(0).cuda()).flip(0), found)


@pytest.mark.gpu(needs="triton")
def test_cuda_compiled_features(folder: Path) -> None:
    spec = _spec("torchvision/resnet18", folder)
    pixels = pictures(16, SIDE)
    found = load(spec, Runtime(device="cuda:0", precision="bf16", compile=True))(pixels.cuda())
    assert cosine(found.cpu(), _exact(spec, pixels)) > 0.999
