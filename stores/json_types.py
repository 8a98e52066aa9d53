"""Types of what becomes JSON: records, reports, sealed documents."""

from typing import TypeAlias

#: A JSON value.
Json: TypeAlias = "None | bool | int | float | str | list[Json] | dict[str, Json]"
#: A JSON object.
JsonObject: TypeAlias = "dict[str, Json]"
