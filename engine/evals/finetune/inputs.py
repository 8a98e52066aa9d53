"""Inputs of a finetuning: images with labels, a model, and the bank that keeps its checkpoints and record."""

from dataclasses import dataclass

from engine.decode.source import ImageSource
from engine.embed.restore import images_listed, images_of, spec_of
from engine.evals.common.features import Source
from engine.models import ModelSpec
from stores.backends.location import Place, place
from stores.bank.reader import Bank
from stores.bank.writer import as_in_bank, bank_if_there, open_or_create, refuse_misfit, refuse_other_labels
from stores.manifest.ids import with_ids_of
from stores.manifest.manifest import Manifest


@dataclass(frozen=True, eq=False)
class Inputs:
    """Images, a model, and a bank.

    Attributes:
        manifest: the images.
        source: their files.
        spec: the model.
        title: the name shown to users.
        home: the bank.
        label: column with the classes.
        feature: full name of the bank's feature that the model made; else the slug.
        key: digest of what that feature depends on; None where there is none.
    """

    manifest: Manifest
    source: ImageSource
    spec: ModelSpec
    title: str
    home: Place
    label: str
    feature: str
    key: str | None = None

    @classmethod
    def of_manifest(
        cls,
        manifest: Manifest,
        spec: ModelSpec,
        bank: Place | str,
        *,
        label: str = "label",
        allow_outside: bool = False,
    ) -> "Inputs":
        """Take the images of a manifest, for a bank of it, which need not be there yet.

        Raises:
            BankError, Refused: the bank has other images or other labels, or the images are not there.
                A file that differs from the one that the bank was made from raises ChangedImage when it is
                read.
        """
        there = bank_if_there(bank)
        manifest = as_in_bank(there, with_ids_of(there, manifest)[0])
        refuse_misfit(bank, there, manifest)
        if there is not None:
            refuse_other_labels(there, manifest)
        made = None if there is None else _feature_of(there, spec)
        if there is None:
            source = images_listed(manifest, allow_outside=allow_outside)
        else:  # each file is compared with the one that the bank's features were made from
            name = made[1] if made else None
            source = images_of(there, name, root=manifest.root, allow_outside=allow_outside)
        title, feature, key = made or (spec.slug, spec.slug, None)
        return cls(manifest, source, spec, title, place(bank), label, feature, key)

    @classmethod
    def of_feature(cls, source: Source, label: str) -> "Inputs":
        """Take the images and the model of a bank's feature.

        Raises:
            Refused: as `engine.embed.restore.images_of` and `spec_of`.
        """
        bank, feature = source.bank, source.features
        spec, images = spec_of(bank, feature.name), images_of(bank, feature.name)
        return cls(bank.manifest(), images, spec, feature.title, bank.path, label, feature.name, source.key)

    def bank(self) -> Bank:
        """Open the bank, which is made if it is not there."""
        return open_or_create(self.home, self.manifest)


def _feature_of(bank: Bank, spec: ModelSpec) -> tuple[str, str, str] | None:
    """Return title, full name and key of the finished feature that a model made; None without one."""
    wanted = (spec.slug, spec.weights_sha256, spec.recipe.key_digest)
    for info in bank.list():
        if info.sealed and (info.key.model, info.key.weights, info.key.recipe) == wanted:
            return info.title, info.name, info.key.digest
    return None
