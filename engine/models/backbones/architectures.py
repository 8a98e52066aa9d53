"""Backbones without their heads: canonical name -> module that returns the pooled feature [B, d].

A torchvision family is one row of `FAMILIES`: which modules to replace so that `forward` ends at the pooled
feature, and which keys of a published state dict belong to the head. timm has this built in.
"""

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from engine.errors import ModelError
from engine.models.backbones import huggingface, modifiers
from engine.models.backbones.names import modifier, split
from engine.models.catalog import suggest
from engine.models.checkpoints import state_dict

if TYPE_CHECKING:
    from engine.recipes import Recipe

Edits = Mapping[str, Callable[[], nn.Module]]


def _pool() -> nn.Module:
    return nn.AdaptiveAvgPool2d(1)


def _pool_flat() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(1))


@dataclass(frozen=True)
class Family:
    """One family of torchvision classifiers.

    Attributes:
        names: regular expression that the torchvision name matches wholly.
        edits: attribute -> replacement that makes `forward` end at the feature.
        head: prefixes of state dict keys that belong to the classifier and are dropped.
        layer: `gap`, global average pooling of the last feature map, or `cls`, the class token.
        options: arguments of the torchvision builder.
        notes: what exactly the feature is.
    """

    names: str
    edits: Edits
    head: tuple[str, ...]
    layer: str = "gap"
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: str = ""


_INCEPTION = {"aux_logits": False, "transform_input": True, "init_weights": True}
_AUXILIARY = ("fc.", "aux1.", "aux2.", "AuxLogits.")

#: Every family's feature is checked against a forward hook (`test_architectures.py`).
FAMILIES = (
    Family(r"(wide_)?resnet\d+(_2)?|resnext\d+_\d+x\d+d", {"fc": nn.Identity}, ("fc.",)),
    Family(r"regnet_[xy]_\w+", {"fc": nn.Identity}, ("fc.",)),
    Family(r"shufflenet_v2_x\d_\d", {"fc": nn.Identity}, ("fc.",)),
    Family(
        r"densenet\d+",
        {"classifier": nn.Identity},
        ("classifier.",),
        notes="ReLU of the last BatchNorm, pooled",
    ),
    Family(r"mobilenet_v2|mnasnet\d_\d+", {"classifier": nn.Identity}, ("classifier.",)),
    Family(
        r"mobilenet_v3_\w+",
        {"classifier": nn.Identity},
        ("classifier.",),
        notes="pooled feature map, before the hidden layer of the classifier",
    ),
    Family(r"efficientnet_(b\d|v2_[sml])", {"classifier": nn.Identity}, ("classifier.",)),
    Family(
        r"convnext_\w+",
        {"classifier": lambda: nn.Flatten(1)},
        ("classifier.",),
        notes="pooled feature map, before the classifier's LayerNorm",
    ),
    Family(
        r"vgg\d+(_bn)?|alexnet",
        {"avgpool": _pool, "classifier": nn.Identity},
        ("classifier.",),
        notes="global average pool of the last feature map, instead of its grid and hidden layers",
    ),
    Family(r"squeezenet1_[01]", {"classifier": _pool}, ("classifier.",)),
    Family(r"googlenet|inception_v3", {"fc": nn.Identity}, _AUXILIARY, options=_INCEPTION),
    Family(r"swin(_v2)?_[tsb]", {"head": nn.Identity}, ("head.",), notes="pooled after the last LayerNorm"),
    Family(r"maxvit_t", {"classifier": _pool_flat}, ("classifier.",)),
    Family(
        r"vit_[blh]_\d+",
        {"heads": nn.Identity},
        ("heads.",),
        layer="cls",
        notes="class token after the last LayerNorm",
    ),
)


def body(module: nn.Module) -> nn.Module:
    """The part of a built module whose tensors are a published file's: all but wrappers of ours."""
    while isinstance(module, modifiers.Tokens | huggingface.Backbone):
        module = module.body
    return module


def family(name: str) -> Family:
    """The row that says how this torchvision classifier loses its head.

    Raises:
        ModelError: torchvision has no such classifier, or no row matches.
    """
    from torchvision import models

    known = models.list_models(module=models)
    found = [row for row in FAMILIES if re.fullmatch(row.names, name)]
    if name in known and found:
        return found[0]
    supported = ", ".join(n for n in known if any(re.fullmatch(row.names, n) for row in FAMILIES))
    near = suggest.close(name, supported.split(", "))
    raise ModelError(
        f"torchvision has no backbone {name!r}"
        if name not in known
        else f"torchvision/{name} has no feature layer here",
        "It is one of " + supported,
        f"choose {suggest.one_of([*near, 'another of these'])}, or timm/NAME",
    )


def import_timm() -> Any:
    """timm, or a ModelError that says how to get it."""
    try:
        import timm
    except ImportError as error:
        raise ModelError(
            "timm is not installed", "timm/NAME and efficientnet-lite0 need it", "pip install 'embank[timm]'"
        ) from error
    return timm


def build(architecture: str) -> nn.Module:
    """A headless backbone with fresh weights, in eval mode, on torch's current default device.

    Draws from torch's global random generator (see `build_seeded`).

    Args:
        architecture: `torchvision/NAME`, `timm/NAME` or `transformers/NAME`, perhaps with `+MODIFIER`.

    Returns:
        module: float32 [B, 3, S, S] -> float32 [B, d].

    Raises:
        ModelError: unknown architecture, a modifier that does not suit it, or a library missing.
    """
    namespace, name = split(architecture)
    builders = {"torchvision": _build_torchvision, "timm": _build_timm, "transformers": huggingface.build}
    module = builders[namespace](name)
    if change := modifier(architecture):
        module = modifiers.apply(module, change)
    return module.eval()


def _build_torchvision(name: str) -> nn.Module:
    from torchvision import models

    row = family(name)
    module: nn.Module = models.get_model(name, weights=None, **row.options)
    for attribute, replacement in row.edits.items():
        setattr(module, attribute, replacement())
    return module


def _build_timm(name: str) -> nn.Module:
    timm = import_timm()
    if not timm.is_model(name.partition(".")[0]):
        like = suggest.close(name, timm.list_models()) or timm.list_models(f"*{name.partition('_')[0]}*")[:12]
        close = ", ".join(like)
        raise ModelError(
            f"timm has no model {name!r}",
            "The name is one of timm.list_models()",
            f"check the spelling{'; close to it: ' + close if close else ''}",
        )
    module: nn.Module = timm.create_model(name, pretrained=False, num_classes=0)
    return module


def build_seeded(architecture: str, seed: int) -> nn.Module:
    """As `build`, drawn from `seed` alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: it would reseed CUDA's generators too, which fork_rng does not restore here.
        torch.default_generator.manual_seed(seed)
        return build(architecture)


def head_prefixes(architecture: str) -> tuple[str, ...]:
    """Prefixes of state dict keys that belong to the architecture's classifier."""
    namespace, name = split(architecture)
    if namespace == "torchvision":
        return family(name).head
    if namespace == "transformers":
        return ()
    classifier = timm_config(name).get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return tuple(f"{n}." for n in names)


def timm_config(name: str) -> dict[str, Any]:
    """timm's pretrained configuration of a model (input size, mean, std, where its weights are)."""
    config = import_timm().get_pretrained_cfg(name)
    return {} if config is None else dict(config.to_dict())


def default_weights(architecture: str) -> dict[str, str]:
    """Where the library says that its published weights are.

    Returns:
        `url` and `text`, or also `hf_hub_id` and `hf_hub_filename` in timm's case; what it does not say is
        not there.

    Raises:
        ModelError: unknown architecture, or a library missing.
    """
    from torchvision import models

    namespace, name = split(architecture)
    if namespace == "timm":
        config = timm_config(name)
        told = {key: config.get(key) for key in ("hf_hub_id", "hf_hub_filename", "url")}
        return {"text": f"timm {name}", **{key: str(value) for key, value in told.items() if value}}
    family(name)
    published = models.get_model_weights(name).DEFAULT
    return {"text": f"torchvision {published}", "url": published.url}


def layer(architecture: str) -> tuple[str, str]:
    """Which layer the feature is (`gap`, `cls`, `mean` of patch tokens, ...), and what exactly that means."""
    namespace, name = split(architecture)
    if chosen := modifiers.LAYERS.get(modifier(architecture)):
        return chosen, {"cls": "class token", "mean": "mean of the patch tokens"}[
            chosen
        ] + " after the last norm"
    if namespace == "torchvision":
        row = family(name)
        return row.layer, row.notes
    if namespace == "transformers":
        return "cls", "class token after the last norm"
    module = _shapes_only(architecture)
    pool = getattr(module, "global_pool", "avg")
    averaged = "mean" if hasattr(module, "num_prefix_tokens") else "gap"
    kind = {"token": "cls", "map": "map"}.get(pool, averaged) if isinstance(pool, str) else averaged
    return kind, f"timm's features before its classifier ({pool if isinstance(pool, str) else 'pooled'})"


@functools.lru_cache(maxsize=4)
def _shapes_only(architecture: str) -> nn.Module:
    """The architecture without numbers."""
    try:
        with torch.device("meta"):
            return build(architecture)
    except (NotImplementedError, RuntimeError):  # RegNet's builder computes its widths with tensors
        return build_seeded(architecture, 0).to("meta")


@functools.lru_cache(maxsize=256)
def dimension(architecture: str, side: int) -> int:
    """Length of the feature, found by running the architecture's shapes (no arithmetic) at this image size.

    Raises:
        ModelError: the architecture cannot take images of this size.
    """
    module = _shapes_only(architecture)
    with torch.inference_mode():
        try:
            shape = tuple(module(torch.empty(1, 3, side, side, device="meta")).shape)
        except (RuntimeError, AssertionError, ValueError) as error:
            raise ModelError(
                f"{architecture} cannot take images of {side} x {side} ({str(error).splitlines()[0]})",
                "Some architectures need one size, or a least size",
                "choose a recipe with another crop",
            ) from error
    if len(shape) != 2:
        raise ModelError(
            f"{architecture} gives features of shape {shape}", "A feature is [images, d]", "choose another"
        )
    return int(shape[1])


def default_recipe(architecture: str) -> "Recipe":
    """The preprocessing that goes with the architecture's published weights.

    torchvision: 224 pixels, ImageNet's mean and sd. timm: the model's own configuration. transformers:
    DINOv2's.
    """
    from engine.recipes import Recipe

    namespace, name = split(architecture)
    if namespace == "torchvision":
        return Recipe()
    if namespace == "transformers":
        return Recipe(size=256, crop=224)
    config = timm_config(name)
    side = int(config.get("input_size", (3, 224, 224))[-1])
    mean, sd = (
        tuple(float(v) for v in config.get(k, d)) for k, d in (("mean", Recipe.mean), ("std", Recipe.sd))
    )
    return Recipe(
        size=int(side / float(config.get("crop_pct") or 1.0)),
        crop=side,
        interpolation="bilinear" if config.get("interpolation") == "bilinear" else "bicubic",
        mean=(mean[0], mean[1], mean[2]),
        sd=(sd[0], sd[1], sd[2]),
    )


def renamed(architecture: str, tensors: Mapping[str, torch.Tensor], where: str) -> Mapping[str, torch.Tensor]:
    """A file's tensors under the names of the installed library, where these depend on its release."""
    namespace, name = split(architecture)
    if namespace != "transformers":
        return tensors
    return huggingface.renamed(name, state_dict.only(tensors, where), where)


def current_key(key: str) -> str:
    """Today's name of a tensor, for published files whose names have aged; other names stay as they are."""
    return _lite(_densenet(key))


_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")


def _densenet(key: str) -> str:
    # torchvision once numbered these layers `norm.1`; its own loader joins the parts.
    match = _DENSENET.match(key)
    return match[1] + match[2] if match else key


# EfficientNet-Lite0 as lukemelas/EfficientNet-PyTorch names it -> timm, which numbers blocks by stage.
_LITE_TOP = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_LITE_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_LITE_EXPAND = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
_LITE_PLACES = [(stage, i) for stage, blocks in enumerate((1, 2, 2, 3, 3, 4, 1)) for i in range(blocks)]


def _lite(key: str) -> str:
    part, *rest = key.split(".")
    if part in _LITE_TOP:
        return ".".join([_LITE_TOP[part], *rest])
    if part != "_blocks" or len(rest) != 3 or not rest[0].isdigit() or int(rest[0]) >= len(_LITE_PLACES):
        return key
    stage, index = _LITE_PLACES[int(rest[0])]
    names = _LITE_PLAIN if stage == 0 else _LITE_EXPAND
    return f"blocks.{stage}.{index}.{names.get(rest[1], rest[1])}.{rest[2]}"
