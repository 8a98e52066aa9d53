"""Types of what becomes JSON: records, reports, sealed documents."""

from typing import TypeAlias

#: A JSON value.
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
#: A JSON object.
JsonObject: TypeAlias = "dict[str, Json]"
