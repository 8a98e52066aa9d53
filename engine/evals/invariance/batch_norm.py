"""A backbone whose BatchNorm uses the statistics of the batch: the state in which the study's code left it.

For `--mode as-published --batch-norm train` alone. A feature then depends on its neighbours in the batch, and
`engine.models.Encoder` refuses such a state.
"""

import torch
from torch import nn

from engine.errors import Refused
from engine.models import ModelSpec
from engine.models.backbones import architectures
from engine.models.checkpoints import weights
from engine.normalise import normalise
from engine.runtime import Runtime, autocast


class BatchNormEncoder:
    """Encoder of whole batches in one forward pass, each normalised by its own statistics.

    Args:
        spec: weights, architecture and the normalisation of the pixels.
        runtime: device and precision.

    The running statistics of the weights stay as they are, and so does everything but BatchNorm.
    """

    def __init__(self, spec: ModelSpec, runtime: Runtime) -> None:
        self.spec, self.runtime = spec, runtime
        module = architectures.build_seeded(spec.architecture, spec.seed or 0)
        if spec.weights_path is not None:
            tensors = weights.read(spec.weights_path, spec.weights_sha256)
            head = architectures.head_prefixes(spec.architecture)
            weights.fit(module, tensors, head, str(spec.weights_path))
        self._net = module.eval().requires_grad_(False).to(runtime.torch_device)
        for part in self._net.modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                part.train()
                part.momentum = 0.0

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode uint8 [B, S, S, 3] as float32 [B, d] on the runtime's device.

        Raises:
            Refused: a single image so small that some layer has one value a channel, which has no variance.
        """
        try:
            with autocast(self.runtime):
                features: torch.Tensor = self._net(normalise(pixels, self.spec.recipe)).float()
        except ValueError as error:
            raise Refused(
                f"BatchNorm in train mode on {len(pixels)} images of {pixels.shape[1]} pixels ({error})",
                "Statistics of a batch need more than one value",
                "use --batch-norm eval",
            ) from error
        return features
