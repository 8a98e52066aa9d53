"""Weights that a paper's authors published: fetched, checked and converted once, then read as safetensors.

Each model has a folder in the cache (`EMBANK_CACHE`, else `$XDG_CACHE_HOME/embank`, else `~/.cache/embank`):

    models/NAME/FILE                 as published
    models/NAME/source.json          its size, SHA-256, MD5, and where it came from: the pin
    models/NAME/model.safetensors    the encoder's tensors under the architecture's names
    models/NAME/model.json           its SHA-256, the source's, the mapping, versions

The bytes of `model.safetensors` depend on the published file and the mapping alone, so that its SHA-256,
which is part of the feature's key, is the same on every machine.
"""

import datetime
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from engine.errors import MachineFault, WeightsError
from engine.models.checkpoints import download, files
from engine.models.checkpoints.readers import Reader
from engine.models.checkpoints.sources import LocatedWeights
from engine.versions import versions

if TYPE_CHECKING:
    import torch

#: Version of the conversion; a new number means that it writes different tensors.
CONVERSION = 1


class Identity(TypedDict):
    """The size and digests of a file.

    Attributes:
        size: bytes.
        sha256, md5: hexadecimal.
    """

    size: int
    sha256: str
    md5: str


class SourceFile(Identity):
    """The identity of a published file, with its name in the cache."""

    file: str


@dataclass(frozen=True)
class Expected:
    """What is known of a file before it is fetched.

    Attributes:
        sha256, md5: hexadecimal digits that the digest begins with; empty if unknown.
        size: bytes; None if unknown.
    """

    sha256: str = ""
    md5: str = ""
    size: int | None = None


@dataclass(frozen=True)
class Published:
    """A published file, as a source of weights (see `sources.Source`).

    Attributes:
        name: of its folder in the cache, and the argument of `models fetch`.
        url: its https address.
        file: its name in the cache.
        reader: turns it into tensors.
        expected: what is known of it before it is fetched.
        max_bytes: largest size that is fetched.
    """

    name: str
    url: str
    file: str
    reader: Reader
    expected: Expected = field(default_factory=Expected)
    max_bytes: int = 4 << 30

    @property
    def label(self) -> str:
        """See `sources.Source`."""
        return "published by its authors"

    @property
    def folder(self) -> Path:
        """The model's folder in the cache."""
        return cache() / "models" / self.name

    @property
    def source(self) -> Path:
        """The published file in the cache."""
        return self.folder / self.file

    @property
    def converted(self) -> Path:
        """The converted file in the cache."""
        return self.folder / "model.safetensors"

    def present(self) -> str:
        """See `sources.Source`."""
        if self.converted.exists():
            return "yes"
        return "fetched, not converted" if self.source.exists() else "no"

    def find(self, architecture: str, seed: int) -> LocatedWeights:
        """See `sources.Source`."""
        provenance = read_json(self.folder / "model.json")
        if not self.converted.exists() or provenance is None:
            raise self.absent()
        digest = files.sha256_of(self.converted)
        if digest != provenance.get("sha256"):
            raise WeightsError(
                f"{self.converted} has SHA-256 {digest}",
                f"It was {provenance.get('sha256')} when it was converted; the file is damaged",
                f"`embank models convert {self.name}`",
            )
        text = f"{self.url}, SHA-256 {provenance['source']['sha256']}"
        return LocatedWeights(text, digest, self.converted)

    def here(self, architecture: str, seed: int) -> LocatedWeights | None:
        """See `sources.Source`."""
        complete = self.converted.exists() and read_json(self.folder / "model.json") is not None
        return self.find(architecture, seed) if complete else None

    def absent(self) -> WeightsError:
        """Return the error for weights that are not in the cache."""
        step = "convert" if self.source.exists() else "fetch"
        return WeightsError(
            f"The weights of {self.name} are not in {self.folder}",
            "They are fetched and converted once, on request",
            f"`embank models {step} {self.name}`; without a network, add --from-file FILE, from {self.url}",
        )

    def facts(self) -> dict[str, Any]:
        """Return address, expected and pinned digests, mapping and presence, as JSON types."""
        return {
            "url": self.url,
            "file": self.file,
            "known": vars(self.expected),
            "pinned": read_json(self.folder / "source.json"),
            "mapping": self.reader.describe(),
            "folder": str(self.folder),
            "present": self.present(),
        }


def cache() -> Path:
    """Return the cache folder, without creating it."""
    if folder := os.environ.get("EMBANK_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "embank"


def fetch(
    published: Published,
    *,
    from_file: Path | None = None,
    progress: download.Progress | None = None,
    patience: download.Patience | None = None,
    schemes: tuple[str, ...] = ("https",),
) -> Path:
    """Fetch (or copy) a published file into the cache, check it and pin its digests.

    A file that is already in the cache is checked, not fetched again.

    Args:
        published: the file.
        from_file: copy this file instead of fetching.
        progress: called with (bytes received, total bytes or None).
        patience: when to give up fetching.
        schemes: allowed schemes of addresses.

    Returns:
        The file in the cache.

    Raises:
        WeightsError: it cannot be fetched, is a web page, or is not the file that was expected or pinned.
        MachineFault: the disk is full or fails.
    """
    target = published.source
    if target.exists() and from_file is None:
        _check(published, target, target)
        return target
    part = target.with_name(target.name + ".part")
    if from_file is not None:
        _check(published, from_file, from_file)
    with download.parent_folders(part):
        if from_file is not None:
            _copy(from_file, part)
        else:
            download.download(
                published.url,
                part,
                progress=progress,
                max_bytes=published.max_bytes,
                patience=patience,
                schemes=schemes,
            )
        try:
            identity = _check(published, part, from_file or Path(published.url))
        except WeightsError:
            part.unlink(missing_ok=True)
            raise
    origin = {"from_file": from_file is not None, "url": published.url, "when": _now()}
    _write_json(published.folder / "source.json", {**identity, **origin})
    _move(part, target)
    return target


def convert(
    published: Published, architecture: str, *, source: Path | None = None, out: Path | None = None
) -> dict[str, Any]:
    """Read a published file, check that it fits its architecture exactly, and write it as safetensors.

    Args:
        published: the file.
        architecture: canonical name.
        source: read the published file from here instead of the cache; checked as well.
        out: write to this file instead of the cache, with `.json` beside it.

    Returns:
        The provenance as `model.json` holds it: `{model, architecture, source, mapping, tensors, left_out,
        sha256, ...}`.

    Raises:
        WeightsError: absent, not the expected file, or tensors that do not fit.
        MachineFault: the disk is full or fails.
    """
    state, provenance = read_fitted(published, architecture, source)
    target = out or published.converted
    _make(target.absolute().parent)
    digest = _save(state, target, provenance)
    provenance |= {"file": str(target), "sha256": digest, "versions": versions(), "when": _now()}
    _write_json(target.with_suffix(".json"), provenance)
    return provenance


def read_fitted(
    published: Published, architecture: str, source: Path | None = None
) -> tuple["dict[str, torch.Tensor]", dict[str, Any]]:
    """Read a published file and check that it fits its architecture exactly; nothing is written.

    Args:
        published, architecture, source: as for `convert`.

    Returns:
        (the tensors to write, float32; their provenance so far, as `convert` returns it).

    Raises:
        WeightsError: as `convert`.
    """
    from engine.models.backbones import architectures
    from engine.models.checkpoints import weights

    path = source or published.source
    if source is None and not path.exists():
        raise published.absent()
    identity = _check(published, path, path)
    contents = published.reader.read(path)
    module = architectures.build_seeded(architecture, 0)
    body = architectures.body(module)
    tensors = architectures.rename_tensors(architecture, contents.tensors, str(path))
    report = weights.fit(body, tensors, (), str(path))
    provenance = {
        "model": published.name,
        "architecture": architecture,
        "source": identity,
        "mapping": published.reader.describe(),
        "conversion": CONVERSION,
        "tensors": report.tensors,
        "left_out": list(contents.left_out),
    }
    # If names depend on a library's release, the converted file keeps the published ones.
    state = body.state_dict() if tensors is contents.tensors else contents.tensors
    counted = {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}
    return {name: tensor.float() for name, tensor in counted.items()}, provenance


def _save(state: "Mapping[str, torch.Tensor]", target: Path, provenance: dict[str, Any]) -> str:
    """Write tensors with their provenance, durably, and return the SHA-256 of the file."""
    from safetensors.torch import save_file

    part = target.with_name(target.name + ".part")
    # A single key, because the order of several is not fixed, and the file's digest must be.
    metadata = {"embank": json.dumps(provenance, sort_keys=True)}
    try:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, part, metadata)
    except OSError as error:
        raise MachineFault(
            f"{part}: {error}",
            "The converted weights must be written",
            "free space and run the command again",
        ) from error
    digest = files.sha256_of(part)
    _move(part, target)
    return digest


def _check(published: Published, path: Path, shown: Path) -> SourceFile:
    """Return the identity of a published file after comparing it with what is expected and pinned.

    Args:
        published: the file that it should be.
        path: of the file to check.
        shown: its name in errors.

    Raises:
        WeightsError: it is another file.
    """
    identity = identify(path)
    expected = published.expected
    pinned = read_json(published.folder / "source.json") or {}
    as_expected = (
        identity["sha256"].startswith(expected.sha256)
        and identity["md5"].startswith(expected.md5)
        and expected.size in (None, identity["size"])
    )
    if not as_expected:
        raise WeightsError(
            f"{shown} has {identity['size']} bytes, SHA-256 {identity['sha256']}, MD5 {identity['md5']}",
            "The catalogue expects " + ", ".join(f"{k} {v}" for k, v in vars(expected).items() if v),
            "fetch it again; if that does not help, the authors have replaced the file",
        )
    if pinned and pinned.get("sha256") != identity["sha256"]:
        raise WeightsError(
            f"{shown} has SHA-256 {identity['sha256']}",
            f"{pinned.get('sha256')} was pinned when {published.name} was first fetched",
            f"fetch it again; to accept another file, delete {published.folder}",
        )
    return {"file": published.file, **identity}


def identify(path: Path) -> Identity:
    """Return size and digests of a weights file. Raises WeightsError, also for a web page."""
    sha256 = files.sha256_of(path)
    with path.open("rb") as file:
        files.refuse_other_content(path, file.read(512))
        file.seek(0)
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return {"size": path.stat().st_size, "sha256": sha256, "md5": md5}


def _copy(source: Path, part: Path) -> None:
    files.sha256_of(source)  # refuses anything but a regular file of a plausible size
    with download.disk_errors(part):
        shutil.copyfile(source, part)


def _make(folder: Path) -> None:
    with download.disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)


def _move(part: Path, target: Path) -> None:
    """Rename a complete file to its final name, durably."""
    with download.disk_errors(target):
        _sync(part)
        part.replace(target)
        _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a file that contains a JSON object; None if it is absent, damaged or something else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) else None


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, indent=2, sort_keys=True) + "\n"
    part = path.with_name(path.name + ".part")
    with download.disk_errors(path):
        part.write_text(text, encoding="utf-8")
    _move(part, path)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
