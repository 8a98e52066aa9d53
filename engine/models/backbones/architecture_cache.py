"""A cache of facts about architectures, with which a model can be resolved without importing torch.

Computing a fact takes seconds: torch and the libraries are imported and the architecture is built. A fact is
a function of the architecture's name, of a side or a seed, and of what is installed (`_environment`). Facts
are kept in `facts` of the user's cache (`stores.backends.private.cache_folder`), one file an
architecture. A file that is damaged, or cannot be read or written, is ignored. Facts that features depend on
are checked again when the architecture is built (`engine.models.forward.encoder`).
"""

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine import recipes
from engine.recipes import Recipe
from engine.versions import versions
from stores.backends import private
from stores.json_types import JsonObject

#: Distributions (and modules of the same names) that build architectures.
LIBRARIES = ("torch", "torchvision", "timm", "transformers")


def layer(architecture: str) -> tuple[str, str]:
    """Return `architectures.layer`, from the cache if possible."""
    kind, notes = _recall(architecture, "layer", lambda: _architectures().layer(architecture))
    return kind, notes


def dimension(architecture: str, side: int) -> int:
    """Return `architectures.dimension`, from the cache if possible."""
    fact = f"dimension at {side}"
    return int(_recall(architecture, fact, lambda: _architectures().dimension(architecture, side)))


def default_recipe(architecture: str) -> Recipe:
    """Return `architectures.default_recipe`, from the cache if possible."""
    fields = _recall(architecture, "recipe", lambda: _architectures().default_recipe(architecture).to_dict())
    return Recipe.from_dict(fields)


def default_weights(architecture: str) -> dict[str, str]:
    """Return `architectures.default_weights`, from the cache if possible."""
    return dict(_recall(architecture, "weights", lambda: _architectures().default_weights(architecture)))


def drawn_sha256(architecture: str, seed: int) -> str:
    """Return `weights.state_sha256` of the tensors that `architectures.build_seeded` draws."""

    def compute() -> str:
        from engine.models.checkpoints import weights

        return weights.state_sha256(_architectures().build_seeded(architecture, seed).state_dict())

    return str(_recall(architecture, f"drawn from {seed}", compute))


def _architectures() -> Any:
    """Import the module that builds architectures, and torch with it."""
    from engine.models.backbones import architectures

    return architectures


def forget(architecture: str) -> None:
    """Delete the facts of an architecture, one of which has proved wrong."""
    if file := _file(architecture):
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def _recall(architecture: str, fact: str, compute: Callable[[], Any]) -> Any:
    """Return a fact as JSON types, computing and keeping it if it is not in the cache."""
    file = _file(architecture)
    facts = _read(file) if file else {}
    if fact not in facts:
        facts[fact] = compute()
        if file:
            with contextlib.suppress(OSError):
                _write(file, facts)
    return facts[fact]


def _file(architecture: str) -> Path | None:
    folder = private.cache_folder()
    if folder is None:
        return None
    return folder / "facts" / f"{_sha256([_environment(), architecture])}.json"


def _read(file: Path) -> JsonObject:
    """Return the facts in a file; none if it is absent, damaged or not private to the user."""
    try:
        document = {} if private.objection(file) else json.loads(file.read_bytes())
        facts: JsonObject = document["facts"]
        return facts if document["sha256"] == _sha256(facts) else {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _write(file: Path, facts: JsonObject) -> None:
    import tempfile  # here, because it would slow every start of the command line

    file.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=file.parent)  # readable to this user alone
    part = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            json.dump({"facts": facts, "sha256": _sha256(facts)}, out)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


@functools.cache
def _environment() -> str:
    """Return a digest of everything that facts depend on besides their arguments."""
    builds = [_installation(name) for name in LIBRARIES]
    return _sha256([versions(LIBRARIES), builds, _processor(), _source()])


def _installation(module: str) -> list[str | int]:
    """Return path, size and time of a library: one version may be installed in different builds."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return []
    status = os.stat(spec.origin)  # noqa: PTH116 - a text
    return [spec.origin, status.st_size, status.st_mtime_ns]


def _processor() -> list[str]:
    """Return what torch chooses its kernels by, on which the last bits of drawn weights depend."""
    features = [platform.system(), platform.machine(), os.environ.get("ATEN_CPU_CAPABILITY", "")]
    with contextlib.suppress(OSError), open("/proc/cpuinfo", "rb") as file:  # noqa: PTH123 - not on a disk
        lines = file.read(1 << 14).decode(errors="replace").splitlines()
        features += [line for line in lines if line.startswith(("flags", "Features"))][:1]
    return features


def _source() -> str:
    """Return a digest of the code that builds architectures and computes facts."""
    digest = hashlib.sha256()
    for path in [*sorted(Path(__file__).parents[1].rglob("*.py")), Path(recipes.__file__)]:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
