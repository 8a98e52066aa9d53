"""Embedding of a study's models: all that a bank lacks in one run, so that models share decode passes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.executors import SERIAL, Executor
from engine.study.attempts import attempt
from engine.study.evaluating import Machine
from engine.study.image_sets import ImageSet
from engine.study.ledger import Ledger
from engine.study.study import Model
from stores.bank.keys import FeatureKey
from stores.errors import EmbankError, Refused
from stores.json_types import Json
from stores.manifest.manifest import Manifest

if TYPE_CHECKING:
    from engine.embed.options import EmbedOptions, InputChecks
    from engine.embed.report import EmbedReport
    from engine.models import ModelSpec
    from engine.pipeline import PassProgress
    from engine.runtime import Runtime


@dataclass(frozen=True)
class Embedding:
    """How a study embeds, and who does it.

    Attributes:
        settings: `Study.embed`.
        machine: device, precision and threads.
        executor: this process, or workers.
        on_progress: called during decode passes.
    """

    settings: Mapping[str, Json]
    machine: Machine = field(default_factory=Machine)
    executor: Executor = SERIAL
    on_progress: "Callable[[PassProgress], None] | None" = None

    def embed(
        self, images: ImageSet, manifest: Manifest, models: Sequence[Model], bank: Path
    ) -> dict[str, EmbankError]:
        """Embed a manifest with the models whose features a bank lacks.

        Args:
            images: that the manifest is of.
            models: their names become those of the features.
            bank: made if absent.

        Returns:
            Name of a model -> why it has no features, or others than the study file asks for; empty if all
            have theirs.

        Raises:
            MachineFault: the disk is full, or a device is lost; committed chunks are kept.
        """
        errors: dict[str, EmbankError] = {}
        specs: dict[Model, ModelSpec] = {}
        for model in models:
            spec = attempt(self.spec, model, images)
            if isinstance(spec, EmbankError):
                errors[model.name] = spec
            else:
                specs[model] = spec
        there = finished_keys(bank)
        for model in [model for model in specs if model.name in there]:
            if changed := self._changed(there[model.name], specs[model]):
                del specs[model]
                errors[model.name] = _made_otherwise(model, bank, changed)
            elif not self.settings.get("certify"):  # which measures a feature that is there as well
                del specs[model]
        return errors | (self._together(manifest, specs, bank) if specs else {})

    def _changed(self, made: FeatureKey, spec: "ModelSpec") -> list[str]:
        """Return what a feature was made with that is not what the study file says of it now.

        Precision and decoder count only where the file names them: by default they are the machine's.
        """
        options, runtime = self.options(), self.runtime()
        wanted = {
            "weights": spec.weights_sha256,
            "architecture": spec.architecture,
            "layer": spec.layer,
            "recipe": spec.recipe.key_digest,
            "dtype": options.dtype,
        }
        if self.settings.get("precision", "auto") != "auto":
            wanted["precision"] = runtime.numerics
        if options.decoder != "auto":
            from engine.decode import decoder_name

            wanted["decoder"] = self.executor.ask(decoder_name, options.decoder, runtime.device, options.dct)
        return [name for name, value in wanted.items() if getattr(made, name) != value]

    def spec(self, model: Model, images: ImageSet) -> "ModelSpec":
        """Resolve a model with its weights and preprocessing. Raises Refused: no such model or weights."""
        from engine.models import resolve
        from engine.recipes import load_recipe

        recipe = load_recipe(model.recipe) if model.recipe else None
        seed: Any = self.settings.get("seed", 0)
        spec = resolve(model.slug, weights=model.weights, recipe=recipe, seed=seed)
        side: Any = self.settings.get("side")
        return replace(spec, recipe=images.recipe(spec.recipe, side))

    def _together(
        self, manifest: Manifest, specs: "Mapping[Model, ModelSpec]", bank: Path
    ) -> dict[str, EmbankError]:
        """Embed all models at once; where that fails, one by one, so that one spoils no other."""
        error = attempt(self._run, manifest, specs, bank)
        if error is None:
            return {}
        if len(specs) == 1:
            return {model.name: error for model in specs}
        return {
            name: own
            for model, spec in specs.items()
            for name, own in self._together(manifest, {model: spec}, bank).items()
        }

    def _run(self, manifest: Manifest, specs: "Mapping[Model, ModelSpec]", bank: Path) -> None:
        from engine.embed.run import embed

        runtime = self.runtime()
        reports = embed(
            manifest,
            list(specs.values()),
            bank,
            runtime=runtime,
            options=self.options(),
            checks=self._checks(),
            executor=self.executor,
            on_progress=self.on_progress,
            names=[model.name if model.name != model.slug else None for model in specs],
        )
        if self.settings.get("certify"):
            self._certify(manifest, specs, bank, reports)

    def runtime(self) -> "Runtime":
        """Return device, precision and threads of whichever processes embed; the command line's go first."""
        from engine.runtime import Runtime

        precision: Any = self.settings.get("precision", "auto")
        own = self.machine
        chosen = own.precision if own.precision != "auto" else precision
        seed: Any = self.settings.get("seed", 0)
        return self.executor.ask(Runtime.resolve, own.device, chosen, own.threads, seed)

    def options(self) -> "EmbedOptions":
        """Return the options of embedding."""
        from engine.decode.source import Limits
        from engine.embed.options import EmbedOptions

        names = ("decoder", "dct", "dtype", "batch_size", "chunk_rows")
        given: Any = {name: self.settings[name] for name in names if name in self.settings}
        most: Any = self.settings.get("max_pixels")
        return EmbedOptions(**given, limits=Limits() if most is None else Limits(max_pixels=most))

    def _checks(self) -> "InputChecks":
        from engine.embed.options import InputChecks

        share: Any = self.settings.get("max_failed", InputChecks().max_missing)
        return InputChecks(max_missing=share)

    def _certify(
        self,
        manifest: Manifest,
        specs: "Mapping[Model, ModelSpec]",
        bank: Path,
        reports: "Sequence[EmbedReport]",
    ) -> None:
        """Measure features against Pillow and the plain model in fp32, in this process."""
        from engine.embed.certify import certify
        from engine.runtime import Runtime

        own, seed = self.machine, self.runtime().seed
        here = Runtime.resolve(own.device, own.precision, own.threads, seed)
        for spec, report in zip(specs.values(), reports, strict=True):
            certify(manifest, spec, bank, runtime=here, options=self.options(), feature=report.feature)


def finished_keys(bank: Path) -> dict[str, FeatureKey]:
    """Return word by which a model can be named -> key of its finished feature; empty without a bank.

    Raises:
        BankError: the bank is damaged.
    """
    ledger = Ledger.if_there(bank)
    return {} if ledger is None else dict(ledger.keys)


def _made_otherwise(model: Model, bank: Path, changed: Sequence[str]) -> Refused:
    words = ["other weights" if name == "weights" else f"another {name}" for name in changed]
    return Refused(
        f"{model.name} in {bank} was made with {' and '.join(words)}",
        "A study has one feature of each model, and all its numbers are of it",
        "take back the change, or name another folder with --dir",
    )
