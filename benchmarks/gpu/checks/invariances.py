"""Invariance on the device: views, statistics and whitening compared with the CPU, and their speed."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.gpu.suite import Context, Verdict, measurement, proof
from benchmarks.gpu.timing import gemm_rate, per_second, seconds_each
from engine.kernels.covariance import Arithmetic, moments
from engine.kernels.transforms import TRANSFORMS, Frame
from engine.kernels.whitening import Regularisation, Whitening, agreement, fit_whitener

#: Share of bytes that may differ from the CPU's views: ties of nearest pixels and of rounding.
_DIFFERING = 0.02
#: Largest difference of cosines from float64 on the CPU.
_LIMITS: dict[Arithmetic, float] = {"float64": 1e-9, "float32": 1e-3}


def _picture(side: int) -> torch.Tensor:
    """Return an image of smooth colours with noise, uint8 [side, side, 3]."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side] * (12 / side)
    waves = np.stack([np.sin(x * a + y * b) for a, b in rng.uniform(-2, 2, (3, 2))], -1)
    return torch.from_numpy((128 + 80 * waves + rng.normal(0, 10, waves.shape)).clip(0, 255).astype(np.uint8))


def _features(rows: int, dim: int) -> NDArray[np.float16]:
    rng = np.random.default_rng(0)
    return np.asarray(np.abs(rng.standard_normal((rows, dim), np.float32) + 0.5), np.float16)


@proof("invariance: views made on the device, against the CPU", seconds=20, rank=42)
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


@proof("invariance: covariance and whitening on the device, against the CPU", seconds=20, rank=43)
def whitening_agrees(context: Context) -> Verdict:
    features = _features(context.pick(40_000, 600), context.pick(512, 24))
    truth = fit_whitener(moments(features), Regularisation())
    images, views = features[:20], features[20:120].reshape(20, 5, -1)
    expected = agreement(Whitening(truth), images, views).cosine
    numbers: dict[str, Any] = {}
    for arithmetic, limit in _LIMITS.items():
        device_whitener = fit_whitener(
            moments(features, arithmetic=arithmetic, device=context.device),
            Regularisation(),
            arithmetic=arithmetic,
        )
        whitening = Whitening(device_whitener, arithmetic=arithmetic, device=context.device)
        difference = float(np.abs(agreement(whitening, images, views).cosine - expected).max())
        numbers[arithmetic] = {"largest_difference": difference, "limit": limit}
    passed = all(n["largest_difference"] <= n["limit"] for n in numbers.values())
    return Verdict(numbers, passed, "cosines of the CPU in float64")


@proof("invariance: the whole evaluation on the device, against the CPU", seconds=90, rank=44)
def evaluation_agrees(context: Context) -> Verdict:
    from benchmarks.images import PHOTO
    from engine.embed.run import EmbedOptions, embed
    from engine.evals.invariance.bank import invariances_from_bank
    from engine.evals.invariance.options import InvarianceOptions

    manifest = context.manifest([PHOTO], 8, 40)
    options = InvarianceOptions(("rotation", "brightness", "h_flip"), images=4, views=context.pick(64, 4))
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


@measurement("invariance: covariance against the matrix product's peak", seconds=30, rank=67)
def covariance_rate(context: Context) -> Verdict:
    rows, dim = context.pick(224_316, 1000), context.pick(2048, 32)
    features = _features(rows, dim)
    numbers: dict[str, Any] = {"rows": rows, "dim": dim}
    for arithmetic, dtype in (("float64", torch.float64), ("float32", torch.float32)):

        def run(arithmetic: Any = arithmetic) -> None:
            moments(features, arithmetic=arithmetic, device=context.device)

        seconds = seconds_each(context.device, run, budget_s=context.pick(5.0, 0.1), warm_up=1)
        rate = per_second(2.0 * rows * dim**2, seconds)
        peak = gemm_rate(context.device, dtype, context.pick(8192, 64), budget_s=context.pick(2.0, 0.1))
        numbers[arithmetic] = {
            "seconds": seconds.median,
            "tflops": rate.median / 1e12,
            "peak_tflops": peak.median / 1e12,
            "of_peak": rate.median / peak.median,
        }
    return Verdict(numbers, limit="80 % of the peak once features are on the device; upload included here")


@measurement("invariance: 256 views a second of one image", seconds=30, rank=68)
def views_rate(context: Context) -> Verdict:
    image = _picture(context.side).to(context.device)
    frame = Frame(context.side / 256, context.side)
    numbers: dict[str, Any] = {}
    for name, transform in TRANSFORMS.items():
        plan = transform.plan(context.pick(256, 16), identity=True)

        def run(transform: Any = transform, plan: Any = plan) -> None:
            transform.render(image, plan, frame)

        seconds = seconds_each(context.device, run, budget_s=context.pick(0.5, 0.02), warm_up=1)
        numbers[name] = {"views_per_s": per_second(len(plan), seconds).median}
    return Verdict(numbers, limit="faster than the backbone takes them")
