"""Models, data sets and metrics of Anton et al.: names, labels, groups and domains."""

from collections.abc import Mapping

#: Self-supervised on ImageNet.
SSL = ("simclr-v1", "moco-v2", "swav", "byol", "pirl")
#: Supervised on ImageNet.
SUPERVISED = ("supervised-r50", "supervised-r18", "supervised-d121")
#: Checkpoints of MIMIC-CheXpert (by learning rate) and of MoCo-CXR (by network): trained on chest X-rays.
MIMIC_CHEXPERT = ("mimic-chexpert-lr0.01", "mimic-chexpert-lr0.1", "mimic-chexpert-lr1.0")
MOCO_CXR = ("moco-cxr-r18", "moco-cxr-d121")
IMAGENET_MODELS = SSL + SUPERVISED
DOMAIN_MODELS = MIMIC_CHEXPERT + MOCO_CXR
MODELS = IMAGENET_MODELS + DOMAIN_MODELS

#: Rows of the paper's tables that are the largest value among checkpoints: name -> checkpoints.
VARIANTS: Mapping[str, tuple[str, ...]] = {"mimic-chexpert": MIMIC_CHEXPERT, "moco-cxr": MOCO_CXR}

MODEL_LABELS: Mapping[str, str] = {
    "simclr-v1": "SimCLR-v1",
    "moco-v2": "MoCo-v2",
    "swav": "SwAV",
    "byol": "BYOL",
    "pirl": "PIRL",
    "supervised-r50": "Supervised (r50)",
    "supervised-r18": "Supervised (r18)",
    "supervised-d121": "Supervised (d121)",
    "mimic-chexpert": "MIMIC-CheXpert",
    "mimic-chexpert-lr0.01": "MIMIC-CheXpert (lr 0.01)",
    "mimic-chexpert-lr0.1": "MIMIC-CheXpert (lr 0.1)",
    "mimic-chexpert-lr1.0": "MIMIC-CheXpert (lr 1.0)",
    "moco-cxr": "MoCo-CXR",
    "moco-cxr-r18": "MoCo-CXR (r18)",
    "moco-cxr-d121": "MoCo-CXR (d121)",
}

#: Chest X-rays, as the domain models were trained on, and other images.
IN_DOMAIN = ("chexpert", "shenzhen", "montgomery", "chestx")
OUT_OF_DOMAIN = ("bach", "eyepacs", "ichallenge-amd", "ichallenge-pm")
DATASETS = IN_DOMAIN + OUT_OF_DOMAIN

DATASET_LABELS: Mapping[str, str] = {
    "chexpert": "CheXpert",
    "shenzhen": "Shenzhen",
    "montgomery": "Montgomery",
    "chestx": "ChestX",
    "bach": "BACH",
    "eyepacs": "EyePACS",
    "ichallenge-amd": "iC-AMD",
    "ichallenge-pm": "iC-PM",
    "stoic": "STOIC",
    "cifar10": "CIFAR-10",
    "imagenet": "ImageNet",
}

#: Data sets of five-way episodes, and those scored by the mean accuracy of the classes.
_FIVE_WAY = ("chestx", "eyepacs")
_PER_CLASS = ("eyepacs",)

TOP1 = "imagenet_top1_pct"
DIFFUSION = "attentive_diffusion"
LPIPS = ("lpips_alex", "lpips_squeeze", "lpips_vgg")
LPIPS_MEAN = "lpips_mean3"
INVARIANCES: Mapping[str, str] = {
    "rotation": "rotation_invariance_cosine",
    "hflip": "hflip_invariance_cosine",
    "hue": "hue_invariance_cosine",
    "multiview": "multiview_invariance_cosine",
}


def few_shot(dataset: str) -> str:
    """Return the metric of a data set's few-shot episodes: two-way, five-way on ChestX and EyePACS."""
    return f"few_shot_{5 if dataset in _FIVE_WAY else 2}way_20shot_accuracy_pct"


def many_shot(protocol: str, dataset: str) -> str:
    """Return the metric of `linear` or `finetune` on a data set: the mean over classes on EyePACS."""
    return f"{protocol}_{'mean_per_class_' if dataset in _PER_CLASS else ''}accuracy_pct"


def transfer(protocol: str, dataset: str) -> str:
    """Return the metric of `few_shot`, `linear` or `finetune` on a data set."""
    return few_shot(dataset) if protocol == "few_shot" else many_shot(protocol, dataset)


def model_label(model: str) -> str:
    """Return a model's name as the paper spells it; models that it does not have as they are."""
    return MODEL_LABELS.get(model, model)


def dataset_label(dataset: str) -> str:
    """Return a data set's name as the paper spells it; those that it does not have as they are."""
    return DATASET_LABELS.get(dataset, dataset)


def group_of(model: str) -> str:
    """Return the group of a model: `SSL`, `Supervised`, `MIMIC-CheXpert`, `MoCo-CXR`; "" for others."""
    groups = {"SSL": SSL, "Supervised": SUPERVISED, "MIMIC-CheXpert": MIMIC_CHEXPERT, "MoCo-CXR": MOCO_CXR}
    return next((group for group, models in groups.items() if model in models), "")
