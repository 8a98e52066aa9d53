"""Backbones without their heads: canonical name -> module that returns the pooled feature [B, d].

Each torchvision family is a row of `FAMILIES`: the modules to replace so that `forward` ends at the pooled
feature, and the keys of a published state dict that belong to the head. timm has this built in.
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
        names: regular expression that matches the full torchvision name.
        edits: attribute -> replacement that makes `forward` end at the feature.
        head: prefixes of state dict keys that belong to the classifier and are dropped.
        layer: `gap`, global average pooling of the last feature map, or `cls`, the class token.
        options: arguments of the torchvision builder.
        notes: exact definition of the feature.
    """

    names: str
    edits: Edits
    head: tuple[str, ...]
    layer: str = "gap"
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: str = ""


_INCEPTION = {"aux_logits": False, "transform_input": True, "init_weights": True}
_AUXILIARY = ("fc.", "aux1.", "aux2.", "AuxLogits.")

#: `test_architectures.py` checks every family's feature against a forward hook.
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
    """Return the library's own module inside our wrappers, whose tensors have a published file's names."""
    while isinstance(module, modifiers.Tokens | huggingface.Backbone):
        module = module.body
    return module


def family(name: str) -> Family:
    """Return the family of a torchvision classifier.

    Raises:
        ModelError: torchvision has no such classifier, or no family matches.
    """
    from torchvision import models

    classifiers = models.list_models(module=models)
    matching = [row for row in FAMILIES if re.fullmatch(row.names, name)]
    if name in classifiers and matching:
        return matching[0]
    supported = ", ".join(n for n in classifiers if any(re.fullmatch(row.names, n) for row in FAMILIES))
    near = suggest.close_matches(name, supported.split(", "))
    raise ModelError(
        f"torchvision has no backbone {name!r}"
        if name not in classifiers
        else f"torchvision/{name} has no feature layer here",
        "It is one of " + supported,
        f"choose {suggest.either_of([*near, 'another of these'])}, or timm/NAME",
    )


def import_timm() -> Any:
    """Import timm. Raises ModelError if it is not installed."""
    try:
        import timm
    except ImportError as error:
        raise ModelError(
            "timm is not installed", "timm/NAME and efficientnet-lite0 need it", "pip install 'embank[timm]'"
        ) from error
    return timm


def build(architecture: str) -> nn.Module:
    """Build a headless backbone with fresh weights, in eval mode, on torch's current default device.

    Weights are drawn from torch's global random generator (see `build_seeded`).

    Args:
        architecture: `torchvision/NAME`, `timm/NAME` or `transformers/NAME`, perhaps with `+MODIFIER`.

    Returns:
        module: float32 [B, 3, S, S] -> float32 [B, d].

    Raises:
        ModelError: unknown architecture, a modifier that does not suit it, or a missing library.
    """
    namespace, name = split(architecture)
    builders = {"torchvision": _build_torchvision, "timm": _build_timm, "transformers": huggingface.build}
    module = builders[namespace](name)
    if suffix := modifier(architecture):
        module = modifiers.apply(module, suffix)
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
        family_names = timm.list_models(f"*{name.partition('_')[0]}*")[:12]
        near = ", ".join(suggest.close_matches(name, timm.list_models()) or family_names)
        raise ModelError(
            f"timm has no model {name!r}",
            "The name is one of timm.list_models()",
            f"check the spelling{'; close to it: ' + near if near else ''}",
        )
    module: nn.Module = timm.create_model(name, pretrained=False, num_classes=0)
    return module


def build_seeded(architecture: str, seed: int) -> nn.Module:
    """Build a backbone with weights drawn from `seed` alone; the global generator keeps its state.

    Args, returns and errors are those of `build`.
    """
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would also reseed CUDA's generators, which fork_rng does not restore here.
        torch.default_generator.manual_seed(seed)
        return build(architecture)


def head_prefixes(architecture: str) -> tuple[str, ...]:
    """Return the prefixes of state dict keys that belong to the architecture's classifier."""
    namespace, name = split(architecture)
    if namespace == "torchvision":
        return family(name).head
    if namespace == "transformers":
        return ()
    classifier = timm_config(name).get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    return tuple(f"{n}." for n in names)


def timm_config(name: str) -> dict[str, Any]:
    """Return timm's pretrained configuration of a model: input size, mean, std, location of its weights."""
    config = import_timm().get_pretrained_cfg(name)
    return {} if config is None else dict(config.to_dict())


def default_weights(architecture: str) -> dict[str, str]:
    """Return the location of the weights that the library publishes for an architecture.

    Returns:
        `text` and `url`; for timm `text` and those of `hf_hub_id`, `hf_hub_filename` and `url` that it
        states.

    Raises:
        ModelError: unknown architecture, or a missing library.
    """
    from torchvision import models

    namespace, name = split(architecture)
    if namespace == "timm":
        config = timm_config(name)
        stated = {key: config.get(key) for key in ("hf_hub_id", "hf_hub_filename", "url")}
        return {"text": f"timm {name}", **{key: str(value) for key, value in stated.items() if value}}
    family(name)
    published = models.get_model_weights(name).DEFAULT
    return {"text": f"torchvision {published}", "url": published.url}


def layer(architecture: str) -> tuple[str, str]:
    """Return the kind of the feature (`gap`, `cls`, `mean` of patch tokens, ...) and its exact definition."""
    namespace, name = split(architecture)
    if pooled := modifiers.LAYERS.get(modifier(architecture)):
        tokens = {"cls": "class token", "mean": "mean of the patch tokens"}[pooled]
        return pooled, f"{tokens} after the last norm"
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
    """Build the architecture on the meta device: shapes without values."""
    try:
        with torch.device("meta"):
            return build(architecture)
    except (NotImplementedError, RuntimeError):  # RegNet's builder computes its widths with tensors
        return build_seeded(architecture, 0).to("meta")


@functools.lru_cache(maxsize=256)
def dimension(architecture: str, side: int) -> int:
    """Return the length of the feature, from a forward pass of shapes alone at this image size.

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
                "Some architectures need one size, or a minimum size",
                "choose a recipe with another crop",
            ) from error
    if len(shape) != 2:
        raise ModelError(
            f"{architecture} gives features of shape {shape}", "A feature is [images, d]", "choose another"
        )
    return int(shape[1])


def default_recipe(architecture: str) -> "Recipe":
    """Return the preprocessing of the architecture's published weights.

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


def rename_tensors(
    architecture: str, tensors: Mapping[str, torch.Tensor], where: str
) -> Mapping[str, torch.Tensor]:
    """Give a file's tensors the names of the installed library, if these depend on the library's release.

    Args:
        architecture: canonical name.
        tensors: what the file holds.
        where: name of the file, for errors.

    Returns:
        The renamed tensors; `tensors` itself if names do not depend on a release.

    Raises:
        WeightsError: as `huggingface.rename_tensors`.
    """
    namespace, name = split(architecture)
    if namespace != "transformers":
        return tensors
    return huggingface.rename_tensors(name, state_dict.single(tensors, where), where)


def current_key(key: str) -> str:
    """Return the current name of a tensor for an outdated one; other names are returned unchanged."""
    return _current_lite_key(_current_densenet_key(key))


_DENSENET = re.compile(r"^(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..*)$")


def _current_densenet_key(key: str) -> str:
    # torchvision once named these layers `norm.1`; its own loader joins the parts, as here.
    match = _DENSENET.match(key)
    return match[1] + match[2] if match else key


# EfficientNet-Lite0's layers as lukemelas/EfficientNet-PyTorch names them -> as timm does, blocks by stage.
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
#: (stage, index within it) of each block.
_LITE_BLOCKS = [(stage, i) for stage, blocks in enumerate((1, 2, 2, 3, 3, 4, 1)) for i in range(blocks)]


def _current_lite_key(key: str) -> str:
    part, *rest = key.split(".")
    if part in _LITE_TOP:
        return ".".join([_LITE_TOP[part], *rest])
    if part != "_blocks" or len(rest) != 3 or not rest[0].isdigit() or int(rest[0]) >= len(_LITE_BLOCKS):
        return key
    stage, index = _LITE_BLOCKS[int(rest[0])]
    names = _LITE_PLAIN if stage == 0 else _LITE_EXPAND
    return f"blocks.{stage}.{index}.{names.get(rest[1], rest[1])}.{rest[2]}"
