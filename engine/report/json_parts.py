"""Parts of JSON documents that a reader knows to be objects."""

from stores.json_types import Json, JsonObject


def members(value: Json) -> JsonObject:
    """Return an object as one; what is none has no members."""
    return value if isinstance(value, dict) else {}


def objects(value: Json) -> list[JsonObject]:
    """Return the objects of a list; an object alone is a list of itself."""
    return [members(part) for part in value] if isinstance(value, list) else [members(value)]
