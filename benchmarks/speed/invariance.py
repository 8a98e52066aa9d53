"""Covariance of stored features compared with the peak of matrix products; whitening with the study's loop.

The covariance reads float16 features once, as from a bank. Its rate counts 2 n d^2 operations, which a plain
product X^T X needs; the symmetric product does half of them. The peak is a square product of numpy in the
same arithmetic. The study's loop takes one view at a time: a product with the factor in float32, torch's
cosine, SciPy's Mahalanobis distance with the inverse in float64; it is timed on a part of the views.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed.common import Spread, finish, interleaved, machine, markdown_table, parser, ratio
from engine.kernels.covariance import moments
from engine.kernels.sample_moments import Arithmetic
from engine.kernels.whitening import Regularisation, fit_whitener
from engine.kernels.whitening_place import whitening_on

ARITHMETICS: tuple[Arithmetic, ...] = ("float64", "float32")


def run(
    rows: int, dim: int, images: int, views: int, looped: int, repeats: int, device: str = "cpu"
) -> dict[str, Any]:
    """Time the covariance of `rows` x `dim`, and cosines and distances of `images` x `views` views.

    Args:
        rows, dim: of the features.
        images, views: number of images, and of views of each.
        looped: views that the study's loop is timed on.
        repeats: rounds.
        device: of the kernels.

    Returns:
        `{..., covariance: {arithmetic: {seconds, flops, peak, of_peak}}, whitening: {arithmetic: {seconds,
        loop_seconds, times_as_fast, largest_difference}}}`: spreads {n, median, min, max}; loop_seconds are
        for all views; differences are between cosines and the loop's.
    """
    rng = np.random.default_rng(0)
    stored = _features(rng, rows, dim)
    asked = {"rows": rows, "dim": dim, "images": images, "views": views, "looped": looped}
    return {
        **asked,
        "device": device,
        "rounds": repeats,
        "machine": machine(),
        "covariance": {a: _covariance(stored, a, repeats, device) for a in ARITHMETICS},
        "whitening": _whitening(rng, stored[: 4 * dim], images, views, looped, repeats, device),
    }


def _features(rng: np.random.Generator, rows: int, dim: int) -> NDArray[np.float16]:
    """Return features like pooled ReLU outputs: correlated and not negative."""
    mix = (rng.standard_normal((dim, dim), np.float32) / np.sqrt(dim) + np.eye(dim, dtype=np.float32)) / 2
    features = np.empty((rows, dim), np.float16)
    for start in range(0, rows, 8192):
        block = features[start : start + 8192]
        block[...] = np.abs(rng.standard_normal(block.shape, np.float32) @ mix + 0.5)
    return features


def _covariance(
    stored: NDArray[np.float16], arithmetic: Arithmetic, repeats: int, device: str
) -> dict[str, Any]:
    dim = stored.shape[1]
    a = np.random.default_rng(1).standard_normal((2 * dim, dim)).astype(arithmetic)
    b = a.copy()  # with a single array, numpy would compute a symmetric product
    products = max(1, len(stored) // (8 * len(a)))

    def peak() -> None:
        for _ in range(products):
            a.T @ b

    contenders: dict[str, Callable[[], Any]] = {
        "ours": lambda: moments(stored, arithmetic=arithmetic, device=device),
        "peak": peak,
    }
    seconds = interleaved(contenders, rounds=repeats)
    work, of_peak = 2.0 * len(stored) * dim**2, 2.0 * products * len(a) * dim**2
    ours, best = [work / s for s in seconds["ours"]], [of_peak / s for s in seconds["peak"]]
    return {
        "seconds": Spread.of(seconds["ours"]),
        "flops": Spread.of(ours),
        "peak": Spread.of(best),
        "of_peak": ratio(ours, best),
    }


def _whitening(
    rng: np.random.Generator,
    sample: NDArray[np.float16],
    images: int,
    views: int,
    looped: int,
    repeats: int,
    device: str,
) -> dict[str, Any]:
    truth = fit_whitener(moments(sample), Regularisation())
    dim = sample.shape[1]
    image_features = sample[:images].astype(np.float32)
    view_features = image_features[:, None] + 0.3 * rng.standard_normal((images, views, dim), np.float32)
    inverse = np.asarray(np.linalg.inv(truth.factor @ truth.factor.T), np.float64)
    reference = _loop(truth.mean, inverse, image_features, view_features, looped)
    scale = images * views / looped
    contenders: dict[str, Callable[[], Any]] = {
        "loop": lambda: _loop(truth.mean, inverse, image_features, view_features, looped)
    }
    cosines: dict[str, NDArray[np.float64]] = {}
    for arithmetic in ARITHMETICS:
        contenders[arithmetic] = partial(
            whitening_on(device, truth, arithmetic=arithmetic).agreement, image_features, view_features
        )
        cosines[arithmetic] = contenders[arithmetic]().cosine
    seconds = interleaved(contenders, rounds=repeats, warm_up=False)
    loop = [s * scale for s in seconds["loop"]]
    return {
        arithmetic: {
            "seconds": Spread.of(seconds[arithmetic]),
            "loop_seconds": Spread.of(loop),
            "times_as_fast": ratio(loop, seconds[arithmetic]),
            "largest_difference": float(np.abs(cosines[arithmetic].ravel()[:looped] - reference).max()),
        }
        for arithmetic in ARITHMETICS
    }


def _loop(
    mean: NDArray[np.float64],
    inverse: NDArray[np.float64],
    images: NDArray[np.float32],
    views: NDArray[np.float32],
    count: int,
) -> NDArray[np.float64]:
    """Return cosines of the first `count` views, computed one by one as in the study's code."""
    import torch
    from scipy.spatial.distance import mahalanobis

    factor = torch.from_numpy(np.linalg.cholesky(inverse)).float()
    centre = torch.from_numpy(mean).float()
    cosines = np.empty(count)
    for position in range(count):
        i, j = divmod(position, views.shape[1])
        image, view = torch.from_numpy(images[i]), torch.from_numpy(views[i, j])
        if j == 0:
            a = (centre - image)[None] @ factor
        b = (centre - view) @ factor
        cosines[position] = float(torch.nn.functional.cosine_similarity(a, b, dim=-1).mean())
        mahalanobis(images[i], views[i, j], inverse)
    return cosines


def _table(result: dict[str, Any]) -> str:
    giga = 1e9
    lines = [
        [name, str(c["seconds"]), _scaled(c["flops"], giga), _scaled(c["peak"], giga), str(c["of_peak"])]
        for name, c in result["covariance"].items()
    ]
    head = f"covariance of {result['rows']:,} x {result['dim']:,}, {result['rounds']} rounds\n\n"
    text = head + markdown_table(["products", "seconds", "GFLOP/s", "peak GFLOP/s", "of the peak"], lines)
    lines = [
        [name, str(w["seconds"]), str(w["loop_seconds"]), str(w["times_as_fast"]), w["largest_difference"]]
        for name, w in result["whitening"].items()
    ]
    head = f"\n{result['images']} images x {result['views']} views, d = {result['dim']:,}\n\n"
    columns = ["products", "seconds", "the study's loop", "times as fast", "largest difference"]
    return text + head + markdown_table(columns, lines)


def _scaled(spread: Spread, unit: float) -> str:
    return str(Spread(spread.n, spread.median / unit, spread.min / unit, spread.max / unit))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = parser(__doc__ or "")
    options.add_argument("--rows", type=int, default=224_316)
    options.add_argument("--dim", type=int, default=2048)
    options.add_argument("--images", type=int, default=100)
    options.add_argument("--views", type=int, default=256)
    options.add_argument("--looped", type=int, default=1024, help="views that the study's loop is timed on")
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--device", default="cpu")
    args = options.parse_args(argv)
    sizes = (args.rows, args.dim, args.images, args.views, args.looped, args.repeats)
    result = run(*sizes, device=args.device)
    finish(result, _table(result), args)


if __name__ == "__main__":
    main()
