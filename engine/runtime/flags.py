"""Torch's global switches that change the bits of results."""

import contextlib
from collections.abc import Iterator

from engine.runtime.devices import device_number
from engine.runtime.settings import Runtime


@contextlib.contextmanager
def autocast(runtime: Runtime) -> Iterator[None]:
    """Run the body in inference mode, with mixed precision unless the runtime's precision is fp32."""
    import torch

    with torch.inference_mode(), mixed_precision(runtime):
        yield


@contextlib.contextmanager
def mixed_precision(runtime: Runtime) -> Iterator[None]:
    """Run the body with mixed precision, unless the runtime's precision is fp32; gradients may be taken."""
    import torch

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(runtime.precision)
    if dtype is None:
        yield
    else:
        with torch.autocast(runtime.torch_device.type, dtype=dtype):
            yield


@contextlib.contextmanager
def private_generators(runtime: Runtime) -> Iterator[None]:
    """Restore torch's global random generators, of the CPU and of the runtime's device, after the body."""
    import torch

    with torch.random.fork_rng(devices=[device_number(runtime.device)] if runtime.on_cuda else []):
        yield


def fix_flags(runtime: Runtime) -> dict[str, int | bool]:
    """Set the global switches that change bits, and return them for the record.

    TF32 is off, so that float32 products are float32. cuDNN chooses algorithms by shape only, never by timing
    (`benchmark` is off), and nondeterministic algorithms are excluded, so that a resumed run gives the same
    bits. On the CPU only the number of threads is set; the other switches have no effect.
    """
    import torch

    torch.set_num_threads(runtime.threads)
    if runtime.on_cuda:
        torch.cuda.set_device(runtime.torch_device)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
    return {"threads": runtime.threads, "tf32": False, "cudnn_benchmark": False, "cudnn_deterministic": True}


@contextlib.contextmanager
def plain_flags(*, tf32_matmul: bool = False) -> Iterator[None]:
    """Run the body with torch's defaults: TF32 convolutions, any algorithm.

    For measuring what a script without settings would get. The previous settings are restored afterwards.

    Args:
        tf32_matmul: allow TF32 in matrix products as well, which is off by default.
    """
    with _cuda_flags(matmul_tf32=tf32_matmul, cudnn_tf32=True, deterministic=False):
        yield


@contextlib.contextmanager
def exact_flags() -> Iterator[None]:
    """Run the body without TF32 and with deterministic algorithms; restore the previous settings afterwards.

    For reference values in a process that may not have called `fix_flags`.
    """
    with _cuda_flags(matmul_tf32=False, cudnn_tf32=False, deterministic=True):
        yield


@contextlib.contextmanager
def _cuda_flags(*, matmul_tf32: bool, cudnn_tf32: bool, deterministic: bool) -> Iterator[None]:
    import torch

    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic
    matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = (
        matmul_tf32,
        cudnn_tf32,
        False,
        deterministic,
    )
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = before


@contextlib.contextmanager
def float32_products() -> Iterator[None]:
    """Compute float32 products of the body without TF32; restore the previous setting afterwards."""
    import torch

    matmul = torch.backends.cuda.matmul
    before, matmul.allow_tf32 = matmul.allow_tf32, False
    try:
        yield
    finally:
        matmul.allow_tf32 = before
