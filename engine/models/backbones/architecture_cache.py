"""Facts about architectures, kept once found, so that a model can be resolved without importing torch.

To find one, torch and the libraries are imported and the architecture is built, which takes seconds. Each
is a function of the architecture's name, of a side or a seed, and of what is installed (`_surroundings`).
They lie in `facts` of the user's cache (`stores.backends.private.cache_folder`), one file an
architecture; a file that is damaged, or cannot be read or written, is as good as none. What the features
depend on is checked again when the architecture is built (`engine.models.forward.encoder`).
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

#: Distributions (and their modules) that build architectures.
LIBRARIES = ("torch", "torchvision", "timm", "transformers")


def layer(architecture: str) -> tuple[str, str]:
    """See `architectures.layer`."""
    kind, notes = _recall(architecture, "layer", lambda: _architectures().layer(architecture))
    return kind, notes


def dimension(architecture: str, side: int) -> int:
    """See `architectures.dimension`."""
    fact = f"dimension at {side}"
    return int(_recall(architecture, fact, lambda: _architectures().dimension(architecture, side)))


def default_recipe(architecture: str) -> Recipe:
    """See `architectures.default_recipe`."""
    told = _recall(architecture, "recipe", lambda: _architectures().default_recipe(architecture).to_dict())
    return Recipe.from_dict(told)


def default_weights(architecture: str) -> dict[str, str]:
    """See `architectures.default_weights`."""
    return dict(_recall(architecture, "weights", lambda: _architectures().default_weights(architecture)))


def drawn_sha256(architecture: str, seed: int) -> str:
    """`weights.state_sha256` of the tensors that `architectures.build_seeded` draws."""

    def find() -> str:
        from engine.models.checkpoints import weights

        return weights.state_sha256(_architectures().build_seeded(architecture, seed).state_dict())

    return str(_recall(architecture, f"drawn from {seed}", find))


def _architectures() -> Any:
    """The module that builds them, and imports torch to do so."""
    from engine.models.backbones import architectures

    return architectures


def forget(architecture: str) -> None:
    """Drop what is kept of an architecture: something of it was found to be wrong."""
    if file := _file(architecture):
        with contextlib.suppress(OSError):
            file.unlink(missing_ok=True)


def _recall(architecture: str, fact: str, find: Callable[[], Any]) -> Any:
    """A fact as JSON gives it back; found and kept where it is not there yet."""
    file = _file(architecture)
    kept = _read(file) if file else {}
    if fact not in kept:
        kept[fact] = find()
        if file:
            with contextlib.suppress(OSError):
                _write(file, kept)
    return kept[fact]


def _file(architecture: str) -> Path | None:
    folder = private.cache_folder()
    if folder is None:
        return None
    return folder / "facts" / f"{_sha256([_surroundings(), architecture])}.json"


def _read(file: Path) -> dict[str, Any]:
    """The facts of a file; none where it is not whole."""
    try:
        told = {} if private.objection(file) else json.loads(file.read_bytes())
        facts = told["facts"]
        return facts if told["sha256"] == _sha256(facts) else {}
    except (OSError, ValueError, TypeError, KeyError):
        return {}


def _write(file: Path, facts: dict[str, Any]) -> None:
    import tempfile  # not above: it would slow every start

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
def _surroundings() -> str:
    """Digest of all that a fact depends on beside its arguments."""
    builds = [_installation(name) for name in LIBRARIES]
    return _sha256([versions(LIBRARIES), builds, _processor(), _source()])


def _installation(module: str) -> list[Any]:
    """Where a library is and when it came there: of one version there are several builds."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return []
    status = os.stat(spec.origin)  # noqa: PTH116 - a text
    return [spec.origin, status.st_size, status.st_mtime_ns]


def _processor() -> list[str]:
    """What torch chooses its arithmetic by, to which drawn weights owe their last bits."""
    found = [platform.system(), platform.machine(), os.environ.get("ATEN_CPU_CAPABILITY", "")]
    with contextlib.suppress(OSError), open("/proc/cpuinfo", "rb") as file:  # noqa: PTH123 - no file proper
        lines = file.read(1 << 14).decode(errors="replace").splitlines()
        found += [line for line in lines if line.startswith(("flags", "Features"))][:1]
    return found


def _source() -> str:
    """Digest of the code that builds architectures and says what is known of them."""
    digest = hashlib.sha256()
    for path in [*sorted(Path(__file__).parents[1].rglob("*.py")), Path(recipes.__file__)]:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
