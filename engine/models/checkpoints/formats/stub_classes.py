"""Inert stand-ins for the classes that old checkpoints contain besides their tensors.

torch's restricted loader refuses every class that it does not know. A Lightning checkpoint may name its
callbacks' classes, and some files contain a pickled module instead of its state dict. The loader remains
restricted: each such class, if the catalogue lists it for the file, is replaced by an empty one.
"""

import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


class Inert:
    """A class that accepts any arguments and state, and does nothing."""

    state: Any = None

    def __new__(cls, *args: Any, **kwargs: Any) -> "Inert":
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """Ignore an item: subclasses of dict are filled by items."""


def stand_ins(path: Path, prefixes: tuple[str, ...]) -> list[tuple[type[Inert], str]]:
    """Make a stand-in for each class in a file whose name begins with one of `prefixes`.

    The pickle is disassembled, not executed.

    Returns:
        (stand-in, name of the class) pairs, as `torch.serialization.safe_globals` takes them.
    """
    names = sorted({name for name in _class_names(path) if name.startswith(prefixes)})
    return [(type("StandIn", (Inert,), {"stands_for": name}), name) for name in names]


def _class_names(path: Path) -> Iterator[str]:
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            for _ in range(4):  # pickles of the older format: magic number, version, machine, object
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
    """Return the state dict of a pickled module: parameters and buffers by dotted name."""
    state = module.state if isinstance(module.state, dict) else {}
    state_dict: dict[str, Any] = {}
    for kind in ("_parameters", "_buffers"):
        for name, value in (state.get(kind) or {}).items():
            if value is not None:
                state_dict[f"{prefix}{name}"] = value
    for name, child in (state.get("_modules") or {}).items():
        if isinstance(child, Inert):
            state_dict |= state_of(child, f"{prefix}{name}.")
    return state_dict
