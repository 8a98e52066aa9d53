"""Names of a ResNet's variables in other frameworks -> torchvision's: by name, never by order in a file."""

from collections.abc import Iterator, Mapping

#: Blocks a stage of ResNet-50.
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
    """(convolution, BatchNorm) of a bottleneck ResNet in torchvision's names, in SimCLR's order of creation.

    A block's shortcut comes before its three convolutions.
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
    """SimCLR's TensorFlow variable -> torchvision's key.

    `base_model/conv2d`, `conv2d_1`, ... and `batch_normalization`, `_1`, ... are numbered as they were
    created (google-research/simclr, resnet.py; confirmed there and by the third-party converter).
    """
    names = {}
    for number, (conv, norm) in enumerate(layers(blocks)):
        end = f"_{number}" if number else ""
        names[f"base_model/conv2d{end}/kernel"] = f"{conv}.weight"
        for theirs, ours in _TF_NORM.items():
            names[f"base_model/batch_normalization{end}/{theirs}"] = f"{norm}.{ours}"
    return names


def byol(blocks: tuple[int, ...] = RESNET50) -> dict[tuple[str, str, str], str]:
    """(tree, module path after the encoder's name, variable) of BYOL's Haiku ResNet -> torchvision's key.

    Source: deepmind-research/byol and haiku/_src/nets/resnet.py.
    """
    places = {"initial_conv": "conv1", "initial_batchnorm": "bn1"}
    for stage, count in enumerate(blocks):
        for block in range(count):
            theirs, ours = f"block_group_{stage}/~/block_{block}/~/", f"layer{stage + 1}.{block}."
            for i in range(3):
                places[f"{theirs}conv_{i}"] = f"{ours}conv{i + 1}"
                places[f"{theirs}batchnorm_{i}"] = f"{ours}bn{i + 1}"
            if block == 0:
                places[f"{theirs}shortcut_conv"] = f"{ours}downsample.0"
                places[f"{theirs}shortcut_batchnorm"] = f"{ours}downsample.1"
    names = {}
    for theirs, ours in places.items():
        if theirs.endswith("conv") or "/conv_" in theirs:
            names["online_params", theirs, "w"] = f"{ours}.weight"
            continue
        for (tree, path, variable), key in _HAIKU_NORM.items():
            names[tree, theirs + path, variable] = f"{ours}.{key}"
    return names


def byol_key(name: str, names: Mapping[tuple[str, str, str], str]) -> str | None:
    """torchvision's key of `TREE:MODULE:VARIABLE`; None for what is no part of the encoder, or only counts.

    The encoder's own name (`res_net50/~/`, perhaps with something before it) is inferred, so a known path
    after a `/~/` decides.

    Raises:
        KeyError: a parameter of the encoder that this architecture does not have.
    """
    tree, module, variable = name.split(":")
    for place in ("initial_", "block_group_"):
        head, found, tail = module.partition(place)
        if found and (not head or head.endswith("/~/")):
            key = names.get((tree, found + tail, variable))
            if key is None and tree == "online_params":
                raise KeyError(module)
            return key
    return None
