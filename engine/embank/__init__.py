"""embank for scripts and notebooks; every name is imported when it is first used.

    import embank

    images = embank.Manifest.from_folder("xrays/")
    embank.embed(images, ["torchvision/resnet50"], "xrays.bank")
    x, y = embank.Bank.open("xrays.bank").features().xy()  # usable rows: [n, d] float32, [n] int64

Every evaluation takes `Features` and a `Compute`, and gives a result with `metrics()` (values with intervals,
and reasons where they are undefined) and `predictions()` of single images:

    features = embank.Features.from_bank("xrays.bank", "torchvision/resnet50")
    mine = embank.Features.from_arrays(embeddings, labels, groups=patients, splits=splits)
    result = embank.evaluate("fewshot", mine, embank.Compute.resolve(), n_shot=5)
    result.metrics()["accuracy"].low

| name | what it is | called as |
| --- | --- | --- |
| `Manifest` | the list of images | `read(path)`, `from_folder(path)`, `from_table(path)`, `from_frame(...)` |
| `Bank` | a bank on disk or in a bucket | `open(path)`, then `features(name)`, `list()`, `manifest()` |
| `FeatureSet` | one sealed feature of a bank | `array`, `ok`, `labels`, `labelled(...)`, `xy(label, split)` |
| `Features` | the input of evaluations |  `from_bank(bank, model)`, `from_arrays(array, labels, *, ...)` |
| `Compute` | device and threads of evaluations | `resolve(device, threads, backend, memory)` |
| `evaluate` | any evaluation | `evaluate(kind, features, compute, **options)`: `fewshot`, `knn`, ... |
| `embed` | images to features, in a bank | `embed(manifest, models, bank, *, runtime, options, ...)` |
| `fewshot` | prototypes on arrays | `fewshot(features, labels, Protocol(...), *, groups, ok, ...)` |
| `knn` | neighbours on arrays | `knn(features, labels, KnnOptions(...), *, train, test, groups, ok)` |
| `probe` | linear probe on arrays | `probe(features, labels, *, train, test, options=ProbeOptions(...))` |
| `finetune` | backbones trained on | `finetune(manifest, models, bank, FinetuneOptions(...), *, ...)` |
| `invariance` | invariances, from a bank | `invariance(bank, model, InvarianceOptions(transforms=...))` |
| `saliency` | occlusion maps, from a bank | `saliency(bank, model, SaliencyOptions(...), *, device, ...)` |
| `perceptual` | LPIPS of image files | `perceptual(a, b, PerceptualOptions(...), *, device, ...)` |
| `compare` | models in pairs, from records | `compare(banks, evaluation, *, metric, models, ...)` |
| `report` | the page of a bank or a study | `report(bank, "report.html", *, tables, thumbnails, ...)` |
| `reconstruct` | images from feature maps | `reconstruct(bank, model, ReconstructionOptions(...), ...)` |
| `search` | an image's neighbours in a bank | `search(bank, model, *, image, image_id, k, ...)` |
| `TorchDataset` | rows and labels for a `DataLoader` | `TorchDataset(features, label, split=...)` |
| `models`, `datasets` | modules: models, data sets | `models.catalogue()`, `datasets.available()` |
| `EmbankError` | what all errors meant for the user are | `found`, `rule`, `remedy`, `exit_code` |

Arrays are [N, d] features of any float type and [N] labels, whole numbers or texts; `bank` is a path or URL,
`model` a slug or a feature's name. Functions that take a bank keep a record of the run in it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine import datasets as datasets
    from engine import models as models
    from engine.embed.run import embed as embed
    from engine.evals.catalogue import evaluate as evaluate
    from engine.evals.common.compute import Compute as Compute
    from engine.evals.common.features import Features as Features
    from engine.evals.common.torch_dataset import TorchDataset as TorchDataset
    from engine.evals.comparison.evaluate import compare as compare
    from engine.evals.fewshot.evaluate import fewshot as fewshot
    from engine.evals.fewshot.options import Protocol as Protocol
    from engine.evals.finetune.bank import finetune as finetune
    from engine.evals.finetune.options import FinetuneOptions as FinetuneOptions
    from engine.evals.invariance.bank import invariances_from_bank as invariance
    from engine.evals.invariance.options import InvarianceOptions as InvarianceOptions
    from engine.evals.neighbours.knn import KnnOptions as KnnOptions
    from engine.evals.neighbours.knn import knn as knn
    from engine.evals.neighbours.search import search as search
    from engine.evals.perceptual.evaluate import perceptual as perceptual
    from engine.evals.perceptual.options import PerceptualOptions as PerceptualOptions
    from engine.evals.probe.evaluate import ProbeOptions as ProbeOptions
    from engine.evals.probe.evaluate import probe as probe
    from engine.evals.reconstruction.bank import reconstruct_from_bank as reconstruct
    from engine.evals.reconstruction.options import ReconstructionOptions as ReconstructionOptions
    from engine.evals.saliency.bank import saliency_from_bank as saliency
    from engine.evals.saliency.options import SaliencyOptions as SaliencyOptions
    from engine.study.report import report as report
    from stores.bank.reader import Bank as Bank
    from stores.bank.reader import FeatureSet as FeatureSet
    from stores.errors import EmbankError as EmbankError
    from stores.manifest.manifest import Manifest as Manifest

    __version__: str

__all__ = [
    "Bank",
    "Compute",
    "EmbankError",
    "FeatureSet",
    "Features",
    "FinetuneOptions",
    "InvarianceOptions",
    "KnnOptions",
    "Manifest",
    "PerceptualOptions",
    "ProbeOptions",
    "Protocol",
    "ReconstructionOptions",
    "SaliencyOptions",
    "TorchDataset",
    "__version__",
    "compare",
    "datasets",
    "embed",
    "evaluate",
    "fewshot",
    "finetune",
    "invariance",
    "knn",
    "models",
    "perceptual",
    "probe",
    "reconstruct",
    "report",
    "saliency",
    "search",
]

#: Public name -> its module, and its name there; a test holds this against the imports above.
_HOMES = {
    "Bank": ("stores.bank.reader", "Bank"),
    "Compute": ("engine.evals.common.compute", "Compute"),
    "EmbankError": ("stores.errors", "EmbankError"),
    "FeatureSet": ("stores.bank.reader", "FeatureSet"),
    "Features": ("engine.evals.common.features", "Features"),
    "FinetuneOptions": ("engine.evals.finetune.options", "FinetuneOptions"),
    "InvarianceOptions": ("engine.evals.invariance.options", "InvarianceOptions"),
    "KnnOptions": ("engine.evals.neighbours.knn", "KnnOptions"),
    "Manifest": ("stores.manifest.manifest", "Manifest"),
    "PerceptualOptions": ("engine.evals.perceptual.options", "PerceptualOptions"),
    "ProbeOptions": ("engine.evals.probe.evaluate", "ProbeOptions"),
    "Protocol": ("engine.evals.fewshot.options", "Protocol"),
    "ReconstructionOptions": ("engine.evals.reconstruction.options", "ReconstructionOptions"),
    "SaliencyOptions": ("engine.evals.saliency.options", "SaliencyOptions"),
    "TorchDataset": ("engine.evals.common.torch_dataset", "TorchDataset"),
    "compare": ("engine.evals.comparison.evaluate", "compare"),
    "embed": ("engine.embed.run", "embed"),
    "evaluate": ("engine.evals.catalogue", "evaluate"),
    "fewshot": ("engine.evals.fewshot.evaluate", "fewshot"),
    "finetune": ("engine.evals.finetune.bank", "finetune"),
    "invariance": ("engine.evals.invariance.bank", "invariances_from_bank"),
    "knn": ("engine.evals.neighbours.knn", "knn"),
    "perceptual": ("engine.evals.perceptual.evaluate", "perceptual"),
    "probe": ("engine.evals.probe.evaluate", "probe"),
    "reconstruct": ("engine.evals.reconstruction.bank", "reconstruct_from_bank"),
    "report": ("engine.study.report", "report"),
    "saliency": ("engine.evals.saliency.bank", "saliency_from_bank"),
    "search": ("engine.evals.neighbours.search", "search"),
}
_MODULES = {"datasets": "engine.datasets", "models": "engine.models"}


if not TYPE_CHECKING:  # so that a type checker reports unknown names

    def __getattr__(name: str) -> Any:
        if name in _HOMES:
            module, there = _HOMES[name]
            value = getattr(import_module(module), there)
        elif name in _MODULES:
            value = import_module(_MODULES[name])
        elif name == "__version__":
            from importlib.metadata import version

            value = version("embank")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
