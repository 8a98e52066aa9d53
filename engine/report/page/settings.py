"""Settings of a record that answer a question, as opposed to those of the machine."""

import json

from stores.bank.records import RunRecord
from stores.json_types import Json, JsonObject

#: The model, and settings of the machine, which change no question.
_ASIDE = frozenset(
    ("model", "feature", "device", "threads", "backend", "scheduler", "workers", "memory", "decoder")
)
#: Numbers of resamples: how finely an interval is computed.
_FINENESS = frozenset(("bootstrap", "resamples"))
#: Kinds whose `batch_size` changes what is learned; elsewhere it is one of the machine.
_LEARN_IN_BATCHES = frozenset(("finetune",))


def says_something(value: Json) -> bool:
    """Return whether a setting is more than absent, off or empty; 0 is a value."""
    return not (value is None or value is False or value == "" or value == [] or value == {})


def settings_of(record: RunRecord) -> JsonObject:
    """Return the settings that make two records answers to one question; those of splits as `NAME part`."""
    body: JsonObject = {}
    for name, value in record.asked.items():
        if name == "splits" and isinstance(value, dict):
            body |= {f"{part} part": inner for part, inner in value.items() if part not in ("mode", "seed")}
        elif name not in _ASIDE | _FINENESS and (name != "batch_size" or record.kind in _LEARN_IN_BATCHES):
            body[name] = value
    return {name: value for name, value in body.items() if says_something(value)}


def words_of(name: str, value: Json) -> str:
    """Return a setting in words, e.g. `seed 1`, `external validation b.bank`, `no cap`."""
    words = name.replace("_", " ")
    return f"{words} {_plain(value)}" if says_something(value) else f"no {words}"


def _plain(value: Json) -> str:
    if isinstance(value, dict):
        own = {name: _plain(inner) for name, inner in value.items() if says_something(inner)}
        return "; ".join(own.values() if len(own) == 1 else (f"{name} {text}" for name, text in own.items()))
    if isinstance(value, list):
        return ", ".join(map(_plain, value))
    return str(value)


def key_of(settings: JsonObject) -> str:
    """Return settings as a text that is the same for the same settings."""
    return json.dumps(settings, sort_keys=True)
