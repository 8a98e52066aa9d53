"""Models beyond the study: self-supervised transformers, BiomedCLIP, and torchxrayvision's DenseNet."""

from engine.models.catalog.entry import POOLINGS, Facts, Row
from engine.models.checkpoints.checkpoint_cache import Published
from engine.models.checkpoints.readers import TorchFile
from engine.recipes import RECIPES


def _hub(slug: str, repository: str, file: str, reader: TorchFile) -> Published:
    return Published(slug, f"https://huggingface.co/{repository}/resolve/main/{file}", file, reader)


def _transformer(slug: str, name: str, repository: str, recipe: str, notes: str, facts: Facts) -> Row:
    return Row(
        slug,
        f"transformers/{name}",
        _hub(slug, repository, "model.safetensors", TorchFile()),
        recipe=RECIPES[recipe],
        notes=f"{notes}; class token after the last norm",
        variants=POOLINGS,
        facts=facts,
    )


_HUB = {"url": "confirmed: the model's page", "keys": "inferred: transformers' own loader takes the file"}

BEYOND = (
    *(
        _transformer(
            f"dinov2-{name}",
            f"dinov2-{name}",
            f"facebook/dinov2-{name}",
            "imagenet-256-224",
            "DINOv2",
            Facts(
                "https://arxiv.org/abs/2304.07193",
                "Apache-2.0",
                top1,
                "paper, linear evaluation (distilled)",
                {**_HUB, "recipe": "unverified: preprocessor_config.json"},
                commercial_use=True,
            ),
        )
        for name, top1 in (("small", 81.1), ("base", 84.5), ("large", 86.3))
    ),
    _transformer(
        "dinov3-vitb16",
        "dinov3-vitb16",
        "facebook/dinov3-vitb16-pretrain-lvd1689m",
        "imagenet-exact-224-bilinear",
        "DINOv3; gated: accept its licence in a browser and give --from-file",
        Facts(
            "https://arxiv.org/abs/2508.10104",
            "DINOv3 License",
            sources={**_HUB, "recipe": "confirmed: transformers' DINOv3ViTImageProcessor"},
        ),
    ),
    _transformer(
        "rad-dino",
        "dinov2-base",
        "microsoft/rad-dino",
        "rad-dino-518",
        "RAD-DINO, chest X-rays at 518 pixels",
        Facts(
            "https://arxiv.org/abs/2401.10815",
            "MIT (earlier MSRLA); research use",
            sources={
                **_HUB,
                "recipe": "confirmed: 518 pixels (37 x 37 patches, model's page); unverified: mean, sd",
            },
            commercial_use=False,
        ),
    ),
    Row(
        "biomedclip",
        "timm/vit_base_patch16_224",
        _hub(
            "biomedclip",
            "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224",
            "open_clip_pytorch_model.bin",
            TorchFile("", "visual.trunk."),
        ),
        recipe=RECIPES["clip-224"],
        notes="BiomedCLIP's image tower before its projection, 768 features",
        variants=POOLINGS,
        facts=Facts(
            "https://arxiv.org/abs/2303.00915",
            "MIT",
            sources={
                **_HUB,
                "keys": "inferred: open_clip names a timm tower visual.trunk",
                "recipe": "inferred: open_clip's default for a model without its own",
            },
        ),
    ),
    Row(
        "xrv-densenet121",
        "torchvision/densenet121+grey",
        Published(
            "xrv-densenet121",
            "https://github.com/mlmed/torchxrayvision/releases/download/v1/"
            "nih-pc-chex-mimic_ch-google-openi-kaggle-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt",
            "xrv-densenet121-all.pt",
            TorchFile(
                dropped=("classifier.", "op_threshs"),
                stand_ins=("torchxrayvision.", "torch.nn.modules."),
            ),
        ),
        recipe=RECIPES["xrv-224"],
        notes="torchxrayvision's DenseNet-121 `all`, supervised on chest X-rays of seven sets; mean of "
        "the channels, -1024 to 1024",
        facts=Facts(
            "https://arxiv.org/abs/2002.02497",
            "repository Apache-2.0; trained on data sets with terms of their own",
            sources={
                "url": "confirmed: torchxrayvision.models.model_urls",
                "container": "confirmed: a whole pickled module (its loader asks it for its state_dict); "
                "unknown: whether in torch's older format, which is refused: then save torchxrayvision's "
                "state_dict() and give it with --from-file",
                "recipe": "confirmed: torchxrayvision.utils.normalize (it crops before resizing)",
            },
        ),
    ),
)
