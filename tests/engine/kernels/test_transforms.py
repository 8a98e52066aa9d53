"""Views: every transform against torchvision's own function, one view at a time."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torchvision.transforms.functional as tv
from PIL import Image, ImageOps
from torchvision.transforms import InterpolationMode

from engine.errors import BadImage, Refused
from engine.kernels import geometric, transforms
from engine.kernels.transforms import TRANSFORMS, Frame, find, is_grey

SIDE = 64
FRAME = Frame(unit=SIDE / 256, side=SIDE)
#: The study's grids hold these values (protocol page), for k = 256 views.
GRIDS = {
    "rotation": (256, (0.0,), (360 * 255 / 256,), 1),
    "translation": (256, (-16.0, -16.0), (14.0, 14.0), 1),
    "scale": (256, (0.25,), (2.0,), 0),
    "shear": (256, (-160.0, -160.0), (140.0, 140.0), 1),
    "resized_crop": (256, (0.0, 0.0, 192.0, 192.0), (64.0, 64.0, 64.0, 64.0), 0),
    "h_flip": (2, (0.0,), (1.0,), 1),
    "v_flip": (2, (0.0,), (1.0,), 1),
    "deform": (256, (10.0, 0.0), (50.0, 255.0), 0),
    "grayscale": (2, (0.0,), (1.0,), 1),
    "brightness": (256, (0.25,), (5.0,), 0),
    "contrast": (256, (0.25,), (5.0,), 0),
    "saturation": (256, (0.25,), (5.0,), 0),
    "hue": (256, (-0.5,), (0.5,), 0),
    "blur": (256, (1e-5,), (20.0,), 4),
    "sharpness": (256, (1.0,), (30.0,), 1),
    "invert": (2, (0.0,), (1.0,), 1),
    "equalize": (2, (0.0,), (1.0,), 1),
    "posterize": (7, (1.0,), (7.0,), 0),
}


def picture(height: int = SIDE, width: int = SIDE, seed: int = 0) -> torch.Tensor:
    """Smooth colours with some noise, uint8 [H, W, 3]."""
    y, x = np.mgrid[:height, :width] / 20
    rng = np.random.default_rng(seed)
    waves = [np.sin(x * a + y * b + c) for a, b, c in rng.uniform(-1, 1, (3, 3))]
    values = 128 + 90 * np.stack(waves, -1) + rng.normal(0, 12, (height, width, 3))
    return torch.from_numpy(values.clip(0, 255).astype(np.uint8))


def planes(image: torch.Tensor) -> torch.Tensor:
    return image.permute(2, 0, 1)


_UNIT = SIDE / 256
#: name -> torchvision's view [3, H, W] for one view's parameters.
ORACLES: dict[str, Callable[[torch.Tensor, tuple[float, ...]], torch.Tensor]] = {
    "rotation": lambda x, p: tv.rotate(x, p[0]),
    "translation": lambda x, p: tv.affine(x, 0.0, [p[0] * _UNIT, p[1] * _UNIT], 1.0, [0.0, 0.0]),
    "scale": lambda x, p: tv.affine(x, 0.0, [0, 0], p[0], [0.0, 0.0]),
    "shear": lambda x, p: tv.affine(x, 0.0, [0, 0], 1.0, [p[0], p[1]]),
    "h_flip": lambda x, p: tv.hflip(x) if p[0] else x,
    "v_flip": lambda x, p: tv.vflip(x) if p[0] else x,
    "grayscale": lambda x, p: tv.rgb_to_grayscale(x, 3) if p[0] else x,
    "brightness": lambda x, p: tv.adjust_brightness(x, p[0]),
    "contrast": lambda x, p: tv.adjust_contrast(x, p[0]),
    "saturation": lambda x, p: tv.adjust_saturation(x, p[0]),
    "hue": lambda x, p: tv.adjust_hue(x, p[0]),
    "blur": lambda x, p: tv.gaussian_blur(x, [23, 23], [p[0], p[0]]),
    "sharpness": lambda x, p: tv.adjust_sharpness(x, p[0]),
    "invert": lambda x, p: tv.invert(x) if p[0] else x,
    "equalize": lambda x, p: tv.equalize(x) if p[0] else x,
    "posterize": lambda x, p: tv.posterize(x, int(p[0])),
}
#: Nearest pixels may be chosen otherwise where two are equally near; sums may round otherwise by a level.
MOVING = ("rotation", "translation", "scale", "shear")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("name", ORACLES)
def test_equals_torchvision(name: str, device: str) -> None:
    image = picture()
    plan = find(name).plan(16 if name != "hue" else 17, identity=True)
    found = find(name).render(image.to(device), plan, FRAME).cpu()
    assert found.dtype == torch.uint8 and found.shape == (len(plan), SIDE, SIDE, 3)
    for parameters, view in zip(plan, found, strict=True):
        expected = ORACLES[name](planes(image), parameters)
        apart = (planes(view).int() - expected.int()).abs()
        if name in MOVING:
            assert (apart > 0).float().mean() < 0.01, parameters
        else:
            assert apart.max() <= 1 and (apart > 0).float().mean() < 0.01, parameters


def test_equalize_and_posterize_are_pillows_too() -> None:
    image = picture(40, 57)
    pillow = Image.fromarray(image.numpy())
    found = find("equalize").render(image, [(1.0,)], FRAME)[0]
    np.testing.assert_array_equal(found, np.asarray(ImageOps.equalize(pillow)))
    flat = torch.full((20, 20, 3), 7, dtype=torch.uint8)
    assert torch.equal(find("equalize").render(flat, [(1.0,)], FRAME)[0], flat)
    for bits in range(1, 8):
        found = find("posterize").render(image, [(float(bits),)], FRAME)[0]
        np.testing.assert_array_equal(found, np.asarray(ImageOps.posterize(pillow, bits)))


def test_affine_maps_on_rectangles_are_torchvisions() -> None:
    image = picture(50, 83)
    every = [
        geometric.Affine(angle=30.0, shift=(5.0, -3.0), scale=1.3, shear=(10.0, -20.0)),
        geometric.Affine(angle=-200.0, scale=0.6),
    ]
    for view, found in zip(every, geometric.affine(image, every), strict=True):
        expected = tv.affine(planes(image), view.angle, list(view.shift), view.scale, list(view.shear))
        assert (planes(found) != expected).float().mean() < 0.01


def test_crops_are_torchvisions_and_black_outside() -> None:
    image = picture(90, 100)
    boxes = [(0.0, 0.0, 90.0, 100.0), (10.4, 20.6, 31.0, 40.0), (3.0, 5.0, 31.0, 40.0)]
    for box, found in zip(boxes, geometric.crops(image, boxes, 32), strict=True):
        top, left, bottom, right = (
            round(box[0]), round(box[1]), round(box[0] + box[2]), round(box[1] + box[3]),
        )  # fmt: skip
        part = planes(image)[:, top:bottom, left:right]
        expected = tv.resize(part, [32, 32], InterpolationMode.BILINEAR, antialias=True)
        assert (planes(found).int() - expected.int()).abs().max() <= 1
    outside = geometric.crops(image, [(80.0, 0.0, 40.0, 100.0)], 40)[0]
    assert outside[20:].max() == 0 and outside[:5].min() > 0


def test_resize_is_pillows_within_a_level() -> None:
    image = picture(150, 200)
    found = geometric.resize(image[None], 60, 80, (5, 10, 50))[0]
    pillow = Image.fromarray(image.numpy()).resize((80, 60), Image.Resampling.BILINEAR)
    expected = np.asarray(pillow)[5:55, 10:60]
    assert np.abs(found.numpy().astype(int) - expected).max() <= 1


def test_deformations_are_seeded_smooth_and_mirror_the_edge() -> None:
    image = picture(96, 96)
    plan = find("deform").plan(9, identity=False)
    first = find("deform").render(image, plan, Frame(96 / 256, 96))
    again = find("deform").render(image, plan[3:5], Frame(96 / 256, 96))
    assert torch.equal(first[3:5], again)
    assert len({bytes(view.numpy().tobytes()) for view in first}) == 9
    still = geometric.deform(image, [10.0], [0], 0.0)[0]  # no affine map: the field alone moves little
    assert (still.int() - image.int()).abs().float().mean() < 2
    white = torch.full((96, 96, 3), 255, dtype=torch.uint8)
    assert find("deform").render(white, plan, Frame(96 / 256, 96)).min() == 255


def test_the_random_affine_map_moves_points_as_far_as_it_says() -> None:
    draw = torch.Generator().manual_seed(5)
    offsets = (torch.rand(3, 2, generator=draw) * 2 - 1) * 12.0
    mapped = geometric._random_affine(120, 90, 12.0, torch.Generator().manual_seed(5))
    for corner, offset in zip(((75, 90), (75, 30), (15, 30)), offsets, strict=True):
        where = np.array(corner) + offset.numpy()  # in the view; the image has it at the corner
        x, y = round(where[0]), round(where[1])
        if 0 <= x < 90 and 0 <= y < 120:
            assert np.abs(mapped[y, x].numpy() - corner).max() < 2


@pytest.mark.parametrize("name", TRANSFORMS)
def test_grids_are_the_studys(name: str) -> None:
    count, first, last, neutral = GRIDS[name]
    grid = find(name).plan(256, identity=True)
    assert len(grid) == count
    assert grid[0] == pytest.approx(first) and grid[-1] == pytest.approx(last)
    assert len(find(name).plan(256, identity=False)) == count - neutral
    assert all(len(p) == len(find(name).parameters) for p in grid)


def test_there_are_eighteen_and_three_need_colour() -> None:
    assert len(TRANSFORMS) == 18 and set(GRIDS) == set(TRANSFORMS)
    assert {t.name for t in TRANSFORMS.values() if t.colour} == {"grayscale", "saturation", "hue"}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_what_is_called_identity_leaves_images_and_nothing_else_does(name: str) -> None:
    image = picture(seed=3)
    transform = find(name)
    for parameters in transform.plan(16 if name != "hue" else 5, identity=True):
        same = torch.equal(transform.render(image, [parameters], FRAME)[0], image)
        # Smoothed slightly, few bytes change; a hue survives the way there and back within a level.
        if transform.leaves(parameters) and name != "hue":
            assert same, parameters
        elif not transform.leaves(parameters) and name != "blur":
            assert not same, parameters


def test_grey_images_have_no_colour_to_change() -> None:
    image = picture()[..., :1].expand(-1, -1, 3).contiguous()
    assert is_grey(image) and not is_grey(picture())
    for transform in TRANSFORMS.values():
        if transform.colour:
            views = transform.render(image, transform.plan(5, identity=False), FRAME)
            # The grey's weights add up to 0.9999: it may be a level too dark, which saturation multiplies.
            limit = 4 if transform.name == "saturation" else 1
            assert (views.int() - image.int()).abs().max() <= limit, transform.name


@pytest.mark.parametrize(
    ("name", "views"), [("translation", 20), ("shear", 255), ("resized_crop", 100), ("deform", 257)]
)
def test_numbers_without_a_grid_are_refused(name: str, views: int) -> None:
    with pytest.raises(Refused, match=f"{views} views"):
        find(name).plan(views, identity=True)
    with pytest.raises(Refused, match="rotate"):
        find("rotate")


def test_images_smaller_than_the_kernel() -> None:
    with pytest.raises(BadImage) as error:
        find("blur").render(picture(11, 90), [(3.0,)], FRAME)
    assert error.value.code == "too_small"
    assert find("blur").render(picture(12, 90), [(3.0,)], FRAME).shape == (1, 12, 90, 3)
    with pytest.raises(BadImage):
        find("deform").render(picture(8, 90), [(10.0, 0.0)], FRAME)
    tiny = picture(1, 1)
    for name in ("rotation", "sharpness", "equalize", "resized_crop", "hue"):
        assert find(name).render(tiny, find(name).plan(1, identity=True)[:1], FRAME).shape[0] == 1


def test_smallest_blur_that_counts() -> None:
    """A point of 255 on black loses less than half a level below the bound, more above it."""
    bound = transforms._NO_BLUR
    weight = math.exp(-1 / (2 * bound**2))
    assert 2 * weight * 255 == pytest.approx(0.5)
