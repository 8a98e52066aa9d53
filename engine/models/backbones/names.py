"""The parts of canonical architecture names, `NAMESPACE/NAME` or `NAMESPACE/NAME+MODIFIER`."""

from engine.errors import ModelError


def split(architecture: str) -> tuple[str, str]:
    """Return namespace and name: `torchvision/resnet18+same` -> (`torchvision`, `resnet18`).

    Raises:
        ModelError: unknown namespace, or no name.
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
    """Return the modifier, empty if none: `torchvision/resnet18+same` -> `same` (`backbones.modifiers`)."""
    return architecture.partition("+")[2]
