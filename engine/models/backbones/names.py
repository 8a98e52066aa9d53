"""Canonical names of architectures, `NAMESPACE/NAME` or `NAMESPACE/NAME+MODIFIER`, taken apart."""

from engine.errors import ModelError


def split(architecture: str) -> tuple[str, str]:
    """`torchvision/resnet18+same` -> (`torchvision`, `resnet18`); see `modifier` for the rest.

    Raises:
        ModelError: another namespace.
    """
    namespace, _, name = architecture.partition("+")[0].partition("/")
    if namespace not in ("torchvision", "timm", "transformers") or not name:
        raise ModelError(
            f"Architecture {architecture!r}",
            "It is torchvision/NAME, timm/NAME or transformers/NAME",
            "name one of these, for example torchvision/resnet50",
        )
    return namespace, name


def modifier(architecture: str) -> str:
    """`torchvision/resnet18+same` -> `same`, see `backbones.modifiers`; empty for a plain one."""
    return architecture.partition("+")[2]
