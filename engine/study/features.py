"""Features of a study's models: a data set's manifest and bank, made or taken over where they are missing."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine import datasets
from engine.study import folder
from engine.study.attempts import attempt
from engine.study.embedding import Embedding
from engine.study.folder import Note
from engine.study.image_sets import ImageSet
from engine.study.ledger import Ledger
from engine.study.study import Model, Study
from stores.bank.reader import Bank
from stores.bank.writer import as_in_bank, bank_if_there, refuse_misfit, refuse_other_labels
from stores.errors import BankError, EmbankError
from stores.manifest.ids import with_ids_of
from stores.manifest.manifest import Manifest


@dataclass
class Supply:
    """What makes the features that evaluations need.

    Attributes:
        study, directory: the study and its folder.
        embedding: how, and by whom.
        note: of the folder; kept up to date.
        say_what: takes what is being done, e.g. `embedding digits`.
    """

    study: Study
    directory: Path
    embedding: Embedding
    note: Note
    say_what: Callable[[str], None] = lambda _: None

    def manifest(self, images: ImageSet) -> None:
        """See that a built-in data set has the manifest of today's study file. Raises as `read_manifest`."""
        data = images.data
        if data.builtin is None:
            return
        path, name = images.manifest(self.directory), images.manifest(self.directory).name
        digest = _digest_of([data.builtin, self._at(data.folder), images.build])
        known = self.note.embedded.get(name)
        if not path.is_file() or known not in (None, digest):
            self.say_what(f"indexing {images.name}")
            path.unlink(missing_ok=True)
            read_manifest(images, self.directory)
        if known != digest:
            self._keep(name, digest)

    def _keep(self, name: str, digest: str) -> None:
        self.note = replace(self.note, embedded={**self.note.embedded, name: digest})
        self.note.write(self.directory)

    def provide(self, images: ImageSet, models: Sequence[Model]) -> dict[str, EmbankError]:
        """See that a bank has finished features of models.

        Args:
            images: of the bank.
            models: that will be evaluated.

        Returns:
            Name of a model -> why it has no feature there; empty if all have.

        Raises:
            MachineFault: the disk is full, or a device is lost; what is finished is kept.
        """
        bank = images.bank(self.directory)
        lacking = self._lacking(bank, models)
        if images.data.bank is not None:
            return {model.name: _absent(bank, model) for model in lacking}
        if not lacking and not self.changed(images):
            return {}
        errors = attempt(self._relabel if images.relabels else self._embed, images, models)
        if isinstance(errors, EmbankError):
            return {model.name: errors for model in models}
        if not errors:
            self._keep(images.name, self._digest(images))
        return errors

    def changed(self, images: ImageSet) -> bool:
        """Return whether manifest, weights or study file have changed since a bank's features were made.

        A file that is not there any more is no change: what was made of it is still right.
        """
        data = images.data
        named = [data.manifest, *self._model_files()]
        if data.bank is not None or not all(path is None or path.exists() for path in named):
            return False
        return self.note.embedded.get(images.name) != self._digest(images)

    def _embed(self, images: ImageSet, models: Sequence[Model]) -> dict[str, EmbankError]:
        """Embed all models in one run, which shares decode passes."""
        self.say_what(f"embedding {images.name}")
        manifest, bank = read_manifest(images, self.directory), images.bank(self.directory)
        refuse_other_manifest(bank, manifest)
        return self.embedding.embed(images, manifest, models, bank)

    def _relabel(self, images: ImageSet, models: Sequence[Model]) -> dict[str, EmbankError]:
        """Take over the features of the data set's own bank, under the labels and splits of a mode."""
        from engine.embed.relabel import relabel

        own = ImageSet(images.data)
        self.manifest(own)
        errors = self.provide(own, models)
        names = [model.name for model in models if model.name not in errors]
        if names:
            self.say_what(f"relabelling {images.name}")
            manifest = read_manifest(images, self.directory)
            relabel(own.bank(self.directory), manifest, images.bank(self.directory), features=names)
        return errors

    def _lacking(self, bank: Path, models: Sequence[Model]) -> list[Model]:
        ledger = Ledger.if_there(bank)
        return [model for model in models if ledger is None or model.name not in ledger.features]

    def _digest(self, images: ImageSet) -> str:
        """Return the digest of what the study file, and files it names, say of a bank's features."""
        models = [
            [one.name, one.slug, self._at(one.weights), self._at(one.recipe)] for one in self.study.models
        ]
        data = images.data
        paths = map(self._at, (data.folder, data.manifest, data.root))
        files: list[object] = [data.builtin, *paths, images.build]
        states = [path.stat() for path in self._model_files() if path.exists()]
        files += [[state.st_size, state.st_mtime_ns] for state in states]  # hashed if either has changed
        if data.manifest is not None and data.manifest.is_file():  # another manifest meets the bank's checks
            files.append(hashlib.sha256(data.manifest.read_bytes()).hexdigest())
        return _digest_of([models, files, dict(self.study.embed)])

    def _model_files(self) -> list[Path]:
        """Return the weights and recipes that the study file names."""
        files = [Path(word) for one in self.study.models for word in (one.weights, one.recipe) if word]
        return [path for path in files if path.is_absolute()]  # a recipe may be the name of one

    def _at(self, path: Path | str | None) -> str:
        """Return a path relative to the study file's folder: a study that is moved is still the same."""
        return str(path).removeprefix(f"{self.study.root}/")


def _digest_of(body: list[object]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def _absent(bank: Path, model: Model) -> EmbankError:
    return BankError(
        f"{model.name} is not in {bank}",
        "A bank that a study names is evaluated as it is",
        "run `embank embed` for this model, or give the data set's manifest in place of its bank",
    )


def refuse_other_manifest(path: Path, manifest: Manifest) -> None:
    """Refuse a manifest that is not the one that a bank was made from; nothing without a bank.

    Raises:
        BankError: other images, labels, splits or groups; or the bank is damaged.
    """
    bank = bank_if_there(path)
    if bank is None:
        return
    named = as_in_bank(bank, with_ids_of(bank, manifest)[0])
    try:
        refuse_misfit(path, bank, named)
        refuse_other_labels(bank, named)
    except BankError as error:
        raise BankError(
            error.found,
            "The numbers of a study are of the images and labels that its banks were made with",
            "put the former manifest back, name another folder with --dir, or remove the bank, so that its "
            "cells are made again",
        ) from error


def read_manifest(images: ImageSet, directory: Path) -> Manifest:
    """Return the manifest of an image set; that of a built-in data set is made once, in the study's folder.

    Args:
        directory: of the study.

    Raises:
        Refused: missing or malformed files. MachineFault: the disk is full or fails.
    """
    data = images.data
    if data.bank is not None:
        return Bank.open(data.bank).manifest()
    path = images.manifest(directory)
    if data.manifest is not None:
        return Manifest.read(path, root=data.root)
    if not path.is_file():
        assert data.builtin is not None
        manifest = datasets.build(data.builtin, images.folder(directory), images.mode, images.build)
        folder.make(path.parent)
        manifest.write(path)
    return Manifest.read(path)
