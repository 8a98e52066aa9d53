"""The study's 18 transforms: their parameter grids, and views of an image for given parameters.

Lengths in the grids are in units of 1/256 of the short side: pixels of an image whose short side is 256.

Source: Anton et al., J. Imaging 2022, 8, 320, and its code (github.com/jonahanton/SSL_medicalimaging).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from engine.errors import Refused
from engine.kernels import geometric, photometric
from engine.kernels.geometric import Affine

Parameters = tuple[float, ...]
Grid = Callable[[int], list[Parameters]]
#: Width of the blur kernel in pixels, the study's for crops of 224.
BLUR_TAPS = 23
#: Views of a random deformation, at most: eight widths, 32 draws of each.
_DEFORMATIONS = 256
#: Below this standard deviation a blur changes no byte by half a level: 2 exp(-1 / 2 s^2) 255 < 1/2.
_NO_BLUR = 1 / math.sqrt(2 * math.log(1020))


@dataclass(frozen=True)
class Frame:
    """Conversion of the grids' lengths to pixels.

    Attributes:
        unit: pixels of one unit of length.
        side: of a resized crop, in pixels.
        slant: shear along x that accompanies translation and scaling, in degrees; 1 in the study's code.
    """

    unit: float
    side: int
    slant: float = 0.0


#: (image, parameters, frame) -> views.
_Render = Callable[[torch.Tensor, Sequence[Parameters], Frame], torch.Tensor]


@dataclass(frozen=True)
class Transform:
    """A transform with its grid and its renderer.

    Attributes:
        name: as on the command line.
        parameters: names of a view's parameters, with units.
        grid: number of views -> parameters of each view, as in the study; refuses numbers without a grid.
        render: (image, parameters, frame) -> views.
        is_identity: whether parameters leave every image unchanged.
        views: fixed number of views; None if it can be chosen.
        needs_colour: whether grey images remain unchanged.
    """

    name: str
    parameters: tuple[str, ...]
    grid: Grid
    render: _Render
    is_identity: Callable[[Parameters], bool]
    views: int | None = None
    needs_colour: bool = False

    def plan(self, views: int, *, identity: bool) -> list[Parameters]:
        """Return the parameters of the views, without those that change nothing unless `identity` is set.

        Raises:
            Refused: the transform has no grid of that many views.
        """
        try:
            grid = self.grid(self.views or views)
        except Refused as error:
            raise Refused(f"{error.found} of {self.name}", error.rule, error.remedy) from None
        return grid if identity else [values for values in grid if not self.is_identity(values)]


def _line(low: float, high: float, views: int, *, end: bool = True) -> list[Parameters]:
    return [(float(v),) for v in np.linspace(low, high, views, endpoint=end)]


def _square(low: float, high: float) -> Grid:
    def grid(views: int) -> list[Parameters]:
        side = math.isqrt(views)
        if side * side != views:
            raise _no_grid(views, "a square", [(side + i) ** 2 for i in (0, 1)])
        values = np.linspace(low, high, side, endpoint=False)
        return [(float(a), float(b)) for a in values for b in values]

    return grid


def _boxes(views: int) -> list[Parameters]:
    side = round(views**0.25)
    if side**4 != views:
        raise _no_grid(views, "a fourth power", [max(side - 1, 1) ** 4, (side + 1) ** 4])
    start, size = np.linspace(0, 64, side), np.linspace(192, 64, side)
    return [tuple(map(float, box)) for box in _product(start, start, size, size)]


def _product(*values: np.ndarray) -> list[tuple[float, ...]]:
    return [tuple(row) for row in np.stack(np.meshgrid(*values, indexing="ij"), -1).reshape(-1, len(values))]


def _deformations(views: int) -> list[Parameters]:
    if views > _DEFORMATIONS:
        raise _no_grid(views, f"at most {_DEFORMATIONS}", [_DEFORMATIONS])
    widths = np.linspace(10, 50, 8).astype(int)
    return [(float(widths[i % 8]), float(i)) for i in range(views)]


def _no_grid(views: int, rule: str, allowed: list[int]) -> Refused:
    return Refused(
        f"{views} views", f"This transform's grid has {rule}", f"use --views {' or '.join(map(str, allowed))}"
    )


def _switch(views: int) -> list[Parameters]:
    return [(0.0,), (1.0,)]


def _affine(view: Callable[[Parameters, Frame], Affine]) -> _Render:
    return lambda image, at, frame: geometric.affine(image, [view(p, frame) for p in at])


def _one(view: Callable[[torch.Tensor], torch.Tensor]) -> _Render:
    """Return the renderer of a transform that is either applied or not."""

    def render(image: torch.Tensor, at: Sequence[Parameters], frame: Frame) -> torch.Tensor:
        transformed = view(image) if any(p[0] for p in at) else image[None]
        return torch.cat([transformed if p[0] else image[None] for p in at])

    return render


def _factors(view: Callable[[torch.Tensor, Sequence[float]], torch.Tensor]) -> _Render:
    return lambda image, at, frame: view(image, [p[0] for p in at])


def _is(*neutral: float) -> Callable[[Parameters], bool]:
    return lambda at: at == neutral


_ROWS = (
    Transform(
        "rotation",
        ("degrees",),
        lambda k: _line(0, 360, k, end=False),
        _affine(lambda p, frame: Affine(angle=-p[0])),  # the study turns counter-clockwise
        _is(0.0),
    ),
    Transform(
        "translation",
        ("right", "down"),
        _square(-16, 16),
        _affine(lambda p, f: Affine(shift=(p[0] * f.unit, p[1] * f.unit), shear=(f.slant, 0.0))),
        _is(0.0, 0.0),
    ),
    Transform(
        "scale",
        ("factor",),
        lambda k: _line(0.25, 2, k),
        _affine(lambda p, f: Affine(scale=p[0], shear=(f.slant, 0.0))),
        _is(1.0),
    ),
    Transform(
        "shear",
        ("x_degrees", "y_degrees"),
        _square(-160, 160),
        _affine(lambda p, f: Affine(shear=(p[0], p[1]))),
        _is(0.0, 0.0),
    ),
    Transform(
        "resized_crop",
        ("top", "left", "height", "width"),
        _boxes,
        lambda image, at, f: geometric.crops(
            image, [(p[0] * f.unit, p[1] * f.unit, p[2] * f.unit, p[3] * f.unit) for p in at], f.side
        ),
        _is(0.0, 0.0, 256.0, 256.0),
    ),
    Transform(
        "h_flip", ("flipped",), _switch, _one(lambda x: geometric.flip(x, vertical=False)), _is(0.0), views=2
    ),
    Transform(
        "v_flip", ("flipped",), _switch, _one(lambda x: geometric.flip(x, vertical=True)), _is(0.0), views=2
    ),
    Transform(
        "deform",
        ("sigma", "draw"),
        _deformations,
        lambda image, at, f: geometric.deform(
            image, [p[0] for p in at], [int(p[1]) for p in at], 50 * f.unit
        ),
        lambda at: False,
    ),
    Transform(
        "grayscale", ("grey",), _switch, _one(photometric.grayscale), _is(0.0), views=2, needs_colour=True
    ),
    Transform(
        "brightness", ("factor",), lambda k: _line(0.25, 5, k), _factors(photometric.brightness), _is(1.0)
    ),
    Transform("contrast", ("factor",), lambda k: _line(0.25, 5, k), _factors(photometric.contrast), _is(1.0)),
    Transform(
        "saturation",
        ("factor",),
        lambda k: _line(0.25, 5, k),
        _factors(photometric.saturation),
        _is(1.0),
        needs_colour=True,
    ),
    Transform(
        "hue",
        ("turns",),
        lambda k: _line(-0.5, 0.5, k),
        _factors(photometric.hue),
        _is(0.0),
        needs_colour=True,
    ),
    Transform(
        "blur",
        ("sigma_px",),
        lambda k: _line(1e-5, 20, k),
        lambda image, at, f: geometric.gaussian_blur(image, [p[0] for p in at], BLUR_TAPS),
        lambda at: at[0] < _NO_BLUR,
    ),
    Transform("sharpness", ("factor",), lambda k: _line(1, 30, k), _factors(photometric.sharpness), _is(1.0)),
    Transform("invert", ("inverted",), _switch, _one(photometric.invert), _is(0.0), views=2),
    Transform("equalize", ("equalized",), _switch, _one(photometric.equalize), _is(0.0), views=2),
    Transform(
        "posterize",
        ("bits",),
        lambda k: [(float(bits),) for bits in range(1, 8)],
        lambda image, at, f: photometric.posterize(image, [int(p[0]) for p in at]),
        lambda at: False,
        views=7,
    ),
)

TRANSFORMS = {row.name: row for row in _ROWS}


def find_transform(name: str) -> Transform:
    """Return the transform with this name; raise Refused for an unknown one."""
    if name not in TRANSFORMS:
        raise Refused(f"transform {name!r}", f"It is one of {', '.join(TRANSFORMS)}, all", "choose one")
    return TRANSFORMS[name]


def is_grey(image: torch.Tensor) -> bool:
    """Return True if all pixels of uint8 [H, W, 3] are grey; some transforms leave such images unchanged."""
    return bool(grey_flag(image))


def grey_flag(image: torch.Tensor) -> torch.Tensor:
    """Return `is_grey` as a bool tensor [] on the image's device, without waiting for it."""
    return (image == image[..., :1]).all()
