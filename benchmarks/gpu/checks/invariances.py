"""Invariance on the device: views, statistics and whitening compared with the CPU, and their speed."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.gpu.floors import GEMM, MEMORY, UP, Bound
from benchmarks.gpu.suite import Context, Verdict, measurement, proof
from benchmarks.gpu.targets import WHITENING
from benchmarks.gpu.timing import per_second, seconds_each
from engine.kernels.covariance import moments
from engine.kernels.sample_moments import Arithmetic
from engine.kernels.transforms import TRANSFORMS, Frame
from engine.kernels.whitening import Regularisation, Whitening, fit_whitener
from engine.kernels.whitening_place import whitening_on
from engine.runtime import upload

#: Share of bytes that may differ from the CPU's views: ties of nearest pixels and of rounding.
_DIFFERING = 0.02
#: Largest difference of cosines from float64 on the CPU.
_LIMITS: dict[Arithmetic, float] = {"float64": 1e-9, "float32": 1e-3}
#: Arithmetic -> the matrix product that is its ceiling.
_PRECISIONS: dict[Arithmetic, str] = {"float64": "fp64", "float32": "fp32"}


def _picture(side: int) -> torch.Tensor:
    """Return an image of smooth colours with noise, uint8 [side, side, 3]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] * (12 / side)
    waves = np.stack([np.sin(x * a + y * b) for a, b in rng.uniform(-2, 2, (3, 2))], -1)
    return torch.from_numpy((128 + 80 * waves + rng.normal(0, 10, waves.shape)).clip(0, 255).astype(np.uint8))


def _features(rows: int, dim: int) -> NDArray[np.float16]:
    rng = np.random.default_rng(0)
    return np.asarray(np.abs(rng.standard_normal((rows, dim), np.float32) + 0.5), np.float16)


@proof("invariance: views made on the device, against the CPU", seconds=15, rank=7)
def views_agree(context: Context) -> Verdict:
    image, frame = _picture(context.side), Frame(context.side / 256, context.side)
    numbers: dict[str, Any] = {}
    for name, transform in TRANSFORMS.items():
        plan = transform.plan(16, identity=True)
        truth = transform.render(image, plan, frame).int()
        rendered = transform.render(image.to(context.device), plan, frame).cpu().int()
        numbers[name] = {"differing": float(((rendered - truth).abs() > 1).float().mean())}
    passed = all(n["differing"] <= _DIFFERING for n in numbers.values())
    return Verdict(numbers, passed, f"at most {_DIFFERING:.0%} of bytes more than a level apart")


@proof("invariance: covariance and whitening on the device, against the CPU", seconds=15, rank=6)
def whitening_agrees(context: Context) -> Verdict:
    features = _features(context.pick(40_000, 600), context.pick(512, 24))
    truth = fit_whitener(moments(features), Regularisation())
    images, views = features[:20], features[20:120].reshape(20, 5, -1)
    expected = Whitening(truth).agreement(images, views).cosine
    numbers: dict[str, Any] = {}
    for arithmetic, limit in _LIMITS.items():
        device_whitener = fit_whitener(
            moments(features, arithmetic=arithmetic, device=context.device),
            Regularisation(),
            arithmetic=arithmetic,
        )
        whitening = whitening_on(context.device, device_whitener, arithmetic=arithmetic)
        difference = float(np.abs(whitening.agreement(images, views).cosine - expected).max())
        numbers[arithmetic] = {"largest_difference": difference, "limit": limit}
    passed = all(n["largest_difference"] <= n["limit"] for n in numbers.values())
    return Verdict(numbers, passed, "cosines of the CPU in float64")


@proof("invariance: the whole evaluation on the device, against the CPU", seconds=30, rank=8)
def evaluation_agrees(context: Context) -> Verdict:
    from benchmarks.images import PHOTO
    from engine.embed.run import EmbedOptions, embed
    from engine.evals.invariance.bank import invariances_from_bank
    from engine.evals.invariance.options import InvarianceOptions

    manifest = context.manifest([PHOTO], 8, 40)
    options = InvarianceOptions(("rotation", "brightness", "h_flip"), images=4, views=context.pick(16, 4))
    spec = context.spec("random/resnet18")
    results: dict[str, list[Any]] = {}
    with tempfile.TemporaryDirectory(dir=context.work) as folder:
        # The same decoder on the CPU for both, so that only the device's arithmetic differs.
        embed_options = EmbedOptions(decoder="turbo")
        embed(manifest, [spec], Path(folder) / "bank", runtime=context.cpu, options=embed_options)
        for device in ("cpu", context.device):
            bank = Path(folder) / "bank"
            results[device] = invariances_from_bank(bank, spec.slug, options, device=device)
            _forget_views(bank)
    numbers = {
        a.transform: {"largest_difference": float(np.abs(a.cosine - b.cosine).max())}
        for a, b in zip(results["cpu"], results[context.device], strict=True)
    }
    passed = all(n["largest_difference"] < 0.02 for n in numbers.values())
    return Verdict(numbers, passed, "cosines at most 0.02 apart (features are stored in float16)")


def _forget_views(bank: Path) -> None:
    import shutil

    shutil.rmtree(bank / ".embank" / "views")


@measurement(WHITENING.check, seconds=15, rank=63)
def whitening_rate(context: Context) -> Verdict:
    """Measure the whitened cosines of views that are on the device: whitening, cosines and distances."""
    images, views, dim = context.pick((100, 256, 2048), (4, 8, 32))
    made = _features(context.pick(8192, 200) + images * views, dim)
    split = images * views
    viewed: Any = made[:split].reshape(images, views, dim)
    originals: Any = made[split : split + images]
    if context.on_cuda:
        viewed = upload(made[:split], context.device).view(images, views, dim)
        originals = upload(originals, context.device)
    numbers: dict[str, Any] = {"images": images, "views": views, "dim": dim}
    readings = []
    for arithmetic, precision in _PRECISIONS.items():
        whitener = fit_whitener(
            moments(made[split:], arithmetic=arithmetic, device=context.device),
            Regularisation(),
            arithmetic=arithmetic,
        )
        whitening = whitening_on(context.device, whitener, arithmetic=arithmetic)
        run = partial(whitening.agreement, originals, viewed)
        seconds = seconds_each(context.device, run, budget_s=context.pick(1.0, 0.02), warm_up=1)
        numbers[arithmetic] = {"ms": 1e3 * seconds.median}
        rows = images * (views + 1)
        formula = f"{rows:,} x {dim}^2 flop, triangular, {precision}"
        bound = Bound("gemm", GEMM[precision], 1.0 * rows * dim**2, formula)
        # float64 is the evaluation's arithmetic unless it is told otherwise.
        name = WHITENING.name if arithmetic == "float64" else f"{WHITENING.name} in {arithmetic}"
        readings.append(context.reading(name, 1e3 * seconds.median, "ms", bound))
    return Verdict(
        numbers, limit="features are on the device, the whitener is fitted before", readings=tuple(readings)
    )


@measurement("invariance: covariance against the matrix product's peak", seconds=30, rank=76)
def covariance_rate(context: Context) -> Verdict:
    rows, dim = context.pick(224_316, 1000), context.pick(2048, 32)
    features = _features(8192, dim)[np.arange(rows) % 8192]
    numbers: dict[str, Any] = {"rows": rows, "dim": dim}
    readings = []
    for arithmetic, precision in _PRECISIONS.items():
        run = partial(moments, features, arithmetic=arithmetic, device=context.device)
        seconds = seconds_each(context.device, run, budget_s=context.pick(4.0, 0.1), warm_up=1)
        flop = 2.0 * rows * dim**2
        numbers[arithmetic] = {"seconds": seconds.median, "tflops": flop / seconds.median / 1e12}
        bounds = (
            Bound("gemm", GEMM[precision], flop, f"2 x {rows:,} x {dim}^2 flop, {precision}"),
            Bound("copy", UP, 2.0 * rows * dim, f"{rows:,} x {dim} x 2 bytes to the device"),
        )
        readings.append(context.reading(f"covariance in {arithmetic}", seconds.median, "s", *bounds))
    return Verdict(numbers, limit="upload included", readings=tuple(readings))


@measurement("invariance: 256 views a second of one image", seconds=20, rank=78)
def views_rate(context: Context) -> Verdict:
    image = _picture(context.side).to(context.device)
    frame = Frame(context.side / 256, context.side)
    numbers: dict[str, Any] = {}
    readings = []
    size = 3 * context.side**2
    bound = Bound("memory", MEMORY, 2.0 * size, f"{size:,} bytes of a view read and written")
    for name, transform in TRANSFORMS.items():
        plan = transform.plan(context.pick(256, 16), identity=True)

        def run(transform: Any = transform, plan: Any = plan) -> None:
            transform.render(image, plan, frame)

        seconds = seconds_each(context.device, run, budget_s=context.pick(0.5, 0.02), warm_up=1)
        rate = per_second(len(plan), seconds).median
        numbers[name] = {"views_per_s": rate}
        readings.append(context.reading(f"views by {name}", rate, "views/s", bound))
    return Verdict(numbers, limit="faster than the backbone takes them", readings=tuple(readings))
