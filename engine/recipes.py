"""Preprocessing as frozen data. A recipe describes what is done to an image; `engine.decode` renders it.

Preprocessing belongs to the weights: every model has a recipe, and the recipe's digest is part of the key
under which embeddings are stored.
"""

import hashlib
import json
import math
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from engine.errors import Refused
from stores.json_types import JsonObject

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_SD = (0.229, 0.224, 0.225)
#: CheXpert statistics that MoCo-CXR was trained with (moco_pretraining/moco of stanfordmlgroup/MoCo-CXR).
CXR_MEAN = (0.5020,) * 3
CXR_SD = (0.085585,) * 3
#: Of CLIP and its descendants (openai/CLIP, open_clip's OPENAI_DATASET_MEAN).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_SD = (0.26862954, 0.26130258, 0.27577711)

Resize = Literal["short", "exact"]
Interpolation = Literal["bicubic", "bilinear"]
Depth = Literal["refuse", "scale", "window", "voi"]
Normalise = Literal["mean_sd", "none", "histogram"]

#: Field -> the words it may have.
_WORDS = {
    "resize": get_args(Resize),
    "interpolation": get_args(Interpolation),
    "depth": get_args(Depth),
    "normalise": get_args(Normalise),
}
#: Side of an input in pixels, at most; no backbone needs more.
_MAX_SIDE = 8192
#: Size of a recipe's file in bytes, at most.
_MAX_BYTES = 1 << 20


@dataclass(frozen=True)
class Recipe:
    """A preprocessing specification.

    Attributes:
        resize: `short` scales the short side to `size` and keeps the aspect ratio (the long side becomes
            floor(long * size / short), as in torchvision); `exact` scales both sides to `size`.
        size: in pixels.
        crop: side of the central square cropped after resizing, in pixels; None crops nothing (only with
            `resize="exact"`).
        interpolation: antialiased `bicubic` (a = -0.5, as in Pillow) or `bilinear`.
        depth: how to render images with more than 8 bits a channel. `refuse` fails; `scale` maps the full
            range of the file's sample type (in DICOM, of the stored bits) linearly to 0-255; `window` maps
            [window[0], window[1]] to 0-255 and clips; `voi` applies the window or VOI LUT of a DICOM file,
            and fails if it has none. Images of 8 bits or fewer are rendered alike by all of them, except
            DICOM files with a window by `voi`.
        window: values (low, high) for `depth="window"`: stored samples, in DICOM files after their rescale
            (Hounsfield units in CT).
        deep: fallback rules for images of more than 8 bits that `depth` cannot render, in the order in which
            they are tried: `scale`, `voi` or `window:LOW,HIGH`. They only add embeddings to rows that would
            have none, so they are not part of a feature's key.
        exif: rotate the image as its EXIF or else XMP metadata say, in every format. If False, no image is
            rotated, as in Pillow's and the study's pipelines.
        normalise: `mean_sd` on values in 0-1; `none` leaves values in 0-1; `histogram` as for MIMIC-CheXpert
            (256 bins, cumulative, result in (0, 255]).
        mean, sd: per RGB channel, for `mean_sd`.

    Raises:
        Refused: a field is outside its range, or two fields contradict each other.
    """

    resize: Resize = "short"
    size: int = 224
    crop: int | None = 224
    interpolation: Interpolation = "bicubic"
    depth: Depth = "refuse"
    window: tuple[float, float] | None = None
    exif: bool = False
    normalise: Normalise = "mean_sd"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    sd: tuple[float, float, float] = IMAGENET_SD
    deep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, words in _WORDS.items():
            if getattr(self, name) not in words:
                raise _refused(name, getattr(self, name), f"It is one of {', '.join(words)}")
        if not isinstance(self.exif, bool):
            raise _refused("exif", self.exif, "It is true or false")
        self._check_sides()
        # A canonical form of each number, so that equal recipes have equal digests.
        object.__setattr__(self, "mean", _numbers("mean", self.mean, 3))
        object.__setattr__(self, "sd", _numbers("sd", self.sd, 3))
        if min(self.sd) <= 0:
            raise _refused("sd", self.sd, "Standard deviations are positive")
        self._check_window()
        object.__setattr__(self, "deep", tuple(map(_rule, self.deep)))

    def _check_sides(self) -> None:
        if not _is_side(self.size):
            raise _refused("size", self.size, f"It is a whole number of pixels from 1 to {_MAX_SIDE}")
        if self.crop is None:
            if self.resize == "short":
                raise _refused("crop", None, 'Without a crop, resize="short" gives rectangles of all shapes')
        elif not _is_side(self.crop) or self.crop > self.size:
            raise _refused("crop", self.crop, f"It is a whole number of pixels from 1 to size ({self.size})")

    def _check_window(self) -> None:
        if (self.depth == "window") != (self.window is not None):
            raise _refused("window", self.window, 'A window goes with depth="window", and only with it')
        if self.window is not None:
            object.__setattr__(self, "window", _numbers("window", self.window, 2))
            if self.window[0] >= self.window[1]:
                raise _refused("window", self.window, "Its low end is below its high end")

    @property
    def side(self) -> int:
        """Side of the model's square input, in pixels."""
        return self.size if self.crop is None else self.crop

    @property
    def rendering(self) -> "Recipe":
        """The part that a decoder renders: this recipe without its normalisation.

        Models with equal renderings share one decode pass and normalise separately.
        """
        return replace(self, normalise="none", mean=IMAGENET_MEAN, sd=IMAGENET_SD)

    def at(self, side: int) -> "Recipe":
        """Return this recipe for another input side in pixels, with the same ratio of crop to size."""
        size = side if self.crop is None else max(side, self.size * side // self.crop)
        return replace(self, size=size, crop=None if self.crop is None else side)

    def showing(self, depth: str) -> "Recipe":
        """Return this recipe with another `depth`: `refuse`, `scale`, `voi` or `window:LOW,HIGH`.

        Raises:
            Refused: the text is none of these.
        """
        name, _, bounds = depth.partition(":")
        window: Any = tuple(bounds.split(",")) if bounds else None
        return replace(self, depth=name, window=window)  # type: ignore[arg-type]  # checked there

    @property
    def rules(self) -> tuple["Recipe", ...]:
        """Recipes to try on a deep image, in order, with one `depth` each; without any, it is refused."""
        single = replace(self, deep=())
        main_rule = () if self.depth == "refuse" else (single,)
        return main_rule + tuple(single.showing(word) for word in self.deep)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of all fields."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    @property
    def key_digest(self) -> str:
        """The recipe's part of a feature's key: the digest without `deep`."""
        return replace(self, deep=()).digest

    def to_dict(self) -> JsonObject:
        """Return all fields as JSON types, `deep` only if not empty; the inverse of `from_dict`."""
        body = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}
        if not self.deep:  # recipes of earlier versions keep their digests
            del body["deep"]
        return body

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Recipe":
        """Build a recipe from JSON types; missing fields take their defaults.

        Raises:
            Refused: an unknown field, or a value that `Recipe` refuses.
        """
        known = [f.name for f in fields(cls)]
        for name in values:
            if name not in known:
                raise Refused(
                    f"recipe field {name!r}",
                    f"A recipe has the fields {', '.join(known)}",
                    "correct the name",
                )
        arguments: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**arguments)


def _refused(field: str, value: object, rule: str) -> Refused:
    return Refused(
        f"recipe field {field} = {value!r}", rule, f"correct {field}, or start from a named recipe"
    )


def _rule(word: object) -> str:
    """Return the canonical form of a rule of `deep`."""
    name, _, bounds = str(word).partition(":")
    if name not in ("scale", "voi", "window") or (name == "window") != bool(bounds):
        raise _refused("deep", word, "Each rule is one of scale, voi, window:LOW,HIGH")
    if name != "window":
        return name
    low, high = _numbers("deep", bounds.split(","), 2)
    if low >= high:
        raise _refused("deep", word, "The low end of a window is below its high end")
    return f"window:{low!r},{high!r}".replace(".0,", ",").removesuffix(".0")


def _is_side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= _MAX_SIDE


def _numbers(field: str, values: Any, count: int) -> Any:
    """Return `count` finite floats as a tuple, or raise Refused."""
    try:
        numbers = tuple(float(v) for v in values)
    except (TypeError, ValueError, OverflowError):
        numbers = ()
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise _refused(field, values, f"It is {count} finite numbers")
    return numbers


#: The recipe of torchvision's ImageNet weights and of most of the study's.
DEFAULT_RECIPE = "imagenet-224"

RECIPES: Mapping[str, Recipe] = {
    "imagenet-224": Recipe(),
    "imagenet-128": Recipe(size=128, crop=128),
    # torchvision's evaluation of its weights.
    "imagenet-256-224-bilinear": Recipe(size=256, crop=224, interpolation="bilinear"),
    # SimCLR: values in 0-1, no normalisation.
    "unit-224": Recipe(normalise="none"),
    # MIMIC-CheXpert.
    "histogram-224": Recipe(normalise="histogram"),
    # MoCo-CXR: as trained, and with the same constants at the study's size.
    "cxr-320": Recipe(size=320, crop=320, mean=CXR_MEAN, sd=CXR_SD),
    "cxr-224": Recipe(mean=CXR_MEAN, sd=CXR_SD),
    # BiomedCLIP.
    "clip-224": Recipe(mean=CLIP_MEAN, sd=CLIP_SD),
    # DINOv2's and DINOv3's image processors in transformers.
    "imagenet-256-224": Recipe(size=256, crop=224),
    "imagenet-exact-224-bilinear": Recipe(resize="exact", crop=None, interpolation="bilinear"),
    # EfficientNet-Lite's own evaluation: a central crop of 224/256, bicubic, (x - 127) / 128 of 0-255.
    "lite-256-224": Recipe(size=256, crop=224, mean=(127 / 255,) * 3, sd=(128 / 255,) * 3),
    # RAD-DINO: grey statistics of chest X-rays.
    "rad-dino-518": Recipe(size=518, crop=518, mean=(0.5307,) * 3, sd=(0.2583,) * 3),
    # torchxrayvision: maps 0-255 to -1024 to 1024, i.e. (p / 255 - 1/2) / (1 / 2048).
    "xrv-224": Recipe(mean=(0.5,) * 3, sd=(1 / 2048,) * 3),
}


def _read(path: Path) -> bytes:
    """Read a recipe's file; raise OSError for anything but a regular file of moderate size."""
    state = path.stat()
    if not stat.S_ISREG(state.st_mode):  # checked first: opening a FIFO blocks, and a device may never end
        raise OSError("it is no regular file")
    if state.st_size > _MAX_BYTES:
        raise OSError(f"{state.st_size} bytes are more than any recipe has")
    return path.read_bytes()


def load_recipe(name_or_file: str | Path) -> Recipe:
    """Return a named recipe, or read one from a JSON file of `Recipe` fields.

    Raises:
        Refused: neither a known name nor a readable JSON object, or its fields are refused.
    """
    if str(name_or_file) in RECIPES:
        return RECIPES[str(name_or_file)]
    path = Path(name_or_file)
    if path.suffix != ".json":
        raise Refused(
            f"recipe {str(name_or_file)!r}",
            f"A recipe is one of {', '.join(RECIPES)}, or a file whose name ends in .json",
            "choose one",
        )
    try:
        values = json.loads(_read(path).decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise Refused(
            f"recipe file {path}: {error}",
            "It holds one JSON object",
            "write the file as `Recipe.to_dict` gives it",
        ) from error
    if not isinstance(values, dict):
        raise Refused(
            f"recipe file {path} holds a {type(values).__name__}",
            "It holds one JSON object",
            "write the file as `Recipe.to_dict` gives it",
        )
    return Recipe.from_dict(values)
