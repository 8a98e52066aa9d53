"""The checkpoints of the study (Anton et al., J. Imaging 2022, 8, 320), and its untrained control.

The paper's Figure A4 uses 77.2, 72.12 and 74.98 as the supervised networks' top-1. These are numbers of the
papers that introduced the architectures, not of these weights.
"""

from engine.models.catalog.entry import Facts, Row, Variant
from engine.models.catalog.supervised import IMAGENET_TERMS, torchvision_row
from engine.models.checkpoints import sources
from engine.models.checkpoints.checkpoint_cache import Expected, Published
from engine.models.checkpoints.readers import HaikuPickle, TensorFlowCheckpoint, TorchFile
from engine.recipes import RECIPES

_IMAGENET = RECIPES["imagenet-224"]


_SUPERVISED = (
    torchvision_row(
        "supervised-r50",
        "resnet50",
        "resnet50-0676ba61.pth",
        "fc.",
        76.130,
        "https://arxiv.org/abs/1512.03385",
    ),
    torchvision_row(
        "supervised-r18",
        "resnet18",
        "resnet18-f37072fd.pth",
        "fc.",
        69.758,
        "https://arxiv.org/abs/1512.03385",
    ),
    torchvision_row(
        "supervised-d121",
        "densenet121",
        "densenet121-a639ec97.pth",
        "classifier.",
        74.434,
        "https://arxiv.org/abs/1608.06993",
    ),
)

_SELF_SUPERVISED = (
    Row(
        "simclr-v1",
        "torchvision/resnet50",
        Published(
            "simclr-v1",
            "https://storage.googleapis.com/simclr-gcs/checkpoints/ResNet50_1x.zip",
            "ResNet50_1x.zip",
            TensorFlowCheckpoint(),
        ),
        recipe=RECIPES["unit-224"],
        notes="SimCLR, 1000 epochs, ResNet-50 1x",
        variants=(
            Variant(
                "same", "samepool", notes="the stem's max-pool pads as in TensorFlow; plain: as in the study"
            ),
        ),
        facts=Facts(
            "https://arxiv.org/abs/2002.05709",
            f"repository Apache-2.0; {IMAGENET_TERMS}",
            69.1,
            "repository; authors' table of the study 69.3; converted to PyTorch 68.9",
            {
                "url": "confirmed: google-research/simclr (as a browser link; this is its host)",
                "keys": "confirmed: google-research/simclr resnet.py, order of creation",
                "padding": "confirmed: strided convolutions pad symmetrically, the stem's max-pool as SAME",
                "recipe": "confirmed: the converter's evaluation, values in 0-1 without normalisation",
                "checkpoint's name": "inferred: model.ckpt-STEP beside an exported graph",
                "top1": "confirmed: google-research/simclr",
            },
            commercial_use=False,
        ),
    ),
    Row(
        "moco-v2",
        "torchvision/resnet50",
        Published(
            "moco-v2",
            "https://dl.fbaipublicfiles.com/moco/moco_checkpoints/moco_v2_800ep/moco_v2_800ep_pretrain.pth.tar",
            "moco_v2_800ep_pretrain.pth.tar",
            TorchFile("state_dict", "module.encoder_q.", ("fc.",)),
            Expected(md5="a04e12f8"),
        ),
        recipe=_IMAGENET,
        notes="MoCo v2, 800 epochs",
        facts=Facts(
            "https://arxiv.org/abs/2003.04297",
            "repository CC BY-NC 4.0",
            71.1,
            "repository",
            {
                "url": "confirmed: facebookresearch/moco",
                "digest": "confirmed: the repository gives the beginning of the MD5",
                "keys": "confirmed: training saves state_dict; inferred: only the query encoder is left",
                "recipe": "confirmed: facebookresearch/moco main_lincls.py",
                "top1": "confirmed: facebookresearch/moco",
            },
            commercial_use=False,
        ),
    ),
    Row(
        "swav",
        "torchvision/resnet50",
        Published(
            "swav",
            "https://dl.fbaipublicfiles.com/deepcluster/swav_800ep_pretrain.pth.tar",
            "swav_800ep_pretrain.pth.tar",
            TorchFile("", "module.", ("projection_head.", "prototypes.")),
        ),
        recipe=_IMAGENET,
        notes="SwAV, 800 epochs; its padding by 1 and then 2 equals torchvision's 3",
        facts=Facts(
            "https://arxiv.org/abs/2006.09882",
            "repository CC BY-NC 4.0",
            75.3,
            "repository",
            {
                "url": "confirmed: the repository's hub entry point",
                "keys": "confirmed: the hub entry point removes `module.` from the top level",
                "recipe": "confirmed: facebookresearch/swav eval_linear.py",
                "top1": "confirmed: facebookresearch/swav",
            },
            commercial_use=False,
        ),
    ),
    Row(
        "byol",
        "torchvision/resnet50",
        Published(
            "byol",
            "https://storage.googleapis.com/deepmind-byol/checkpoints/pretrain_res50x1.pkl",
            "pretrain_res50x1.pkl",
            HaikuPickle(),
        ),
        recipe=_IMAGENET,
        notes="BYOL, 1000 epochs, ResNet-50 1x",
        variants=(
            Variant("same", "same", notes="pads as TensorFlow's SAME, as trained; plain: as in the study"),
        ),
        facts=Facts(
            "https://arxiv.org/abs/2006.07733",
            f"repository (deepmind-research) Apache-2.0; {IMAGENET_TERMS}",
            74.3,
            "paper; the repository says about 74.4",
            {
                "url": "confirmed: deepmind-research/byol (about 570 MB)",
                "container": "confirmed: byol/utils/checkpointing.py, dill, protocol 2; "
                "unverified: which names the pickle asks for",
                "keys": "inferred: module names of haiku's ResNet",
                "padding": "confirmed: haiku/_src/nets/resnet.py",
                "recipe": "confirmed: byol/utils/dataset.py",
                "top1": "confirmed: the paper",
            },
            commercial_use=False,
        ),
    ),
    Row(
        "pirl",
        "torchvision/resnet50",
        Published(
            "pirl",
            "https://www.dropbox.com/sh/87d24jqsl6ra7t2/AADN4jKnvTI0U5oT6hTmQZz8a/PIRL.pth?dl=1",
            "PIRL.pth",
            TorchFile("model", "module.encoder."),
        ),
        recipe=_IMAGENET,
        notes="PIRL as PyContrast re-implemented it, 200 epochs",
        facts=Facts(
            "https://arxiv.org/abs/1912.01991",
            "PyContrast states no licence that was found",
            61.7,
            "PyContrast",
            {
                "url": "confirmed: HobbitLong/PyContrast (a shared folder; ?dl=1 asks for the file)",
                "keys": "confirmed: its linear evaluation; unknown: whether it was trimmed",
                "recipe": "confirmed: its linear evaluation",
                "top1": "confirmed: HobbitLong/PyContrast",
            },
        ),
    ),
)


def _mimic_chexpert(rate: str) -> Row:
    file = f"mimic-chexpert_lr_{rate}_bs_128_fd_128_qs_65536.pt"
    return Row(
        f"mimic-chexpert-lr{rate}",
        "torchvision/densenet121",
        Published(
            f"mimic-chexpert-lr{rate}",
            f"https://dl.fbaipublicfiles.com/CovidPrognosis/pretrained_models/{file}",
            file,
            TorchFile(
                "state_dict",
                "model.encoder_q.",
                ("classifier.",),
                stand_ins=("pytorch_lightning.", "pathlib."),
            ),
        ),
        recipe=RECIPES["histogram-224"],
        notes=f"MoCo on MIMIC-CXR and CheXpert (whose images it has seen), learning rate {rate}",
        facts=Facts(
            "https://arxiv.org/abs/2101.04909",
            "repository MIT; trained on MIMIC-CXR and CheXpert, which have terms of their own",
            sources={
                "url": "confirmed: facebookresearch/CovidPrognosis configs/models.yaml",
                "keys": "confirmed: MoCo in a Lightning module; classifier is the 128-wide contrastive head",
                "container": "unknown: whether the .pt is a bare state dict or a whole Lightning checkpoint",
                "recipe": "confirmed: histogram equalisation of one grey channel, copied to three",
            },
        ),
    )


def _moco_cxr(slug: str, name: str, file: str, head: str) -> Row:
    return Row(
        slug,
        f"torchvision/{name}",
        Published(
            slug,
            f"https://storage.googleapis.com/moco-cxr/{file}",
            file,
            TorchFile("state_dict", "module.encoder_q.", (head,)),
        ),
        recipe=_IMAGENET,
        notes="MoCo on CheXpert (whose images it has seen), from ImageNet weights",
        variants=(
            Variant("paper", notes="the study's: 224 pixels, ImageNet statistics; what the plain slug does"),
            Variant(
                "native", "", RECIPES["cxr-320"], "as trained: short side 320, CXR mean 0.5020, sd 0.085585"
            ),
        ),
        facts=Facts(
            "https://arxiv.org/abs/2010.05352",
            "repository states none that was found; trained on CheXpert, which has terms of its own",
            sources={
                "url": "confirmed: stanfordmlgroup/MoCo-CXR",
                "keys": "confirmed: its training code, a copy of facebookresearch/moco",
                "recipe": "confirmed: its scripts (native); the study's (paper)",
            },
        ),
    )


_MEDICAL = (
    *(_mimic_chexpert(rate) for rate in ("0.01", "0.1", "1.0")),
    _moco_cxr("moco-cxr-r18", "resnet18", "r8w-00001.pth.tar", "fc."),
    _moco_cxr("moco-cxr-d121", "densenet121", "d1w-00001.pth.tar", "classifier."),
)

_CONTROL = Row(
    "random-r50",
    "torchvision/resnet50",
    sources.Seeded(),
    recipe=_IMAGENET,
    notes="untrained control: torchvision's initialisation from --seed",
    takes_file=False,
    facts=Facts(
        "https://arxiv.org/abs/1512.03385", "none needed: nothing is downloaded", commercial_use=True
    ),
)

STUDY = (*_SELF_SUPERVISED, *_SUPERVISED, *_MEDICAL, _CONTROL)
