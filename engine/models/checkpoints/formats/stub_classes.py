"""Stand-ins for classes that old checkpoints hold beside their tensors, so that these can be read safely.

torch's restricted loader refuses every class that it does not know. A Lightning checkpoint may name its
callbacks' classes, and some files hold a whole module instead of its state dict. The loader stays restricted:
each such name (of those that the catalogue lists for the file) is answered by an empty class of our own.
"""

import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


class Inert:
    """Takes whatever it is built from and does nothing."""

    state: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> "Inert":
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Subclasses of dict are filled this way."""


def stand_ins(path: Path, prefixes: tuple[str, ...]) -> list[tuple[type[Inert], str]]:
    """A class of its own for each name in the file that begins with one of `prefixes`, as
    `torch.serialization.safe_globals` takes them. The pickle is disassembled, not executed."""
    names = sorted({name for name in _names(path) if name.startswith(prefixes)})
    return [(type("StandIn", (Inert,), {"stands_for": name}), name) for name in names]


def _names(path: Path) -> Iterator[str]:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            for _ in range(4):  # the older format: magic number, version, machine, and then the object
                yield from _globals(file)
        return
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if member.endswith("/data.pkl"):
                with archive.open(member) as file:
                    yield from _globals(file)


def _globals(file: IO[bytes]) -> Iterator[str]:
    for operation, argument, _ in pickletools.genops(file):
        if operation.name == "GLOBAL":
            yield str(argument).replace(" ", ".", 1)


def state_of(module: Inert, prefix: str = "") -> dict[str, Any]:
    """The state dict of a whole module that was pickled: parameters and buffers, by dotted name."""
    state = module.state if isinstance(module.state, dict) else {}
    found: dict[str, Any] = {}
    for kind in ("_parameters", "_buffers"):
        for name, value in (state.get(kind) or {}).items():
            if value is not None:
                found[f"{prefix}{name}"] = value
    for name, child in (state.get("_modules") or {}).items():
        if isinstance(child, Inert):
            found |= state_of(child, f"{prefix}{name}.")
    return found
