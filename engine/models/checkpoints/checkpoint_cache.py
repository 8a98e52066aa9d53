"""Weights that a paper's authors published: fetched, checked and converted once, then read as safetensors.

Each lives in a folder of the cache (`EMBANK_CACHE`, else `$XDG_CACHE_HOME/embank`, else `~/.cache/embank`):

    models/NAME/FILE                 as published
    models/NAME/source.json          its size, SHA-256, MD5, and where it came from: the pin
    models/NAME/model.safetensors    the encoder's tensors under the architecture's names
    models/NAME/model.json           its SHA-256, the source's, the mapping, versions

The bytes of `model.safetensors` follow from the published file and the mapping alone, so its SHA-256, which
goes into the feature's key, is the same on every machine.
"""

import datetime
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import MachineFault, WeightsError
from engine.models.checkpoints import download, files
from engine.models.checkpoints.readers import Reader
from engine.models.checkpoints.sources import Found
from engine.versions import versions

#: Raised when the same file is converted to other tensors.
CONVERSION = 1


@dataclass(frozen=True)
class Expected:
    """What is known of a file beforehand; digests may be beginnings, empty means unknown.

    Attributes:
        sha256, md5: hexadecimal digits that the digest begins with.
        size: bytes.
    """

    sha256: str = ""
    md5: str = ""
    size: int | None = None


@dataclass(frozen=True)
class Published:
    """A published file, as a source of weights.

    Attributes:
        name: its folder in the cache, and what `models fetch` is given.
        url: where it is, by https.
        file: its name in the cache.
        reader: how it becomes tensors.
        expected: what is known of it.
        max_bytes: refuse to fetch more.
    """

    name: str
    url: str
    file: str
    reader: Reader
    expected: Expected = field(default_factory=Expected)
    max_bytes: int = 4 << 30

    @property
    def label(self) -> str:
        return "published by its authors"

    @property
    def folder(self) -> Path:
        return cache() / "models" / self.name

    @property
    def source(self) -> Path:
        return self.folder / self.file

    @property
    def converted(self) -> Path:
        return self.folder / "model.safetensors"

    def present(self) -> str:
        if self.converted.exists():
            return "yes"
        return "fetched, not converted" if self.source.exists() else "no"

    def find(self, architecture: str, seed: int) -> Found:
        told = read_json(self.folder / "model.json")
        if not self.converted.exists() or told is None:
            raise self.absent()
        digest = files.sha256_of(self.converted)
        if digest != told.get("sha256"):
            raise WeightsError(
                f"{self.converted} has SHA-256 {digest}",
                f"It was {told.get('sha256')} when it was converted; the file is damaged",
                f"`embank models convert {self.name}`",
            )
        return Found(f"{self.url}, SHA-256 {told['source']['sha256']}", digest, self.converted)

    def here(self, architecture: str, seed: int) -> Found | None:
        there = self.converted.exists() and read_json(self.folder / "model.json") is not None
        return self.find(architecture, seed) if there else None

    def absent(self) -> WeightsError:
        """What to say, and what to do, where the weights are not in the cache."""
        step = "convert" if self.source.exists() else "fetch"
        return WeightsError(
            f"The weights of {self.name} are not in {self.folder}",
            "They are fetched and converted once, on request",
            f"`embank models {step} {self.name}`; without a network, add --from-file FILE, from {self.url}",
        )

    def facts(self) -> dict[str, Any]:
        """Where it is, what is known of it, and what is here: JSON types."""
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
    """The cache folder; not created here."""
    if own := os.environ.get("EMBANK_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "embank"


def bring(
    published: Published,
    *,
    from_file: Path | None = None,
    progress: download.Progress | None = None,
    patience: download.Patience | None = None,
    schemes: tuple[str, ...] = ("https",),
) -> Path:
    """Fetch (or copy) the published file into the cache, check it, pin it; a file that is there is checked.

    Raises:
        WeightsError: it cannot be fetched, is a web page, or is not the file that was expected or pinned.
        MachineFault: the disk.
    """
    target = published.source
    if target.exists() and from_file is None:
        _check(published, target, target)
        return target
    part = target.with_name(target.name + ".part")
    if from_file is not None:
        _check(published, from_file, from_file)
    with download.made_for(part):
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
    """Read the published file, demand an exact fit to its architecture, write safetensors with provenance.

    Args:
        published: see `Published`.
        architecture: canonical name.
        source: another place of the published file; checked like the cache's.
        out: write here (and nothing into the cache) instead.

    Returns:
        What `model.json` holds: `{model, architecture, source, mapping, tensors, left_out, sha256, ...}`.

    Raises:
        WeightsError: absent, not the expected file, or tensors that do not fit.
    """
    state, told = fitted(published, architecture, source)
    target = out or published.converted
    _make(target.absolute().parent)
    digest = _save(state, target, told)
    told |= {"file": str(target), "sha256": digest, "versions": versions(), "when": _now()}
    _write_json(target.with_suffix(".json"), told)
    return told


def fitted(
    published: Published, architecture: str, source: Path | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read a published file and demand an exact fit to its architecture; writes nothing.

    Args:
        published, architecture, source: as for `convert`.

    Returns:
        (the tensors to write, float32; what is known of them so far, as `convert` returns it).

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
    tensors = architectures.renamed(architecture, contents.tensors, str(path))
    report = weights.fit(body, tensors, (), str(path))
    told = {
        "model": published.name,
        "architecture": architecture,
        "source": identity,
        "mapping": published.reader.describe(),
        "conversion": CONVERSION,
        "tensors": report.tensors,
        "left_out": list(contents.left_out),
    }
    # Where names depend on a library's release, the file keeps those that it came with.
    state = body.state_dict() if tensors is contents.tensors else contents.tensors
    return {k: v.float() for k, v in state.items() if not k.endswith("num_batches_tracked")}, told


def _save(state: Mapping[str, Any], target: Path, told: dict[str, Any]) -> str:
    """Write tensors with their provenance, durably; the SHA-256 of the file."""
    from safetensors.torch import save_file

    part = target.with_name(target.name + ".part")
    # One key: the order of several is not fixed, and the digest of the file is.
    metadata = {"embank": json.dumps(told, sort_keys=True)}
    try:
        save_file({k: v.contiguous() for k, v in state.items()}, part, metadata)
    except OSError as error:
        raise MachineFault(
            f"{part}: {error}",
            "The converted weights must be written",
            "free space and run the command again",
        ) from error
    digest = files.sha256_of(part)
    _move(part, target)
    return digest


def _check(published: Published, path: Path, shown: Path) -> dict[str, Any]:
    """{file, size, sha256, md5} of a published file that is what it should be."""
    identity = identify(path)
    wanted = published.expected
    pinned = read_json(published.folder / "source.json") or {}
    wrong = (
        not identity["sha256"].startswith(wanted.sha256)
        or not identity["md5"].startswith(wanted.md5)
        or (wanted.size is not None and wanted.size != identity["size"])
    )
    if wrong:
        raise WeightsError(
            f"{shown} has {identity['size']} bytes, SHA-256 {identity['sha256']}, MD5 {identity['md5']}",
            "The catalogue expects " + ", ".join(f"{k} {v}" for k, v in vars(wanted).items() if v),
            "fetch it again; if that does not help, the authors have replaced the file",
        )
    if pinned and pinned.get("sha256") != identity["sha256"]:
        raise WeightsError(
            f"{shown} has SHA-256 {identity['sha256']}",
            f"{pinned.get('sha256')} was pinned when {published.name} was first fetched",
            f"fetch it again; to accept another file, delete {published.folder}",
        )
    return {"file": published.file, **identity}


def identify(path: Path) -> dict[str, Any]:
    """{size, sha256, md5} of a weights file, which must not be a web page."""
    sha256 = files.sha256_of(path)
    with path.open("rb") as file:
        files.refuse_impostors(path, file.read(512))
        file.seek(0)
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    return {"size": path.stat().st_size, "sha256": sha256, "md5": md5}


def _copy(source: Path, part: Path) -> None:
    files.sha256_of(source)  # a regular file of a sane size
    with download.disk(part):
        shutil.copyfile(source, part)


def _make(folder: Path) -> None:
    with download.disk(folder):
        folder.mkdir(parents=True, exist_ok=True)


def _move(part: Path, target: Path) -> None:
    """Put a finished file in its place, durably."""
    with download.disk(target):
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
    """A JSON object, or None where there is no whole one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write_json(path: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=2, sort_keys=True) + "\n"
    part = path.with_name(path.name + ".part")
    with download.disk(path):
        part.write_text(text, encoding="utf-8")
    _move(part, path)


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
