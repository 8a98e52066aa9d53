"""The encoder and the images of a bank's feature, as they were when it was made.

Every command that opens images looks for them by the same rule:

1. In the folder given with `--root`.
2. Else in the folder that the feature's provenance records, absolute: a bank that has been copied or moved
   still means these very files. For a model of which the bank has no feature, the records of all its finished
   features count; where they differ, the user must choose.
3. Else in the root that the bank's manifest keeps. It is relative to the bank where both lie in one folder,
   so it still holds when that folder is moved with both. But a bank that was copied alone may thereby name
   another folder, with other pictures of the same names. So this root counts only where digests, of the
   manifest or kept beside the features, prove that its files are the bank's images.
4. Else the command is refused, and the message says what to pass to `--root`.

A folder that holds none of the images (an empty mount point, say) counts as missing. Whichever folder it is,
every file is compared with the one that the bank's rows were made from (`stores.bank.contents`) and with the
digest that the manifest has of it, and the limits of the feature's run hold.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from engine import models
from engine import runtime as machine
from engine.decode import Decoder, make_decoder
from engine.decode.contents import Contents, Table
from engine.decode.source import ImageSource, Limits
from engine.embed.options import EmbedOptions, image_source
from engine.embed.provenance import Provenance
from engine.errors import BadImage, BankError, ChangedImage, Refused
from engine.models import ModelSpec, resolve
from engine.recipes import Recipe
from engine.runtime import Runtime
from stores.bank.contents import contents_of_bank, known
from stores.bank.layout import SIDE
from stores.bank.reader import Bank
from stores.bank.seal import definition
from stores.manifest.manifest import Manifest
from stores.members import split

if TYPE_CHECKING:
    from engine.models import Encoder

#: Number of files whose digests are compared before a root without other evidence is accepted.
_COMPARED = 8


@dataclass(frozen=True)
class Restored:
    """The encoder and the images of a feature: how it is computed again.

    Attributes:
        bank, feature: where it lies, and its full name.
        spec: the model with the weights and the recipe of the feature.
        runtime: the precision of the feature, on the device chosen now.
        made: the feature's provenance.
        root: the images' folder that was given, if one was.
    """

    bank: Bank
    feature: str
    spec: ModelSpec
    runtime: Runtime
    made: Provenance
    root: Path | None = None

    @cached_property
    def options(self) -> EmbedOptions:
        """The settings of the feature's run, with the decoder that ran, whatever `auto` means here.

        Raises:
            BankError: the feature's key is lost, or its provenance contradicts it.
        """
        layout, made = definition(self.bank.path, self.feature), self.made
        if layout is None:
            raise BankError(
                f"The key of {self.feature} is lost",
                "It says what the feature is",
                "run the same `embank embed` command again, which writes it anew",
            )
        if made.decoder not in ("", layout.key.decoder):
            path = self.bank.path / SIDE / self.feature / "provenance.json"
            raise BankError(
                f"{path} says that {made.decoder} decoded the images, the feature's key says "
                f"{layout.key.decoder}",
                "Both were written by the run that made the feature",
                f"remove {path} and run the same `embank embed` command again, which writes it anew",
            )
        name, _, variant = layout.key.decoder.partition("-")
        return replace(self.made.options, decoder=name, dct=variant == "dct")

    @cached_property
    def images(self) -> ImageSource:
        """The files that the feature was made from, looked for at the first use. Raises as `images_of`."""
        return images_of(self.bank, self.feature, root=self.root)

    def other_file(self, image: Path) -> ImageSource:
        """Take a file that is not in the bank, under the limits of the feature's run."""
        return one_file(image, self.made.options.limits)

    def decoder(self, batch_size: int) -> Decoder:
        """Make the decoder whose pixels the feature was made from.

        Args:
            batch_size: the most images of a batch.

        Raises:
            Refused: it is not installed here.
        """
        return make_decoder(
            self.options.decoder,
            self.spec.recipe.rendering,
            device=self.runtime.device,
            threads=self.runtime.threads,
            batch_size=batch_size,
            dct=self.options.dct,
        )

    def encoder(self, recipe: Recipe | None = None) -> "Encoder":
        """Load the encoder: uint8 [B, S, S, 3] pixels in, float32 [B, d] features out.

        Args:
            recipe: whose normalisation to apply, instead of the feature's.

        Raises:
            WeightsError: the weights have changed since they were resolved.
        """
        return models.load(replace(self.spec, recipe=recipe or self.spec.recipe), self.runtime)


def restore(
    bank: Bank,
    feature: str,
    *,
    weights: Path | None = None,
    root: Path | None = None,
    device: str = "auto",
    recorded_threads: bool = False,
    same_kind: bool = False,
) -> Restored:
    """Resolve a feature's model again and make sure that its weights are the same; opens no image.

    Args:
        feature: its full name.
        weights: the weights file, where it is not at its recorded place any more.
        root: the images' folder, likewise.
        device: `auto` is the device that the feature was made on, if it is here; else the first of the same
            kind; else the CPU. Or `cpu`, `cuda`, `cuda:N`.
        recorded_threads: as many threads as the feature's run had, instead of all usable cores.
        same_kind: refuse rather than let `auto` be another kind of device.

    Raises:
        Refused: the weights are not there, or are others than the feature's; no such device.
        BankError: the provenance is missing or damaged.
    """
    made = Provenance.of(bank, feature)
    then = made.runtime
    if device == "auto":
        device = machine.device_like(then.device)
        if device == "cpu":
            _refuse_the_cpu(made, same_kind)
    threads = then.threads if recorded_threads else None
    runtime = Runtime.resolve(device, then.precision, threads, then.seed, then.compile)
    return Restored(bank, feature, _spec_of(made, weights, made.recipe), runtime, made, root)


def _refuse_the_cpu(made: Provenance, same_kind: bool) -> None:
    """Refuse what `auto` cannot compute, or not equally, where it resolves to the CPU."""
    then = made.runtime
    if not then.on_cuda:
        return
    if then.precision == "fp16":
        raise Refused(
            f"{made.model} was embedded in fp16 on {then.device}, and there is no CUDA device here",
            "Half precision is for CUDA",
            "run the command on a machine with a GPU",
        )
    if same_kind:
        raise Refused(
            f"{made.model} was embedded on {then.device}, and there is no CUDA device here",
            "The CPU rounds otherwise, so its chunks would not equal the others bit for bit",
            "run the command on a machine with a GPU, or accept that with --device cpu",
        )


def spec_of(
    bank: Bank, feature: str, *, weights: Path | None = None, recipe: Recipe | None = None
) -> ModelSpec:
    """Resolve the model of a feature, with the very weights and preprocessing.

    Args:
        feature: its full name.
        weights: the weights file, where it is not at its recorded place any more.
        recipe: preprocessing instead of the feature's.

    Raises:
        Refused: the weights are not there, or are others than the feature's.
        BankError: the provenance is missing or damaged.
    """
    made = Provenance.of(bank, feature)
    return _spec_of(made, weights, recipe or made.recipe)


def _spec_of(made: Provenance, weights: Path | None, recipe: Recipe) -> ModelSpec:
    if weights is None and made.weights_path is not None and not made.weights_path.exists():
        raise Refused(
            f"the weights of {made.model} are not at {made.weights_path} any more",
            "What is compared with the bank's features goes through the very weights that made them",
            "give the file with --weights FILE",
        )
    spec = resolve(made.model, weights=weights or made.weights_path, recipe=recipe, seed=made.runtime.seed)
    if spec.weights_sha256 != made.weights_sha256:
        raise Refused(
            f"weights {spec.weights_sha256[:12]} ({spec.weights_source})",
            f"The bank's features were made with {made.weights_sha256[:12]} ({made.weights_source})",
            "give the original file with --weights",
        )
    return spec


def recipe_of(bank: Bank, feature: str) -> Recipe:
    """Return the preprocessing of a feature, by its full name. Raises BankError: the provenance is lost."""
    return Provenance.of(bank, feature).recipe


# --- images -------------------------------------------------------------------------------------------


def images_of(
    bank: Bank, feature: str | None, *, root: Path | None = None, allow_outside: bool = False
) -> ImageSource:
    """Find the image files of a bank; every command that opens them does it here.

    Args:
        feature: full name of the feature whose provenance says where they are and which limits hold; None
            takes all finished features, and of their limits the largest.
        root: their folder, where it has moved.
        allow_outside: let paths and links lead out of the root, even if the feature's run did not.

    Raises:
        Refused: they are nowhere, or could be in one of several folders.
        BankError: the manifest or a provenance is missing or damaged.
    """
    manifest, made = bank.manifest(), _records(bank, feature)
    options, contents = _options(made, allow_outside), Contents(_expected(bank, feature))
    folders = _Folders(bank, manifest, options, contents)
    folder = (
        folders.recorded([provenance.root for provenance in made]) if root is None else folders.named(root)
    )
    return image_source(replace(manifest, root=folder), options, contents)


def _expected(bank: Bank, feature: str | None) -> Table:
    """Return the digests that the rows of the feature, and features beside it, were made from."""
    layout = None if feature is None else definition(bank.path, feature)
    return contents_of_bank(bank, "" if layout is None else layout.image_set, pass_damaged=True)


def images_listed(manifest: Manifest, *, allow_outside: bool = False) -> ImageSource:
    """Find the image files of a manifest that is no bank's, below its root.

    Raises:
        Refused: none of them is there.
    """
    if not _holds(manifest.root, manifest.uris):
        raise _nothing(manifest.root, manifest.uris)
    return image_source(manifest, EmbedOptions(allow_outside=allow_outside))


def one_file(image: Path, limits: Limits) -> ImageSource:
    """Take a file that the user named, so that a link may lead wherever it does."""
    return ImageSource(image.parent, [image.name], limits=limits, allow_outside=True)


def _records(bank: Bank, feature: str | None) -> list[Provenance]:
    names = [info.name for info in bank.list() if info.sealed] if feature is None else [feature]
    return [Provenance.of(bank, name) for name in names]


def _options(made: Sequence[Provenance], allow_outside: bool) -> EmbedOptions:
    limits = [provenance.options.limits for provenance in made] or [Limits()]
    return EmbedOptions(
        limits=Limits(max(limit.max_pixels for limit in limits), max(limit.max_bytes for limit in limits)),
        allow_outside=allow_outside or any(provenance.options.allow_outside for provenance in made),
    )


@dataclass(frozen=True)
class _Folders:
    """The folders in which the images of a bank may be."""

    bank: Bank
    manifest: Manifest
    options: EmbedOptions
    contents: Contents

    def named(self, root: Path) -> Path:
        """Return the folder that the user named. Raises Refused: it holds none of the images."""
        if not _holds(root, self.manifest.uris):
            raise _nothing(root, self.manifest.uris)
        return root.resolve()

    def recorded(self, roots: Iterable[Path]) -> Path:
        """Return the one folder that the features were made from, or else the one beside the bank.

        Raises:
            Refused: the images are in several folders or in none, or are others.
        """
        absolute = list(dict.fromkeys(path for path in map(self._absolute, roots) if path is not None))
        there = [path for path in absolute if _holds(path, self.manifest.uris)]
        if len(there) > 1:
            raise Refused(
                f"The images of {self.bank.path} are in {' and in '.join(map(str, there))}",
                "Its features were made from different folders, and this command uses none of them",
                "give the one you mean with --root",
            )
        return there[0] if there else self._beside(absolute)

    def _absolute(self, root: Path) -> Path | None:
        """Return a recorded root as an absolute path; a relative one only if it equals the manifest's root.

        Early versions recorded what the user typed, relative to a working directory that is no longer known.
        """
        here = root.resolve()
        return here if root.is_absolute() or here == self.manifest.root.resolve() else None

    def _beside(self, gone: Sequence[Path]) -> Path:
        """Return the root in the bank's manifest, if its files are the bank's images."""
        lost = f"No finished feature of {self.bank.path} records where its images are"
        if gone:
            lost = f"The images of {self.bank.path} are not in {' or in '.join(map(str, gone))} any more"
        beside = self.manifest.root.resolve()
        if not _holds(beside, self.manifest.uris):
            raise Refused(
                lost,
                "Images are read from the folder that the features were made from",
                "say where it is now with --root FOLDER",
            )
        images = image_source(replace(self.manifest, root=beside), self.options, self.contents)
        agreeing, other = _compare(images)
        if agreeing > other:
            return beside
        if other:
            raise Refused(
                lost,
                f"The files of the same names in {beside} are others by their SHA-256",
                "say where the images are now with --root FOLDER",
            )
        raise Refused(
            lost,
            f"{beside} has files of the same names, but nothing recorded proves that they are the same "
            "pictures",
            f"if they are, give --root {beside}",
        )


def _compare(images: ImageSource) -> tuple[int, int]:
    """Count the files of a sample whose digests are the recorded ones, and those with others."""
    assert images.contents is not None
    listed = [bool(digest) for digest in images.sha256] if images.sha256 else np.zeros(len(images), bool)
    rows = np.flatnonzero(known(images.contents.expected) | listed)
    picked = np.linspace(0, len(rows) - 1, min(_COMPARED, len(rows))).round().astype(int)
    agreeing = other = 0
    for row in rows[picked].tolist():
        try:
            images.read(row)
            agreeing += 1
        except ChangedImage:
            other += 1
        except BadImage as error:
            other += error.code == "digest"
    return agreeing, other


def _holds(root: Path, uris: Sequence[str]) -> bool:
    """Return whether any image is below the root; absolute uris do not depend on it."""
    relative = [uri for uri in uris if not uri.startswith("/")]
    return not relative or any(os.path.exists(root / split(uri)[0]) for uri in relative)  # noqa: PTH110


def _nothing(root: Path, uris: Sequence[str]) -> Refused:
    what = "holds none" if root.is_dir() else "is no folder, and so holds none"
    return Refused(
        f"{root} {what} of the {len(uris):,} images, e.g. {uris[0]}",
        "The root is the folder that the manifest's relative paths start from",
        "give that folder with --root",
    )
