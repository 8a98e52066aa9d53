"""The last feature map of a frozen backbone, with gradients to the pixels."""

import torch

from engine import faults
from engine.errors import ModelError, Refused
from engine.models.backbones.feature_maps import spatial_map
from engine.models.catalog.lookup import ModelSpec
from engine.models.forward import encoder, fx_fusion
from engine.recipes import Recipe
from engine.runtime import Runtime


class FeatureMap:
    """A backbone from values of 0-1 to its last feature map, in eval mode, with a module of its own.

    BatchNorms are folded into the convolutions before them. Parameters take no gradient; pixels do.

    Args:
        spec: weights, architecture, and the recipe whose normalisation is applied.
        runtime: device.

    Attributes:
        layer: name of the layer.

    Raises:
        ModelError, WeightsError: as `encoder.load`, or the model has no spatial map.
        Refused: a normalisation without a gradient.
    """

    def __init__(self, spec: ModelSpec, runtime: Runtime) -> None:
        self._constants = _constants(spec.recipe, runtime)
        module, _ = encoder.build_with_weights(spec)
        module.eval().requires_grad_(False)
        self.folded = fx_fusion.fold_norms(module)
        if runtime.on_cuda:
            module.to(runtime.torch_device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._map = spatial_map(spec.architecture, module)
        self._channels_last = runtime.on_cuda
        self.layer, self._device = self._map.layer, runtime.torch_device

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the feature map.

        Args:
            images: floating [B, 3, S, S], RGB, of 0-1 where they are pictures.

        Returns:
            [B, C, h, w].
        """
        if self._constants is not None:
            mean, sd = self._constants
            images = (images - mean) / sd
        if self._channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return self._map(images)

    def shape(self, side: int) -> tuple[int, ...]:
        """Return the shape of the map, (channels, rows, columns), of images of this side.

        Raises:
            ModelError: the architecture cannot take this size, or has no spatial map.
        """
        try:
            with torch.no_grad():
                return tuple(self(torch.zeros(1, 3, side, side, device=self._device)).shape[1:])
        except (RuntimeError, AssertionError, ValueError) as error:
            if faults.translate(error):
                raise
            raise ModelError(
                f"The model cannot take images of {side} x {side} ({str(error).splitlines()[0]})",
                "Some architectures need one size, or a minimum size",
                "embed with a recipe of another crop, and use --mode default",
            ) from error


def _constants(recipe: Recipe, runtime: Runtime) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Return mean and standard deviation, float32 [3, 1, 1]; None without normalisation."""
    if recipe.normalise == "histogram":
        raise Refused(
            "normalisation by the image's histogram",
            "It is a step function of the pixels, through which no gradient flows",
            "use --mode as-published, which feeds the model values of 0-1 without normalisation",
        )
    if recipe.normalise == "none":
        return None
    mean, sd = (
        torch.tensor(values, dtype=torch.float32).reshape(3, 1, 1).to(runtime.torch_device)
        for values in (recipe.mean, recipe.sd)
    )
    return mean, sd
