"""Supervised ImageNet networks of torchvision as rows: the study's, and the trunks of LPIPS."""

from engine.models.catalog.entry import Facts, Row
from engine.models.checkpoints.checkpoint_cache import Expected, Published
from engine.models.checkpoints.readers import TorchFile
from engine.recipes import RECIPES

IMAGENET_TERMS = "weights follow ImageNet's terms (non-commercial research)"


def torchvision_row(
    slug: str,
    name: str,
    file: str,
    head: str,
    top1: float,
    paper: str,
    notes: str = "supervised on ImageNet; torchvision's first weights",
) -> Row:
    """Make the row of a supervised network, whose file name ends in the first digits of its SHA-256."""
    return Row(
        slug,
        f"torchvision/{name}",
        Published(
            slug,
            f"https://download.pytorch.org/models/{file}",
            file,
            TorchFile(dropped=(head,)),
            Expected(sha256=file.removesuffix(".pth").rpartition("-")[2]),
        ),
        recipe=RECIPES["imagenet-224"],
        notes=notes,
        facts=Facts(
            paper,
            f"torchvision BSD-3-Clause; {IMAGENET_TERMS}",
            top1,
            "torchvision's own evaluation",
            {
                "url": "confirmed: torchvision's weights table",
                "digest": "confirmed: in the file's name",
                "keys": "confirmed: torchvision's own loader"
                + ("; the file has the older names of dense layers" if "densenet" in name else ""),
                "recipe": "confirmed: ImageNet statistics; 224 bicubic is the study's",
                "top1": "confirmed: torchvision's weights table",
            },
            commercial_use=False,
        ),
    )


def _trunk(slug: str, name: str, file: str, top1: float, paper: str) -> Row:
    notes = "supervised on ImageNet; torchvision's first weights; trunk of LPIPS"
    return torchvision_row(slug, name, file, "classifier.", top1, paper, notes)


#: The trunks of LPIPS, which are backbones like any other; see `engine.models.perceptual`.
TRUNKS = (
    _trunk(
        "supervised-alexnet",
        "alexnet",
        "alexnet-owt-7be5be79.pth",
        56.522,
        "https://arxiv.org/abs/1404.5997",
    ),
    _trunk(
        "supervised-squeezenet",
        "squeezenet1_1",
        "squeezenet1_1-b8a52dc0.pth",
        58.178,
        "https://arxiv.org/abs/1602.07360",
    ),
    _trunk("supervised-vgg16", "vgg16", "vgg16-397923af.pth", 71.592, "https://arxiv.org/abs/1409.1556"),
)
