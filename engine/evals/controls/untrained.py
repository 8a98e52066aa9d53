"""The untrained network of a feature's architecture, as a feature of the same bank."""

import shlex
from dataclasses import dataclass

from engine.embed.provenance import is_untrained
from engine.errors import Refused
from engine.evals.common.features import Features, Source
from engine.evals.controls.columns import with_array
from engine.recipes import RECIPES
from stores.bank.feature_info import FeatureInfo
from stores.bank.layout import MANIFEST

#: Namespace of architectures -> that of their untrained networks in the catalogue.
_NAMESPACES = {"torchvision": "random/", "timm": "random-timm/"}


@dataclass(frozen=True, eq=False)
class Untrained:
    """Features of an untrained network.

    Attributes:
        features: its own, with the labels, patients and splits of the model's.
        feature: full name in the bank.
        note: in what they differ from the model's beside the weights; "" if in nothing.
    """

    features: Features
    feature: str
    note: str


def untrained_of(features: Features) -> Untrained:
    """Return the features of an untrained network of the same architecture that lie in the same bank.

    Of several it is one with the same preprocessing, and the same precision and decoder, where there is one.

    Raises:
        Refused: there is none, the remedy being the command that makes it; or the model is one itself.
        BankError: it is damaged.
    """
    source = features.source
    if source is None:
        raise Refused(
            "Arrays have no architecture",
            "The untrained network has the architecture of the model",
            "evaluate it as a model of its own, or take Features.from_bank(BANK, MODEL)",
        )
    bank, key = source.bank, source.features.key
    if is_untrained(bank, source.features.name, key.model):
        raise Refused(f"{features.title} is untrained itself", "The control is another one", "none is needed")
    fitting = [
        info
        for info in bank.list()
        if info.sealed
        and (info.key.architecture, info.key.layer) == (key.architecture, key.layer)
        and is_untrained(bank, info.name, info.key.model)
    ]
    if not fitting:
        raise _missing(source)
    best = max(fitting, key=lambda info: _likeness(info, source))
    theirs = bank.features(best.name)
    alike = best.key.recipe == key.recipe
    note = "" if alike else "its preprocessing differs from the model's"
    return Untrained(with_array(features, theirs.title, theirs.array, theirs.ok), theirs.name, note)


def _likeness(info: FeatureInfo, source: Source) -> tuple[bool, ...]:
    key = source.features.key
    return tuple(getattr(info.key, name) == getattr(key, name) for name in ("recipe", "precision", "decoder"))


def control_slug(architecture: str) -> str:
    """Return the slug of the untrained network of an architecture; "" where the catalogue has none."""
    namespace, _, name = architecture.partition("/")
    return _NAMESPACES[namespace] + name if namespace in _NAMESPACES and name else ""


def _missing(source: Source) -> Refused:
    """Return the error for a bank without an untrained network of the architecture."""
    architecture, bank = source.features.key.architecture, source.bank.path
    slug = control_slug(architecture)
    reason = f"The bank has no untrained network of {architecture}"
    if not slug:
        return Refused(reason, "The catalogue has none either", "none is known")
    words = ["embank", "embed", str(bank / MANIFEST), "--model", slug, *_as_made(source), "--bank", str(bank)]
    return Refused(
        reason, "Controls embed nothing by themselves", f"run `{' '.join(map(shlex.quote, words))}`"
    )


def _as_made(source: Source) -> list[str]:
    """Return the option that repeats the preprocessing of the model's features, if that has a name."""
    recipe = source.features.key.recipe
    return next((["--recipe", name] for name, one in RECIPES.items() if one.key_digest == recipe), [])
