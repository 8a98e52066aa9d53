"""Finding the state dict in a checkpoint: the one dict of tensors, under any key, that fits.

Training scripts save it next to epochs, optimisers and averages of the weights, under keys of their own
(`state_dict`, `model`, `model_state_dict`, `net`, `ema`, `teacher`, ...). These keys are ignored: a dict
fits if its tensors are those of the architecture. If two different dicts fit, such as a model and its moving
average, the file is refused.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

from engine.errors import WeightsError

State = Mapping[str, torch.Tensor]
#: Limits of the search: nesting, and dicts.
_MAX_DEPTH, _MAX_DICTS = 5, 10_000
#: Limits of a summary: entries, and characters of a name.
_SHOWN, _MAX_NAME = 6, 60


@dataclass(frozen=True)
class Candidate:
    """A dict of tensors in a file.

    Attributes:
        keys: that lead to it, outermost first; empty for the outermost dict.
        state: its tensors by name.
    """

    keys: tuple[str, ...]
    state: State

    @property
    def container(self) -> str:
        """The keys joined by dots."""
        return ".".join(self.keys)


def choose(
    loaded: Mapping[str, object], arrange: Callable[[State], State | None], needed: set[str], where: str
) -> Candidate:
    """Choose the state dict of a checkpoint.

    Args:
        loaded: contents of the file.
        arrange: returns a dict's tensors under the architecture's names, or None if it does not fit.
        needed: names of the architecture's tensors.
        where: name of the file, for errors.

    Returns:
        The one that fits; if none does, the one that shares most names, so that an error can list what it
        lacks.

    Raises:
        WeightsError: the file has no dict of tensors, or several different ones that fit.
    """
    all_candidates = list(candidates(loaded))
    if not all_candidates:
        raise WeightsError(
            f"{where} holds no state dict: {summarise(loaded)}",
            "A state dict maps names to dense tensors and to nothing else; it may lie under any key",
            "save model.state_dict()",
        )
    fitting = [
        (candidate, arranged)
        for candidate in all_candidates
        if (arranged := arrange(candidate.state)) is not None
    ]
    if not fitting:
        return max(all_candidates, key=lambda candidate: _similarity(candidate.state, needed))
    first, tensors = fitting[0]
    others = [candidate for candidate, arranged in fitting[1:] if not _equal(tensors, arranged)]
    if others:
        raise _several(where, [first, *others])
    return first


def _several(where: str, fitting: list[Candidate]) -> WeightsError:
    names = [f"`{candidate.container}`" if candidate.keys else "the outermost dict" for candidate in fitting]
    keys = "".join(f"[{key!r}]" for key in fitting[-1].keys)
    return WeightsError(
        f"{where} holds {len(fitting)} different state dicts that fit: {', '.join(names)}",
        "Which of them makes the features must be plain",
        "save the one you mean to a file of its own, in Python for instance "
        f"torch.save(torch.load(FILE, map_location='cpu', weights_only=True){keys}, NEW)",
    )


def single(loaded: Mapping[str, object], where: str) -> State:
    """Return the only dict of tensors in a file, for an architecture whose library maps names itself.

    Raises:
        WeightsError: there is none, or there are several.
    """
    all_candidates = list(candidates(loaded))
    outermost = [candidate for candidate in all_candidates if not candidate.keys]
    if outermost:
        return outermost[0].state
    if len(all_candidates) > 1:
        raise _several(where, all_candidates)
    return choose(loaded, lambda _: None, set(), where).state


def candidates(loaded: Mapping[str, object]) -> Iterator[Candidate]:
    """Yield every dict in a checkpoint that maps names to tensors and to nothing else, outermost first.

    Dicts whose keys are numbers are skipped: they belong to optimisers, not to a model.
    """
    queue: list[tuple[tuple[str, ...], Mapping[str, object]]] = [((), loaded)]
    for position in range(_MAX_DICTS):
        if position == len(queue):
            return
        keys, contents = queue[position]
        if not contents or not all(isinstance(key, str) for key in contents):
            continue
        if all(isinstance(value, torch.Tensor) for value in contents.values()):
            yield Candidate(keys, contents)  # type: ignore[arg-type]
        elif len(keys) < _MAX_DEPTH:
            queue += [((*keys, key), value) for key, value in contents.items() if isinstance(value, Mapping)]


def summarise(loaded: Mapping[str, object]) -> str:
    """Summarise the contents of a file: tensors with their shapes, dicts, and values of other types."""
    if not loaded:
        return "an empty dict"
    tensors = {str(key): value for key, value in loaded.items() if isinstance(value, torch.Tensor)}
    words = [_tensors(tensors)] if tensors else []
    for key, value in loaded.items():
        name = _short(key)
        if isinstance(value, Mapping):
            nested = {str(k): v for k, v in value.items() if isinstance(v, torch.Tensor)}
            words.append(f"{name} ({_tensors(nested) if nested else _keys(value)})")
        elif not isinstance(value, torch.Tensor):
            words.append(f"{name} ({type(value).__name__})")
    more = [f"{len(words) - _SHOWN} more"] if len(words) > _SHOWN else []
    return ", ".join(words[:_SHOWN] + more)


def _tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    examples = [f"{_short(name)} {tuple(tensor.shape)}" for name, tensor in list(tensors.items())[:2]]
    count = f"{len(tensors)} tensor{'' if len(tensors) == 1 else 's'}"
    return f"{count}: {', '.join(examples)}{', ...' if len(tensors) > 2 else ''}"


def _keys(value: Mapping[object, object]) -> str:
    examples = ", ".join(_short(key) for key in list(value)[:2])
    return f"dict of {len(value)}{': ' + examples if examples else ''}{', ...' if len(value) > 2 else ''}"


def _short(key: object) -> str:
    text = str(key)
    return text if len(text) <= _MAX_NAME else text[: _MAX_NAME - 3] + "..."


def _similarity(state: State, needed: set[str]) -> int:
    """Score a state dict by the names it shares with the architecture; less for equal ends of names."""
    shared_ends = {_last_parts(name) for name in needed} & {_last_parts(name) for name in state}
    return len(needed & state.keys()) * 1000 + len(shared_ends)


def _last_parts(name: str) -> str:
    """Return the last two parts of a dotted name."""
    module, _, tensor = name.rpartition(".")
    return f"{module.rpartition('.')[2]}.{tensor}"


def _equal(first: State, second: State) -> bool:
    """Return whether two dicts have the same tensors."""
    if first.keys() != second.keys():
        return False
    try:
        return all(
            tensor is second[name] or torch.equal(tensor, second[name]) for name, tensor in first.items()
        )
    except (RuntimeError, NotImplementedError):  # kinds of tensors that are refused anyway
        return False
