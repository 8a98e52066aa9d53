"""Options of saliency, and those that the study fixed."""

from dataclasses import dataclass, replace

from engine.errors import Refused
from engine.evals.saliency.fill import parse_fill
from stores.limits import check_seed, check_whole

MODES = ("default", "as-published")
BATCH_NORMS = ("eval", "train")
#: Largest side of the square in pixels, and largest number of images.
MAX_SIDE, MAX_IMAGES = 65_536, 100_000_000
#: Default number of images.
IMAGES = 8
#: Default stride on the CPU: 8 maps of a ResNet-50 take minutes on two cores, but hours at stride 1. It is a
#: fixed number, not chosen by timing, so that the same command finds its own maps again.
CPU_STRIDE = 8


@dataclass(frozen=True)
class SaliencyOptions:
    """Options of a saliency evaluation.

    Attributes:
        mode: `default`, or `as-published`: one image, 10 x 10 at stride 1, filled with 0 after normalisation.
        size, stride: of the square, pixels; a stride above 1 divides by how many squares cover a pixel. None
            takes `CPU_STRIDE` on the CPU (at most the size), else 1, the study's; see `on`.
        fill: `0` after normalisation, `mean` colour of the image, or `R,G,B`.
        batch_norm: `eval`, or `train`: the statistics of each occluded image alone (`as-published` only).
        images: how many, drawn by `seed` without replacement; None takes 8, or all if there are fewer.
        ids: these images instead.
        seed: of the draw.

    Raises:
        Refused: a value outside its range, or against the mode.
    """

    mode: str = "default"
    size: int = 10
    stride: int | None = None
    fill: str = "0"
    batch_norm: str = "eval"
    images: int | None = None
    ids: tuple[str, ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, words in (("mode", self.mode, MODES), ("batch norm", self.batch_norm, BATCH_NORMS)):
            if value not in words:
                raise Refused(f"{name} {value!r}", f"It is one of {', '.join(words)}", "choose one")
        parse_fill(self.fill)
        check_seed(self.seed)
        check_whole("size", self.size, 1, MAX_SIDE)
        if self.stride is not None:
            check_whole("stride", self.stride, 1, MAX_SIDE)
        if self.images is not None:
            check_whole("images", self.images, 1, MAX_IMAGES)
        if self.images is not None and self.ids:
            raise Refused("A number of images and their ids", "One of them decides", "give one of them")
        self._check_mode()

    def _check_mode(self) -> None:
        if self.mode == "default":
            if self.batch_norm == "train":
                raise Refused(
                    "batch norm train in mode default",
                    "A frozen backbone uses the statistics of its training",
                    "use --mode as-published, or leave --batch-norm out",
                )
            return
        count = self.images or len(self.ids) or 1
        stride = self.stride or 1
        if (self.size, stride, self.fill, count) != (10, 1, "0", 1):
            raise Refused(
                f"size {self.size}, stride {stride}, fill {self.fill}, {count} images, as published",
                "The study took one image, a 10 x 10 square, stride 1 and fill 0",
                "leave these options out, or use --mode default",
            )

    def on(self, cuda: bool) -> "SaliencyOptions":
        """Return these options with a stride, which depends on the kind of device where none was given."""
        if self.stride is not None:
            return self
        exact = cuda or self.mode == "as-published"
        return replace(self, stride=1 if exact else min(CPU_STRIDE, self.size))

    @property
    def wanted(self) -> int:
        """Images to draw."""
        return self.images or (IMAGES if self.mode == "default" else 1)
