"""Where in a checkpoint the state dict lies: under whatever key, it is the one dict of tensors that fits.

Training scripts save it beside epochs, optimisers and averages of the weights, each under keys of its own
(`state_dict`, `model`, `model_state_dict`, `net`, `ema`, `teacher`, ...). Nothing here goes by these keys:
what decides is whether the tensors are those of the architecture. Between two different dicts that both are,
such as a model and its moving average, nothing is chosen.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

from engine.errors import WeightsError

State = Mapping[str, torch.Tensor]
_DEEPEST, _MOST = 5, 10_000
_SHOWN, _NAME = 6, 60


@dataclass(frozen=True)
class Candidate:
    """A dict of tensors in a file.

    Attributes:
        keys: under which it lies, outermost first; none for a bare one.
        state: its tensors by name.
    """

    keys: tuple[str, ...]
    state: State

    @property
    def container(self) -> str:
        return ".".join(self.keys)


def choose(
    loaded: Mapping[str, object], arranged: Callable[[State], State | None], needed: set[str], where: str
) -> Candidate:
    """The state dict of a checkpoint.

    Args:
        loaded: what the file holds.
        arranged: gives a state dict's tensors under the architecture's names, None where it does not fit.
        needed: names of the architecture's tensors.
        where: how to name the file in errors.

    Returns:
        The one that fits; where none does, the one that shares most names: what it lacks can be said.

    Raises:
        WeightsError: the file holds no dict of tensors, or several different ones that fit.
    """
    every = list(candidates(loaded))
    if not every:
        raise WeightsError(
            f"{where} holds no state dict: {holds(loaded)}",
            "A state dict maps names to dense tensors and to nothing else; it may lie under any key",
            "save model.state_dict()",
        )
    fitting = [(each, found) for each in every if (found := arranged(each.state)) is not None]
    if not fitting:
        return max(every, key=lambda each: _shared(each.state, needed))
    first, found = fitting[0]
    others = [each for each, other in fitting[1:] if not _equal(found, other)]
    if others:
        raise _several(where, [first, *others])
    return first


def _several(where: str, fitting: list[Candidate]) -> WeightsError:
    names = [f"`{each.container}`" if each.keys else "the outermost dict" for each in fitting]
    keys = "".join(f"[{key!r}]" for key in fitting[-1].keys)
    return WeightsError(
        f"{where} holds {len(fitting)} different state dicts that fit: {', '.join(names)}",
        "Which of them makes the features must be plain",
        "save the one you mean to a file of its own, in Python for instance "
        f"torch.save(torch.load(FILE, map_location='cpu', weights_only=True){keys}, NEW)",
    )


def only(loaded: Mapping[str, object], where: str) -> State:
    """The one dict of tensors of a file, for an architecture whose library arranges them itself.

    Raises:
        WeightsError: none, or several.
    """
    every = list(candidates(loaded))
    bare = [each for each in every if not each.keys]
    if bare:
        return bare[0].state
    if len(every) > 1:
        raise _several(where, every)
    return choose(loaded, lambda _: None, set(), where).state


def candidates(loaded: Mapping[str, object]) -> Iterator[Candidate]:
    """Every dict in a checkpoint that maps names to tensors and to nothing else, the outermost first.

    What is numbered instead of named, as an optimiser's moments are, is no part of a model.
    """
    waiting: list[tuple[tuple[str, ...], Mapping[str, object]]] = [((), loaded)]
    for at in range(_MOST):
        if at == len(waiting):
            return
        keys, inside = waiting[at]
        if not inside or not all(isinstance(key, str) for key in inside):
            continue
        if all(isinstance(value, torch.Tensor) for value in inside.values()):
            yield Candidate(keys, inside)  # type: ignore[arg-type]
        elif len(keys) < _DEEPEST:
            waiting += [((*keys, key), value) for key, value in inside.items() if isinstance(value, Mapping)]


def holds(loaded: Mapping[str, object]) -> str:
    """What a file holds, in a few words: its tensors with their shapes, its dicts, and whatever else."""
    if not loaded:
        return "an empty dict"
    tensors = {str(key): value for key, value in loaded.items() if isinstance(value, torch.Tensor)}
    words = [_tensors(tensors)] if tensors else []
    for key, value in loaded.items():
        name = _short(key)
        if isinstance(value, Mapping):
            inner = {str(k): v for k, v in value.items() if isinstance(v, torch.Tensor)}
            words.append(f"{name} ({_tensors(inner) if inner else _keys(value)})")
        elif not isinstance(value, torch.Tensor):
            words.append(f"{name} ({type(value).__name__})")
    more = [f"{len(words) - _SHOWN} more"] if len(words) > _SHOWN else []
    return ", ".join(words[:_SHOWN] + more)


def _tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    few = [f"{_short(name)} {tuple(tensor.shape)}" for name, tensor in list(tensors.items())[:2]]
    count = f"{len(tensors)} tensor{'' if len(tensors) == 1 else 's'}"
    return f"{count}: {', '.join(few)}{', ...' if len(tensors) > 2 else ''}"


def _keys(value: Mapping[object, object]) -> str:
    few = ", ".join(_short(key) for key in list(value)[:2])
    return f"dict of {len(value)}{': ' + few if few else ''}{', ...' if len(value) > 2 else ''}"


def _short(key: object) -> str:
    text = str(key)
    return text if len(text) <= _NAME else text[: _NAME - 3] + "..."


def _shared(state: State, needed: set[str]) -> int:
    """How many of the architecture's names a state dict has, whatever stands in front of them."""
    ends = {name.rpartition(".")[0].rpartition(".")[2] + "." + name.rpartition(".")[2] for name in needed}
    mine = {name.rpartition(".")[0].rpartition(".")[2] + "." + name.rpartition(".")[2] for name in state}
    return len(needed & state.keys()) * 1000 + len(ends & mine)


def _equal(one: State, other: State) -> bool:
    """Whether two dicts hold the same numbers."""
    if one.keys() != other.keys():
        return False
    try:
        return all(tensor is other[name] or torch.equal(tensor, other[name]) for name, tensor in one.items())
    except (RuntimeError, NotImplementedError):  # kinds of tensors that are refused anyway
        return False
