"""Settings of a record that answer a question, as opposed to those of the machine."""

import json

from stores.bank.records import RunRecord
from stores.json_types import Json, JsonObject

#: Settings of the machine, which change no question.
_MACHINE = frozenset(
    ("model", "device", "threads", "backend", "scheduler", "workers", "batch_size", "memory", "decoder")
)


def says_something(value: Json) -> bool:
    """Return whether a setting is more than absent, off or empty; 0 is a value."""
    return not (value is None or value is False or value == "" or value == [] or value == {})


def settings_of(record: RunRecord) -> JsonObject:
    """Return the settings that make two records answers to one question; those of splits as `NAME part`."""
    body: JsonObject = {}
    for name, value in record.asked.items():
        if name == "splits" and isinstance(value, dict):
            body |= {f"{part} part": inner for part, inner in value.items() if part not in ("mode", "seed")}
        elif name not in _MACHINE:
            body[name] = value
    return {name: value for name, value in body.items() if says_something(value)}


def key_of(settings: JsonObject) -> str:
    """Return settings as a text that is the same for the same settings."""
    return json.dumps(settings, sort_keys=True)
