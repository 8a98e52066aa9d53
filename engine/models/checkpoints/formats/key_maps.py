"""Maps from the names of a ResNet's variables in other frameworks to torchvision's keys."""

from collections.abc import Iterator, Mapping

#: Blocks of each stage of ResNet-50.
RESNET50 = (3, 4, 6, 3)
_TF_NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_HAIKU_NORM = {
    ("online_params", "", "scale"): "weight",
    ("online_params", "", "offset"): "bias",
    ("online_state", "/~/mean_ema", "average"): "running_mean",
    ("online_state", "/~/var_ema", "average"): "running_var",
}


def layers(blocks: tuple[int, ...] = RESNET50) -> Iterator[tuple[str, str]]:
    """Yield (convolution, BatchNorm) of a bottleneck ResNet under torchvision's names.

    They come in the order in which SimCLR creates them: a block's shortcut before its three convolutions.
    """
    yield "conv1", "bn1"
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            stem = f"layer{stage}.{block}"
            if block == 0:
                yield f"{stem}.downsample.0", f"{stem}.downsample.1"
            for i in (1, 2, 3):
                yield f"{stem}.conv{i}", f"{stem}.bn{i}"


def simclr(blocks: tuple[int, ...] = RESNET50) -> dict[str, str]:
    """Return SimCLR's TensorFlow variable -> torchvision's key.

    `base_model/conv2d`, `conv2d_1`, ... and `batch_normalization`, `_1`, ... are numbered in the order of
    their creation (google-research/simclr, resnet.py; confirmed there and by the third-party converter).
    """
    names = {}
    for number, (conv, norm) in enumerate(layers(blocks)):
        end = f"_{number}" if number else ""
        names[f"base_model/conv2d{end}/kernel"] = f"{conv}.weight"
        for theirs, ours in _TF_NORM.items():
            names[f"base_model/batch_normalization{end}/{theirs}"] = f"{norm}.{ours}"
    return names


def byol(blocks: tuple[int, ...] = RESNET50) -> dict[tuple[str, str, str], str]:
    """Return a map from variables of BYOL's Haiku ResNet to torchvision's keys.

    A variable is (tree, module path after the encoder's name, variable name).

    Source: deepmind-research/byol and haiku/_src/nets/resnet.py.
    """
    modules = {"initial_conv": "conv1", "initial_batchnorm": "bn1"}
    for stage, count in enumerate(blocks):
        for block in range(count):
            theirs, ours = f"block_group_{stage}/~/block_{block}/~/", f"layer{stage + 1}.{block}."
            for i in range(3):
                modules[f"{theirs}conv_{i}"] = f"{ours}conv{i + 1}"
                modules[f"{theirs}batchnorm_{i}"] = f"{ours}bn{i + 1}"
            if block == 0:
                modules[f"{theirs}shortcut_conv"] = f"{ours}downsample.0"
                modules[f"{theirs}shortcut_batchnorm"] = f"{ours}downsample.1"
    names = {}
    for theirs, ours in modules.items():
        if theirs.endswith("conv") or "/conv_" in theirs:
            names["online_params", theirs, "w"] = f"{ours}.weight"
            continue
        for (tree, path, variable), key in _HAIKU_NORM.items():
            names[tree, theirs + path, variable] = f"{ours}.{key}"
    return names


def byol_key(name: str, names: Mapping[tuple[str, str, str], str]) -> str | None:
    """Return torchvision's key of a variable; None if it is a counter or outside the encoder.

    The encoder's own name (`res_net50/~/`, perhaps with a prefix) is inferred, not confirmed. Therefore a
    variable belongs to the encoder if a known module path follows a `/~/`.

    Args:
        name: `TREE:MODULE:VARIABLE`.
        names: as `byol` returns them.

    Raises:
        KeyError: a parameter of the encoder that this architecture does not have.
    """
    tree, module, variable = name.split(":")
    for beginning in ("initial_", "block_group_"):
        encoder, separator, path = module.partition(beginning)
        if separator and (not encoder or encoder.endswith("/~/")):
            key = names.get((tree, separator + path, variable))
            if key is None and tree == "online_params":
                raise KeyError(module)
            return key
    return None
