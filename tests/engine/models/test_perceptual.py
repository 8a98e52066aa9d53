"""LPIPS against the package's own module, the formula in float64, and its axioms.

The trunks are drawn: without a network there are no ImageNet weights here. The heads are the package's.
"""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from torchvision import models

from engine.errors import Refused, WeightsError
from engine.models import perceptual
from engine.models.catalog import lookup
from engine.models.checkpoints import checkpoint_cache
from engine.models.perceptual import PerceptualDistance
from tests.engine.models.plain import pictures
from tests.perceptual_trunks import drawn, packages_own, saved

SMALL = ("alex", "squeeze")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trunks")
    return {net: saved(net, folder) for net in SMALL}


@pytest.fixture(scope="module")
def distance(files: dict[str, Path]) -> PerceptualDistance:
    return PerceptualDistance(SMALL, trunks=files)


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty caches of embank and of torch.hub, and no way to the network."""
    monkeypatch.setenv("EMBANK_CACHE", str(tmp_path / "embank"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)

    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a download was begun")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    return tmp_path


def pairs(count: int = 3, side: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    return pictures(count, side, seed=1), pictures(count, side, seed=2)


def as_package(images: torch.Tensor) -> torch.Tensor:
    """As the package's im2tensor: 0-255 to -1..1."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.mark.parametrize("net", SMALL)
def test_equals_the_packages_own(distance: PerceptualDistance, net: str) -> None:
    a, b = pairs()
    oracle = packages_own(net)
    with torch.no_grad():
        expected = torch.cat(
            [oracle(as_package(x[None]), as_package(y[None])) for x, y in zip(a, b, strict=True)]
        )
    value = distance.distance(a, b)[net]
    assert value.dtype == torch.float32
    assert value.shape == (3,)
    assert float(expected.min()) > 1e-3
    torch.testing.assert_close(value, expected.reshape(-1), rtol=2e-5, atol=1e-7)


@pytest.mark.slow
def test_vgg_equals_the_packages_own(tmp_path: Path) -> None:
    a, b = pairs(2, 48)
    oracle = packages_own("vgg")
    with torch.no_grad():
        expected = oracle(as_package(a), as_package(b)).reshape(-1)
    value = PerceptualDistance(("vgg",), trunks={"vgg": saved("vgg", tmp_path)}).distance(a, b)["vgg"]
    torch.testing.assert_close(value, expected, rtol=2e-5, atol=1e-7)


def test_equals_the_formula_in_float64(distance: PerceptualDistance) -> None:
    """Equation 1 by hand for AlexNet: five ReLU layers, after convolutions 0, 3, 6, 8 and 10."""
    import lpips

    heads = torch.load(
        Path(lpips.__file__).parent / "weights/v0.1/alex.pth", map_location="cpu", weights_only=True
    )
    weights = {name: tensor.double() for name, tensor in drawn("alex").items()}

    def layers(images: torch.Tensor) -> list[np.ndarray]:
        x = images.permute(0, 3, 1, 2).double() / 255 * 2 - 1
        shift, scale = (
            torch.tensor(v, dtype=torch.float64).reshape(1, 3, 1, 1)
            for v in ([-0.030, -0.088, -0.188], [0.458, 0.448, 0.450])
        )
        x = (x - shift) / scale
        out = []
        for index, stride, padding in ((0, 4, 2), (3, 1, 2), (6, 1, 1), (8, 1, 1), (10, 1, 1)):
            if index in (3, 6):
                x = functional.max_pool2d(x, 3, 2)
            x = functional.conv2d(
                x, weights[f"features.{index}.weight"], weights[f"features.{index}.bias"], stride, padding
            ).relu()
            out.append(x.numpy())
        return out

    a, b = pairs()
    total = np.zeros(3)
    for level, (x, y) in enumerate(zip(layers(a), layers(b), strict=True)):
        unit_x, unit_y = (f / np.sqrt((f**2).sum(1, keepdims=True)).clip(1e-10) for f in (x, y))
        head = heads[f"lin{level}.model.1.weight"].double().numpy().reshape(1, -1, 1, 1)
        total += (head * (unit_x - unit_y) ** 2).sum(1).mean((1, 2))
    np.testing.assert_allclose(distance.distance(a, b)["alex"].numpy(), total, rtol=2e-5)


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(31, 60))
def test_axioms(distance: PerceptualDistance, seed: int, count: int, side: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = (
        torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=generator) for _ in "ab"
    )
    forth, back, same = distance.distance(a, b), distance.distance(b, a), distance.distance(a, a.clone())
    for net in SMALL:
        assert torch.equal(forth[net], back[net])
        assert torch.equal(same[net], torch.zeros(count))
        assert bool((forth[net] >= 0).all())


def test_a_batch_equals_single_pairs(distance: PerceptualDistance) -> None:
    a, b = pairs(3)
    batch = distance.distance(a, b)
    for net in SMALL:
        single = torch.cat([distance.distance(a[i : i + 1], b[i : i + 1])[net] for i in range(3)])
        torch.testing.assert_close(batch[net], single, rtol=1e-5, atol=1e-7)


def test_floats_of_0_to_1_equal_bytes(distance: PerceptualDistance) -> None:
    a, b = pairs()
    bytes_ = distance.distance(a, b)
    floats = distance.distance(*((x.permute(0, 3, 1, 2).double() / 255) for x in (a, b)))
    for net in SMALL:
        torch.testing.assert_close(floats[net], bytes_[net], rtol=1e-5, atol=1e-7)


def test_mean_is_the_plain_mean(distance: PerceptualDistance) -> None:
    values = distance.distance(*pairs())
    expected = (values["alex"].double() + values["squeeze"].double()) / 2
    torch.testing.assert_close(PerceptualDistance.mean(values).double(), expected)


@pytest.mark.parametrize("net", perceptual.NETS)
def test_the_smallest_side_is_the_packages(net: str) -> None:
    """One pixel less, and the package's own trunk fails."""
    side = perceptual.MIN_SIDE[net]
    import lpips

    with torch.device("meta"), warnings.catch_warnings(action="ignore"):
        oracle = lpips.LPIPS(net=net, pnet_rand=True, pretrained=False, verbose=False)
        oracle.net(torch.empty(1, 3, side, side))
        with pytest.raises(RuntimeError):
            oracle.net(torch.empty(1, 3, side - 1, side - 1))


def test_images_that_do_not_fit_are_refused(distance: PerceptualDistance) -> None:
    a, b = pairs()
    bad = {
        "31 pixels or more": (a[:, :30, :30], b[:, :30, :30]),
        "one dtype and one shape": (a, b[:2]),
        "They are uint8": (a.permute(0, 3, 1, 2), b),
        "Floating ones are 0-1": (a.permute(0, 3, 1, 2).float(), b.permute(0, 3, 1, 2).float()),
    }
    for rule, (x, y) in bad.items():
        with pytest.raises(Refused, match=rule):
            distance.distance(x, y)
    x = torch.full((1, 3, 64, 64), float("nan"))
    with pytest.raises(Refused, match="nan"):
        distance.distance(x, x)


@pytest.mark.parametrize("nets", [(), ("vgg16",), ("alex", "alex")])
def test_unknown_nets_are_refused(nets: tuple[str, ...]) -> None:
    with pytest.raises(Refused):
        PerceptualDistance(nets)


def test_a_file_for_a_net_that_is_not_used_is_refused(files: dict[str, Path]) -> None:
    with pytest.raises(Refused, match="squeeze"):
        PerceptualDistance(("alex",), trunks=files)


# --- the trunks -------------------------------------------------------------------------------------


@pytest.mark.parametrize("net", perceptual.NETS)
def test_a_missing_trunk_is_refused_with_remedies(net: str, caches: Path) -> None:
    assert perceptual.available() == ()
    with pytest.raises(WeightsError) as caught:
        PerceptualDistance((net,))
    assert f"embank models fetch {perceptual.SLUGS[net]}" in caught.value.remedy
    assert f"--trunk {net}=FILE" in caught.value.remedy
    # The remedy's file is the one that the package would have downloaded.
    name = {"alex": "alexnet", "squeeze": "squeezenet1_1", "vgg": "vgg16"}[net]
    assert models.get_model_weights(name)["IMAGENET1K_V1"].url in caught.value.remedy


def test_all_missing_trunks_are_named_at_once(caches: Path, files: dict[str, Path]) -> None:
    with pytest.raises(WeightsError, match="LPIPS squeeze, vgg is") as caught:
        PerceptualDistance(trunks={"alex": files["alex"]})
    assert "fetch supervised-squeezenet`, `embank models fetch supervised-vgg16`" in caught.value.remedy


def test_trunks_come_from_embanks_cache(
    caches: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, distance: PerceptualDistance
) -> None:
    """As `embank models fetch supervised-squeezenet --from-file FILE` leaves it."""
    source, architecture = lookup.published(perceptual.SLUGS["squeeze"])
    # The drawn file cannot have the published file's digest.
    unchecked = checkpoint_cache.Published(source.name, source.url, source.file, source.reader)
    checkpoint_cache.fetch(unchecked, from_file=saved("squeeze", tmp_path))
    checkpoint_cache.convert(unchecked, architecture)
    assert perceptual.available() == ("squeeze",)
    cached = PerceptualDistance(("squeeze",))
    assert cached.trunks[0].published
    a, b = pairs()
    assert torch.equal(cached.distance(a, b)["squeeze"], distance.distance(a, b)["squeeze"])


def test_a_damaged_file_in_torch_hubs_cache_is_refused(caches: Path, files: dict[str, Path]) -> None:
    checkpoints = caches / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    shutil.copy(files["squeeze"], checkpoints / "squeezenet1_1-b8a52dc0.pth")
    with pytest.raises(WeightsError, match="b8a52dc0"):
        PerceptualDistance(("squeeze",))


def test_a_full_state_dict_is_taken_and_its_classifier_left_out(
    tmp_path: Path, distance: PerceptualDistance
) -> None:
    whole = {"state_dict": {**drawn("squeeze"), "classifier.1.weight": torch.ones(1000, 512, 1, 1)}}
    torch.save(whole, tmp_path / "whole.pth")
    other = PerceptualDistance(("squeeze",), trunks={"squeeze": tmp_path / "whole.pth"})
    assert not other.trunks[0].published
    a, b = pairs()
    assert torch.equal(other.distance(a, b)["squeeze"], distance.distance(a, b)["squeeze"])


def test_a_trunk_of_another_network_or_with_nan_is_refused(tmp_path: Path, files: dict[str, Path]) -> None:
    with pytest.raises(WeightsError, match="does not fit"):
        PerceptualDistance(("squeeze",), trunks={"squeeze": files["alex"]})
    broken = {name: tensor.clone() for name, tensor in drawn("squeeze").items()}
    broken["features.0.bias"][3] = float("nan")
    torch.save(broken, tmp_path / "nan.pth")
    with pytest.raises(WeightsError, match="NaN"):
        PerceptualDistance(("squeeze",), trunks={"squeeze": tmp_path / "nan.pth"})


def test_building_leaves_the_generator_alone(files: dict[str, Path]) -> None:
    before = torch.get_rng_state()
    PerceptualDistance(("squeeze",), trunks={"squeeze": files["squeeze"]})
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.gpu
def test_the_device_equals_the_cpu(files: dict[str, Path], distance: PerceptualDistance) -> None:
    a, b = pairs(2)
    on_device = PerceptualDistance(SMALL, "cuda", files)
    values, expected = on_device.distance(a.cuda(), b.cuda()), distance.distance(a, b)
    for net in SMALL:
        assert values[net].is_cuda
        torch.testing.assert_close(values[net].cpu(), expected[net], rtol=1e-4, atol=1e-6)
    assert all(torch.equal(v, torch.zeros_like(v)) for v in on_device.distance(a, a).values())
