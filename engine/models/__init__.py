"""Frozen backbones: the catalogue, the architectures, the reading of weights, the encoder.

`resolve` says what a slug means (architecture, weights and their SHA-256, recipe, feature size);
`load` turns that into an `Encoder`, which maps uint8 pixels to float32 features.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.models.catalog.lookup import ModelSpec, catalogue, resolve
    from engine.models.forward.encoder import Encoder, load

__all__ = ["Encoder", "ModelSpec", "catalogue", "load", "resolve"]


def __getattr__(name: str) -> Any:
    # Lazily, because the command line imports this package to name models, without paying for torch.
    if name in ("ModelSpec", "catalogue", "resolve"):
        from engine.models.catalog import lookup as catalog

        return getattr(catalog, name)
    if name in ("Encoder", "load"):
        from engine.models.forward import encoder

        return getattr(encoder, name)
    raise AttributeError(name)
