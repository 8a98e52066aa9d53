"""The encoder: uint8 pixels in, float32 features out, through a frozen backbone.

A feature depends on its image alone. On the CPU this needs care: torch and oneDNN choose how to split a
convolution by the batch size and the number of threads, and each choice rounds differently. Therefore a batch
is cut into tiles of `TILE` images, the last one padded, and each tile runs on one thread: every image goes
through the same operations in the same order, whatever the batch, its neighbours and the number of threads.
This is also faster than many threads on one tile, and uses `threads` cores if a batch has `threads * TILE`
images. On CUDA the engine fixes the batch size instead.
"""

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn

from engine import faults
from engine.errors import ModelError, WeightsError
from engine.models.backbones import architecture_cache, architectures
from engine.models.catalog.lookup import ModelSpec
from engine.models.checkpoints import weights
from engine.models.forward import fx_fusion
from engine.normalise import normalise
from engine.runtime import Runtime, autocast
from stores.json_types import JsonObject

#: Images in one forward pass of one thread on the CPU.
TILE = 4

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def load(spec: ModelSpec, runtime: Runtime) -> "Encoder":
    """Build the backbone, fill it with its weights, and make it ready on the runtime's device.

    Raises:
        ModelError: the architecture cannot be built here, or differs from the specification.
        WeightsError: the weights changed since `resolve`, or do not fit.
    """
    layer, _ = architectures.layer(spec.architecture)
    if layer != spec.layer:
        raise _outdated(spec, f"gives the layer {layer}", spec.layer)
    module, report = build_with_weights(spec)
    return Encoder(spec, runtime, module, report)


def _outdated(spec: ModelSpec, actual: str, expected: object) -> ModelError:
    """Delete the cached facts of an architecture, one of which is wrong, and return the error to raise."""
    architecture_cache.forget(spec.architecture)
    return ModelError(
        f"{spec.architecture} {actual}",
        f"{expected} was expected when the model was resolved",
        "run the same command again, which asks anew",
    )


def build_with_weights(spec: ModelSpec) -> tuple[nn.Module, weights.LoadReport]:
    """Build the headless backbone in float32 on the CPU and fill it with its weights.

    Raises:
        ModelError, WeightsError: as `load`.
    """
    seed = 0 if spec.seed is None else spec.seed
    module = architectures.build_seeded(spec.architecture, seed)
    if spec.weights_path is not None:
        where = str(spec.weights_path)
        tensors = weights.read(spec.weights_path, spec.weights_sha256)
        tensors = architectures.rename_tensors(spec.architecture, tensors, where)
        head = architectures.head_prefixes(spec.architecture)
        return module, weights.fit(architectures.body(module), tensors, head, where)
    state = module.state_dict()
    drawn = weights.state_sha256(state)
    if drawn != spec.weights_sha256:
        architecture_cache.forget(spec.architecture)
        raise WeightsError(
            f"Seed {spec.seed} gives weights {drawn}",
            f"{spec.weights_sha256} was expected: another release of torch draws other numbers",
            "resolve the model again, or use the release named in the bank's provenance",
        )
    return module, weights.LoadReport(tensors=len(state))


class Encoder:
    """A frozen backbone, and normalisation, the last step of its preprocessing.

    Args:
        spec: of the model.
        runtime: device, precision and threads.
        module: headless backbone with its weights, see `architectures.build`.
        report: how they were loaded.

    Attributes:
        spec, runtime: as given.
        dim: length of a feature.
    """

    def __init__(
        self, spec: ModelSpec, runtime: Runtime, module: nn.Module, report: weights.LoadReport
    ) -> None:
        self.spec, self.runtime, self.dim = spec, runtime, spec.dim
        self._report = report
        reduced = runtime.precision != "fp32"
        module = module.eval().requires_grad_(False)
        self._parameters = sum(p.numel() for p in module.parameters())
        pack = not runtime.on_cuda and not runtime.compile
        self._net, self._rewrites = fx_fusion.rewrite(module, pack=pack, float_pool=reduced)
        self._net.to(runtime.torch_device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if reduced:
            round_weights(self._net, _DTYPES[runtime.precision])
        self._net.eval().requires_grad_(False)
        self._workers = None if runtime.on_cuda else thread_workers(runtime.threads)
        self._run: Any = _compile(self._net, runtime) if runtime.compile else self._net
        self._warm_up()

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute the features of a batch.

        Args:
            pixels: uint8 [B, S, S, 3] RGB on the runtime's device, S the recipe's side. On CUDA all
                batches of a run should have one size, because kernels are chosen by it.

        Returns:
            float32 [B, d] on the same device, ordered after the work already queued on the current stream.

        Raises:
            ValueError: another dtype, shape or device.
            RuntimeError: the backbone is in train mode.
        """
        self._check(pixels)
        if self._workers is None:
            return self._forward(pixels)
        features = torch.empty(len(pixels), self.dim)
        starts = range(0, len(pixels), TILE)
        for task in [self._workers.submit(self._encode_tile, pixels, start, features) for start in starts]:
            task.result()
        return features

    def describe(self) -> JsonObject:
        """Return how the backbone was changed and what computes it, as JSON types."""
        return {
            "architecture": self.spec.architecture,
            "layer": self.spec.layer,
            "precision": self.runtime.precision,
            "compiled": self.runtime.compile,
            "memory_format": "channels_last",
            "tile": None if self._workers is None else TILE,
            **vars(self._rewrites),
            "parameters": self._parameters,
            "weights": {**vars(self._report), "dropped": list(self._report.dropped)},
            "torch": str(torch.__version__),
        }

    def _forward(self, pixels: torch.Tensor) -> torch.Tensor:
        with autocast(self.runtime):
            features: torch.Tensor = self._run(normalise(pixels, self.spec.recipe)).float()
        if features.shape[1:] != (self.dim,):
            raise _outdated(self.spec, f"gives features of shape {tuple(features.shape[1:])}", (self.dim,))
        return features

    def _encode_tile(self, pixels: torch.Tensor, start: int, features: torch.Tensor) -> None:
        tile = pixels[start : start + TILE]
        used = len(tile)
        if used < TILE:
            tile = torch.cat([tile, tile.new_zeros(TILE - used, *tile.shape[1:])])
        features[start : start + used] = self._forward(tile)[:used]

    def _check(self, pixels: torch.Tensor) -> None:
        side = self.spec.recipe.side
        if pixels.dtype != torch.uint8 or tuple(pixels.shape[1:]) != (side, side, 3):
            raise ValueError(
                f"pixels are {pixels.dtype} {tuple(pixels.shape)}, not uint8 [B, {side}, {side}, 3]"
            )
        if pixels.device != self.runtime.torch_device:
            raise ValueError(f"pixels are on {pixels.device}, the encoder on {self.runtime.device}")
        if any(module.training for module in self._net.modules()):
            raise RuntimeError("the backbone is in train mode: its features would depend on the batch")

    def _warm_up(self) -> None:
        """Run a blank tile on the CPU, so that packing and compiling happen once, before the first image."""
        if self._workers is None:
            return
        side = self.spec.recipe.side
        blank = torch.zeros(TILE, side, side, 3, dtype=torch.uint8)
        try:
            self._workers.submit(self._forward, blank).result()
        except Exception as error:
            if not self.runtime.compile or faults.translate(error):
                raise
            raise ModelError(
                f"{self.spec.architecture} cannot be compiled ({type(error).__name__})",
                "torch.compile needs a C++ compiler, and operations that it knows",
                "install g++, or leave compiling out",
            ) from error


def round_weights(net: nn.Module, dtype: torch.dtype) -> None:
    """Round, once and in place, the weights that autocast would round at every call."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.to(dtype)


def thread_workers(count: int, threads: int = 1) -> ThreadPoolExecutor:
    """Start workers in which torch computes on `threads` threads; the caller's own setting is restored."""
    before = torch.get_num_threads()
    started = threading.Barrier(count)

    def start() -> None:
        # A thread adopts the process's setting at its first query, after which its own setting persists.
        torch.set_num_threads(threads)
        torch.get_num_threads()
        torch.set_num_threads(threads)
        started.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="encoder", initializer=start)
    # All workers must have started before the setting is restored.
    for task in [pool.submit(int) for _ in range(count)]:
        task.result()
    torch.set_num_threads(before)
    return pool


def _compile(net: nn.Module, runtime: Runtime) -> Any:
    """Compile for one shape."""
    if runtime.on_cuda:
        return torch.compile(net, dynamic=False)
    from engine.models.forward import inductor  # imports the compiler

    return inductor.compile_frozen(net)
