"""embank for scripts and notebooks; every name is imported when it is first used.

    import embank

    images = embank.Manifest.from_folder("xrays/")
    embank.embed(images, ["torchvision/resnet50"], "xrays.bank")
    features = embank.Bank.open("xrays.bank").features()
    x, y = features.xy()  # usable rows: [n, d] float32, [n] int64

| name | what it is | called as |
| --- | --- | --- |
| `Manifest` | the list of images | `read(path)`, `from_folder(path)`, `from_table(path)`, `from_frame(...)` |
| `Bank` | a bank on disk or in a bucket | `open(path)`, then `features(name)`, `list()`, `manifest()` |
| `Features` | one sealed feature of a bank | `array`, `ok`, `labels`, `labelled(...)`, `xy(label, split)` |
| `embed` | images to features, in a bank | `embed(manifest, models, bank, *, runtime, options, ...)` |
| `fewshot` | prototypes on arrays | `fewshot(features, labels, Protocol(...), *, groups, ok, ...)` |
| `knn` | neighbours on arrays | `knn(features, labels, KnnOptions(...), *, train, test, groups, ok)` |
| `probe` | linear probe on arrays | `probe(features, labels, *, train, test, options=ProbeOptions(...))` |
| `invariance` | invariances, from a bank | `invariance(bank, model, InvarianceOptions(transforms=...))` |
| `saliency` | occlusion maps, from a bank | `saliency(bank, model, SaliencyOptions(...), *, device, ...)` |
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
    from engine.evals.common.torch_dataset import TorchDataset as TorchDataset
    from engine.evals.fewshot.evaluate import Protocol as Protocol
    from engine.evals.fewshot.evaluate import fewshot as fewshot
    from engine.evals.invariance.evaluate import invariances_from_bank as invariance
    from engine.evals.invariance.options import InvarianceOptions as InvarianceOptions
    from engine.evals.neighbours.knn import KnnOptions as KnnOptions
    from engine.evals.neighbours.knn import knn as knn
    from engine.evals.neighbours.search import search as search
    from engine.evals.probe.evaluate import ProbeOptions as ProbeOptions
    from engine.evals.probe.evaluate import probe as probe
    from engine.evals.saliency.bank import saliency_from_bank as saliency
    from engine.evals.saliency.options import SaliencyOptions as SaliencyOptions
    from stores.bank.reader import Bank as Bank
    from stores.bank.reader import FeatureSet as Features
    from stores.errors import EmbankError as EmbankError
    from stores.manifest.manifest import Manifest as Manifest

    __version__: str

__all__ = [
    "Bank",
    "EmbankError",
    "Features",
    "InvarianceOptions",
    "KnnOptions",
    "Manifest",
    "ProbeOptions",
    "Protocol",
    "SaliencyOptions",
    "TorchDataset",
    "__version__",
    "datasets",
    "embed",
    "fewshot",
    "invariance",
    "knn",
    "models",
    "probe",
    "saliency",
    "search",
]

#: Public name -> its module, and its name there; a test holds this against the imports above.
_HOMES = {
    "Bank": ("stores.bank.reader", "Bank"),
    "EmbankError": ("stores.errors", "EmbankError"),
    "Features": ("stores.bank.reader", "FeatureSet"),
    "InvarianceOptions": ("engine.evals.invariance.options", "InvarianceOptions"),
    "KnnOptions": ("engine.evals.neighbours.knn", "KnnOptions"),
    "Manifest": ("stores.manifest.manifest", "Manifest"),
    "ProbeOptions": ("engine.evals.probe.evaluate", "ProbeOptions"),
    "Protocol": ("engine.evals.fewshot.evaluate", "Protocol"),
    "SaliencyOptions": ("engine.evals.saliency.options", "SaliencyOptions"),
    "TorchDataset": ("engine.evals.common.torch_dataset", "TorchDataset"),
    "embed": ("engine.embed.run", "embed"),
    "fewshot": ("engine.evals.fewshot.evaluate", "fewshot"),
    "invariance": ("engine.evals.invariance.evaluate", "invariances_from_bank"),
    "knn": ("engine.evals.neighbours.knn", "knn"),
    "probe": ("engine.evals.probe.evaluate", "probe"),
    "saliency": ("engine.evals.saliency.bank", "saliency_from_bank"),
    "search": ("engine.evals.neighbours.search", "search"),
}
_MODULES = {"datasets": "engine.datasets", "models": "engine.models"}


if not TYPE_CHECKING:  # so that a type checker knows which names there are not

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
