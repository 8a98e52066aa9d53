"""Read a Haiku checkpoint's pickle in a process of its own, and write its arrays as safetensors.

Run as `python -I -S haiku_child.py IN OUT BYTES SECONDS` under hard limits, with the standard library alone:
every name that the pickle asks for is answered by an inert stand-in or refused, so nothing of the file runs,
and no code of numpy, jax or dill ever sees it. Stdout tells the reason on exit code 2.

The names: numpy's array and dtype (de)construction; `collections.OrderedDict` and builtin containers; Haiku's
mapping, `FlatMapping` and earlier `frozendict`, both built from one dict (haiku/_src/data_structures.py);
jax's device arrays, which wrap numpy's reconstruction; named tuples, that dill stores by value through
`_create_namedtuple` (dill/_dill.py) and other picklers by reference.
"""

import collections
import json
import math
import pickle
import re
import resource
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

#: numpy's type strings -> safetensors'.
TYPES = {
    "f2": "F16", "f4": "F32", "f8": "F64", "i4": "I32", "i8": "I64", "u4": "U32", "u8": "U64", "u1": "U8",
    "i1": "I8", "b1": "BOOL",
}  # fmt: skip
#: What the experiment's state held, where its class is stored by reference (byol/byol_experiment.py).
STATE = ("online_params", "target_params", "online_state", "target_state", "opt_state")
#: The two parts that inference needs.
TREES = ("online_params", "online_state")
_MAX_DEPTH = 64


class Refusal(Exception):
    """The pickle asks for what no checkpoint of this kind needs."""


class Dtype:
    """Stands for `numpy.dtype`."""

    def __init__(self, code: str, *flags: object) -> None:
        if not isinstance(code, str) or code not in TYPES:
            raise Refusal(f"numbers of type {code!r}")
        self.code, self.order = code, "|"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]
        if self.order == ">":
            raise Refusal("big-endian numbers")


class Array:
    """Stands for `numpy.ndarray`: type, shape and bytes, checked against each other."""

    dtype: Dtype
    shape: tuple[int, ...] = ()
    data: bytes = b""
    fortran = False

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        good = isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape)
        if not good or not isinstance(dtype, Dtype) or not isinstance(data, bytes):
            raise Refusal("an array of objects")
        if math.prod(shape) * int(dtype.code[1:]) != len(data):
            raise Refusal(f"{len(data)} bytes for an array of shape {shape}")
        self.shape, self.dtype, self.fortran, self.data = shape, dtype, bool(fortran), data


class Record:
    """Stands for a named tuple, and for optimiser states."""

    fields: tuple[str, ...] = ()

    def __new__(cls, *values: Any) -> "Record":
        record = object.__new__(cls)
        record.values = values  # type: ignore[attr-defined]
        return record


class State(Record):
    fields = STATE


def reconstruct(kind: type, shape: object, code: object) -> Array:
    """`numpy.core.multiarray._reconstruct`."""
    if kind is not Array:
        raise Refusal("an array of another kind")
    return Array()


def device_array(fun: object, args: tuple[Any, ...], state: tuple[Any, ...], *rest: object) -> Array:
    """`jax...reconstruct_device_array` and dill's `_create_array`."""
    if fun is not reconstruct:
        raise Refusal("a device array made by another function")
    array = reconstruct(*args)
    array.__setstate__(state)
    return array


def scalar(dtype: object, data: object) -> Array:
    """`numpy.core.multiarray.scalar`."""
    array = Array()
    array.__setstate__((1, (), dtype, False, data))
    return array


def encode(text: str, encoding: str = "utf-8") -> bytes:
    """`_codecs.encode`, as protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise Refusal("an encoding other than latin1")
    return text.encode("latin1")


def mapping(values: Any = ()) -> dict[Any, Any]:
    """Haiku's immutable mappings."""
    if not isinstance(values, dict):
        raise Refusal("a mapping that is not made from one")
    return values


def named_tuple(name: object, fields: Any, *rest: object) -> type[Record]:
    """dill's `_create_namedtuple`."""
    if not isinstance(fields, (tuple, list)) or not all(isinstance(f, str) for f in fields):
        raise Refusal("a named tuple without names")
    return type("Record", (Record,), {"fields": tuple(fields)})


_BUILTINS: dict[str, Any] = {
    "dict": dict, "list": list, "tuple": tuple, "set": set, "frozenset": frozenset, "bytes": bytes,
    "int": int, "float": float, "bool": bool, "str": str,
}  # fmt: skip
#: Regular expression over `module name` -> stand-in.
NAMES: tuple[tuple[str, Any], ...] = (
    (r"numpy\.(_core|core)\.multiarray _reconstruct", reconstruct),
    (r"numpy\.(_core|core)\.multiarray scalar", scalar),
    (r"numpy ndarray", Array),
    (r"numpy dtype", Dtype),
    (r"_codecs encode", encode),
    (r"collections OrderedDict", collections.OrderedDict),
    (r"haiku\._src\.data_structures (FlatMapping|FlatMap|frozendict)", mapping),
    (r"jax(lib)?\.[\w.]+ (_reconstruct_array|reconstruct_device_array)", device_array),
    (r"dill\.(_dill|dill) _create_array", device_array),
    (r"dill\.(_dill|dill) _create_namedtuple", named_tuple),
    (r"([\w.]+\.)?(byol_experiment|__main__) _ByolExperimentState", State),
    (r"(optax|jax\.experimental\.optix|byol\.utils\.optimizers)[\w.]* \w+State", Record),
)


class Unpickler(pickle.Unpickler):
    """Answers names from `NAMES` and builtin containers; refuses the rest."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("builtins", "__builtin__") and name in _BUILTINS:
            return _BUILTINS[name]
        for pattern, stand_in in NAMES:
            if re.fullmatch(pattern, f"{module} {name}"):
                return stand_in
        raise Refusal(f"the name {module}.{name}")

    def persistent_load(self, pid: object) -> Any:
        raise Refusal("a persistent reference")


def trees(loaded: Any) -> Iterator[tuple[str, Array]]:
    """(`TREE:MODULE:VARIABLE`, array) of the two parts that inference needs."""
    state = loaded.get("experiment_state") if isinstance(loaded, dict) else None
    if isinstance(state, Record):
        state = dict(zip(state.fields, state.values, strict=False))  # type: ignore[attr-defined]
    if not isinstance(state, dict) or not all(isinstance(state.get(tree), dict) for tree in TREES):
        raise Refusal(f"no experiment_state with {' and '.join(TREES)}")
    for tree in TREES:
        yield from leaves(state[tree], (tree,))


def leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Array]]:
    if isinstance(value, Array):
        if len(path) != 3:
            raise Refusal(f"an array at {'/'.join(path)[:200]}")
        yield ":".join(path), value
    elif isinstance(value, dict) and len(path) < _MAX_DEPTH:
        for key, inner in value.items():
            if not isinstance(key, str) or ":" in key:
                raise Refusal("a variable without a proper name")
            yield from leaves(inner, (*path, key))
    else:
        raise Refusal(f"a {type(value).__name__} at {'/'.join(path)[:200]}")


def write(arrays: dict[str, Array], file: BinaryIO) -> None:
    """The safetensors format; names of column-major arrays are in its metadata."""
    header: dict[str, Any] = {
        "__metadata__": {"fortran": json.dumps([name for name, a in arrays.items() if a.fortran])}
    }
    offset = 0
    for name, array in arrays.items():
        header[name] = {
            "dtype": TYPES[array.dtype.code],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + len(array.data)],
        }
        offset += len(array.data)
    text = json.dumps(header).encode()
    file.write(struct.pack("<Q", len(text)) + text)
    for array in arrays.values():
        file.write(array.data)


def limit(memory: int, seconds: int) -> None:
    """Hard limits of this process: memory, processor time, file size, open files, no core, no children."""
    for what, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_FSIZE, memory),
        (resource.RLIMIT_NOFILE, 16),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NPROC, 0),
    ):
        hard = resource.getrlimit(what)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (least, least))


def main(source: str, target: str, memory: str, seconds: str) -> int:
    limit(int(memory), int(seconds))
    reason: Callable[[str], object] = sys.stdout.write
    try:
        with open(source, "rb") as file:  # noqa: PTH123 - the fewest imports
            arrays = dict(trees(Unpickler(file).load()))
        with open(target, "xb") as out:  # noqa: PTH123
            write(arrays, out)
    except Refusal as error:
        reason(f"asks for {error}" if str(error).startswith("the name") else f"holds {error}")
        return 2
    except MemoryError:
        reason("needs more memory than a checkpoint of its size should")
        return 2
    except Exception as error:  # the parser meets arbitrary bytes
        reason(f"is damaged ({type(error).__name__}: {error})"[:300])
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
