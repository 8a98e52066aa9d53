"""LPIPS of files, against the package on images opened with Pillow and torchvision's transforms."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from engine.errors import Refused
from engine.evals.perceptual import images
from engine.evals.perceptual.evaluate import perceptual
from engine.evals.perceptual.options import PerceptualOptions
from engine.evals.perceptual.pairs import find_pairs
from tests.engine.models.plain import pictures
from tests.perceptual_trunks import packages_own, saved

NETS = ("alex", "squeeze")


@pytest.fixture(scope="module")
def trunks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("trunks")
    return {net: saved(net, folder) for net in NETS}


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Rectangles, grey and colour; one image of B is truncated, one of A has no partner."""
    a, b = tmp_path / "a", tmp_path / "b"
    for folder, seed in ((a, 1), (b, 2)):
        folder.mkdir()
        for i, pixels in enumerate(pictures(5, 72, seed).numpy()):
            image = Image.fromarray(pixels[: 60 + 3 * i])
            (image.convert("L") if i == 1 else image).save(folder / f"{i}.png")
    (a / "extra.png").write_bytes((a / "0.png").read_bytes())
    (b / "3.png").write_bytes((b / "3.png").read_bytes()[:600])
    return a, b


def oracle(net: str, a: Path, b: Path, side: int | None) -> float:
    """As the study does it: opened from disk as RGB, resized, cropped, scaled to -1..1, one pair a time."""
    prepare = transforms.Compose(
        [
            *(
                [
                    transforms.Resize(side, transforms.InterpolationMode.BICUBIC),
                    transforms.CenterCrop(side),
                ]
                if side
                else []
            ),
            transforms.ToTensor(),
            transforms.Lambda(lambda x: x * 2 - 1),
        ]
    )
    first, second = (prepare(Image.open(path).convert("RGB"))[None] for path in (a, b))
    with torch.no_grad():
        return float(packages_own(net)(first, second))


@pytest.mark.parametrize("side", [48, None])
def test_values_are_the_packages_and_bad_pairs_are_rows_with_reasons(
    side: int | None, folders: tuple[Path, Path], trunks: dict[str, Path]
) -> None:
    a, b = folders
    options = PerceptualOptions(NETS, side=side, batch_size=2, trunks=trunks)
    seen: list[tuple[int, int]] = []
    result = perceptual(a, b, options, device="cpu", threads=1, on_progress=lambda *n: seen.append(n))
    assert seen[-1] == (6, 6)
    assert [pair.a for pair in result.pairs] == ["0.png", "1.png", "2.png", "3.png", "4.png", "extra.png"]
    reasons = [pair.reason for pair in result.pairs]
    assert reasons[3].startswith("B: truncated") and reasons[5] == "no file of this name in B"
    assert result.failed == 2
    sound = [pair for pair in result.pairs if not pair.reason]
    for pair in sound[:2]:
        for net in NETS:
            expected = oracle(net, a / str(pair.a), b / str(pair.b), side)
            assert pair.lpips[net] == pytest.approx(expected, rel=2e-4), (pair, net)
        assert pair.lpips["mean"] == pytest.approx(np.mean([pair.lpips[net] for net in NETS]), rel=1e-6)
    assert all(math.isnan(value) for pair in result.pairs if pair.reason for value in pair.lpips.values())
    for key in (*NETS, "mean"):
        assert result.mean[key] == pytest.approx(np.mean([pair.lpips[key] for pair in sound]), rel=1e-12)
    assert "not LPIPS as published" in result.notes[0], "a trunk that torchvision did not publish is named"


def test_images_of_the_same_name_in_one_folder_have_no_distance(
    folders: tuple[Path, Path], trunks: dict[str, Path]
) -> None:
    a, _ = folders
    result = perceptual(a, a, PerceptualOptions(NETS, 32, trunks=trunks), device="cpu", threads=1)
    assert result.failed == 0
    assert set(result.mean.values()) == {0.0}


def test_the_study_s_side(folders: tuple[Path, Path], trunks: dict[str, Path]) -> None:
    a, b = (folder / "0.png" for folder in folders)
    options = PerceptualOptions(("squeeze",), trunks={"squeeze": trunks["squeeze"]})
    (pair,) = perceptual(a, b, options, device="cpu", threads=1).pairs
    assert pair.lpips["squeeze"] == pytest.approx(oracle("squeeze", a, b, 224), rel=2e-4)


def test_own_sizes_must_be_equal_and_large_enough(tmp_path: Path, trunks: dict[str, Path]) -> None:
    for folder, sizes in (("a", (40, 20)), ("b", (48, 20))):
        (tmp_path / folder).mkdir()
        for i, size in enumerate(sizes):
            Image.new("RGB", (size, 40)).save(tmp_path / folder / f"{i}.png")
    options = PerceptualOptions(NETS, side=None, trunks=trunks)
    result = perceptual(tmp_path / "a", tmp_path / "b", options, device="cpu", threads=1)
    assert [pair.reason.partition(";")[0] for pair in result.pairs] == [
        "size: 40 x 40 and 48 x 40",
        "size: 20 pixels, 31 or more are needed",
    ]
    assert math.isnan(result.mean["mean"])
    assert result.columns()["mean"] == [None, None]


def test_large_images_make_small_batches_of_one_size(tmp_path: Path) -> None:
    sizes = [(448, 448), (448, 448), (448, 448), (64, 64), (64, 64), (1000, 1000)]
    for i, size in enumerate(sizes):
        Image.new("RGB", size).save(tmp_path / f"{i}.png")
    options = PerceptualOptions(side=None, batch_size=8)
    batches = list(images.batches(find_pairs(tmp_path, tmp_path), options, 1))
    assert [[pair.index for pair in batch] for batch in batches] == [[0, 1], [2], [3, 4], [5]]


def test_links_out_of_a_folder_are_followed_only_if_allowed(
    tmp_path: Path, folders: tuple[Path, Path], trunks: dict[str, Path]
) -> None:
    links = tmp_path / "links"
    links.mkdir()
    (links / "0.png").symlink_to(folders[0] / "0.png")
    options = PerceptualOptions(NETS, 32, trunks=trunks)
    words = {"device": "cpu", "threads": 1}
    result = perceptual(links, folders[0], options, **words)
    assert "outside_root" in result.pairs[0].reason
    result = perceptual(links, folders[0], options, allow_outside=True, **words)
    assert result.pairs[0].lpips["mean"] == 0


@pytest.mark.parametrize(
    "nonsense",
    [{"nets": ()}, {"side": 30}, {"side": 0}, {"batch_size": 0}, {"depth": "deep"}],
    ids=str,
)
def test_nonsense_is_refused(nonsense: dict[str, object]) -> None:
    with pytest.raises(Refused):
        PerceptualOptions(**nonsense)  # type: ignore[arg-type]
