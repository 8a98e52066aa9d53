"""Options of invariance, and the draw of the images to score and of those that give the covariance."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.kernels.sample_moments import Arithmetic
from engine.kernels.whitening import Regularisation
from stores.limits import check_seed, check_whole

Mode = Literal["default", "as-published"]
#: Default number of scored images; at most half of a small bank, since the rest gives the covariance.
IMAGES = 100
#: Fewest scored images for which a number is given; an average over fewer says little about the model.
LEAST_IMAGES = 10
#: Most views of an image; all of them are in memory at a time.
MAX_VIEWS, MAX_IMAGES = 100_000, 100_000_000
#: Ridge of the study's code, and its rule for the images that the covariance is taken from.
_PUBLISHED_RIDGE, _PUBLISHED_LEAST, _PUBLISHED_SHARE = 1e-6, 1000, 0.1


@dataclass(frozen=True)
class InvarianceOptions:
    """Options of invariance to synthetic transforms.

    Attributes:
        transforms: names of `engine.kernels.transforms`.
        images: how many to score; None is `IMAGES`, or half of a bank of fewer than twice as many.
        views: of an image under each transform, where the transform does not fix their number.
        regularisation: of the covariance; None is Ledoit-Wolf, or the study's ridge as published.
        arithmetic: of the products; the factor is float64 either way.
        mode: `default`, or `as-published`.
        batch_norm: `train` only as published.
        seed: of the images drawn.
    """

    transforms: tuple[str, ...]
    images: int | None = None
    views: int = 256
    regularisation: Regularisation | None = None
    arithmetic: Arithmetic = "float64"
    mode: Mode = "default"
    batch_norm: Literal["eval", "train"] = "eval"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode not in ("default", "as-published"):
            raise Refused(f"mode {self.mode!r}", "It is default or as-published", "choose one")
        if self.batch_norm not in ("eval", "train"):
            raise Refused(f"batch-norm {self.batch_norm!r}", "It is eval or train", "choose one")
        if self.batch_norm == "train" and not self.published:
            raise Refused(
                "batch-norm train in mode default",
                "A frozen backbone uses the statistics it was trained with",
                "use --mode as-published, which can reproduce the study's code",
            )
        if not self.transforms or len(set(self.transforms)) != len(self.transforms):
            raise Refused(
                f"transforms {list(self.transforms)}", "Each is named once", "name at least one, each once"
            )
        check_seed(self.seed)
        check_whole("views", self.views, 1, MAX_VIEWS, "256 are the default")
        if self.images is not None:
            check_whole("images", self.images, 1, MAX_IMAGES, "100 are the default")

    @property
    def published(self) -> bool:
        return self.mode == "as-published"

    @property
    def how(self) -> Regularisation:
        ridge = Regularisation("ridge", _PUBLISHED_RIDGE)
        return self.regularisation or (ridge if self.published else Regularisation())


@dataclass(frozen=True)
class MultiViewOptions:
    """Options of multi-view invariance: the views to pair, and the comparison.

    Attributes:
        pair: the two values of the view column, e.g. ("lateral", "frontal"); None takes the only two there
            are. Every image of the first view is paired with the first image of the second view in its study.
        images: pairs drawn, without replacement; None takes all.
        same_label: only pairs whose two images have one label, as the study pairs eyes.
        regularisation, arithmetic, seed: as for synthetic transforms.

    Raises:
        Refused: a value out of range, or a pair that is none.
    """

    pair: tuple[str, str] | None = None
    images: int | None = None
    same_label: bool = False
    regularisation: Regularisation = Regularisation()  # noqa: RUF009 - frozen
    arithmetic: Arithmetic = "float64"
    seed: int = 0

    def __post_init__(self) -> None:
        check_seed(self.seed)
        if self.pair is not None and (len(self.pair) != 2 or self.pair[0] == self.pair[1]):
            raise Refused(
                f"pair {self.pair!r}", "It is two different views", "name two, e.g. lateral, frontal"
            )


@dataclass(frozen=True)
class Sample:
    """Rows of the images that are scored, and of those that give the covariance.

    Attributes:
        scored: rows, in the order drawn as published (then perhaps repeated), else ascending.
        covariance: rows that mean and covariance come from.
    """

    scored: NDArray[np.intp]
    covariance: NDArray[np.intp]


def draw(ok: NDArray[np.bool_], groups: NDArray[np.int64], options: InvarianceOptions) -> Sample:
    """Draw images to score. By default none is used twice, and the covariance sees no patient that is scored.

    Args:
        ok: bool [N], rows with an embedding; groups: [N], see `compact_groups`.

    Raises:
        Refused: fewer images than asked for, or none left for the covariance.
    """
    rows, stream = np.flatnonzero(ok), np.random.default_rng(options.seed)
    if options.published:
        return _draw_published(rows, options, stream)
    wanted = options.images or max(1, min(IMAGES, len(rows) // 2))
    if wanted > len(rows):
        raise Refused(
            f"{wanted} images to score of {len(rows)} with an embedding",
            "None is scored twice",
            "lower --images",
        )
    scored = np.sort(stream.permutation(rows)[:wanted])
    unscored = rows[~np.isin(groups[rows], groups[scored])]
    if len(unscored) < 2:
        raise Refused(
            f"{len(unscored)} images are of no patient among the {wanted} scored images (of {len(rows)})",
            "The covariance comes from other patients than the scored images",
            "lower --images, or add images",
        )
    return Sample(scored, unscored)


def _draw_published(
    rows: NDArray[np.intp], options: InvarianceOptions, stream: np.random.Generator
) -> Sample:
    if len(rows) < 2:
        raise Refused(f"{len(rows)} images with an embedding", "A covariance needs two", "add images")
    covariance = rows
    if len(rows) >= _PUBLISHED_LEAST:
        count = max(_PUBLISHED_LEAST, int(_PUBLISHED_SHARE * len(rows)))
        covariance = np.sort(stream.choice(rows, count))
    return Sample(stream.choice(rows, options.images or IMAGES), covariance)
