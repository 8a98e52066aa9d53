"""The lineage of finetuned weights: what they were trained from, with what, kept in their own file.

It is the member `lineage` of the JSON document that embank's safetensors files have in their metadata under
`embank`, where any reader of the format finds it. Nothing here needs torch.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

from engine.errors import WeightsError
from engine.models.checkpoints.files import weights_error
from stores.json_types import Json, JsonObject
from stores.manifest.uri_policy import plain

#: Key of embank's document in the metadata of a safetensors file (the only one: several have no fixed order,
#: and equal weights are to be equal files), and the member with the lineage.
KEY, MEMBER = "embank", "lineage"
_TEXTS = (
    "base",
    "architecture",
    "base_weights_source",
    "base_weights_sha256",
    "manifest_digest",
    "image_digest",
    "label",
)
_OBJECTS = ("options", "recipe", "base_lineage")


@dataclass(frozen=True)
class Lineage:
    """What finetuned weights were trained from.

    Attributes:
        base, architecture: of the model that was finetuned: slug and canonical name.
        base_weights_source, base_weights_sha256: origin of its weights in words, and their SHA-256, as in a
            `ModelSpec`.
        manifest_digest, image_digest: of images and labels, and of the images alone.
        label: column with the classes, or the columns with findings.
        classes: of the head's outputs, in their order.
        options: of the finetuning.
        step: updates after which these weights were taken.
        seed: of the head, the order of the images and their crops.
        recipe: preprocessing of validation and test images, as `Recipe.to_dict`; {} where it is not known.
        base_lineage: of the base's weights, where they were finetuned themselves; else {}.
    """

    base: str
    architecture: str
    base_weights_source: str
    base_weights_sha256: str
    manifest_digest: str
    image_digest: str
    label: str
    classes: tuple[str, ...]
    options: Mapping[str, Json] = field(hash=False)
    step: int
    seed: int
    recipe: Mapping[str, Json] = field(default_factory=dict, hash=False)
    base_lineage: Mapping[str, Json] = field(default_factory=dict, hash=False)

    def to_dict(self) -> JsonObject:
        """Return all fields as JSON values."""
        return cast(JsonObject, {**asdict(self), "classes": list(self.classes)})

    def metadata(self) -> dict[str, str]:
        """Return the metadata of a safetensors file with these weights; equal lineages give equal bytes.

        Raises:
            ValueError: a number is not finite, which JSON cannot say.
        """
        return {KEY: json.dumps({MEMBER: self.to_dict()}, sort_keys=True, allow_nan=False)}

    @property
    def in_words(self) -> str:
        """The lineage in a few words."""
        return f"finetuned from {plain(self.base)}, step {self.step:,}"

    @classmethod
    def from_dict(cls, body: Json) -> "Lineage":
        """Read what `to_dict` returned; members that later versions add are left out.

        Raises:
            ValueError: a field is missing or of another type.
        """
        if not isinstance(body, Mapping):
            raise ValueError("it is no object")
        for name in _TEXTS:
            if not isinstance(body.get(name), str):
                raise ValueError(f"{name} is no text")
        for name in ("step", "seed"):
            if type(body.get(name)) is not int:
                raise ValueError(f"{name} is no whole number")
        for name in _OBJECTS:
            if not isinstance(body.get(name, {}), Mapping):
                raise ValueError(f"{name} is no object")
        classes = body.get("classes")
        if "options" not in body or not isinstance(classes, list):
            raise ValueError("options or classes are missing")
        known: dict[str, Any] = {name: body[name] for name in cls.__dataclass_fields__ if name in body}
        return cls(**{**known, "classes": tuple(map(str, classes))})


def lineage_of(path: Path) -> Lineage | None:
    """Read the lineage of a weights file; None for one that has none, or is no safetensors file.

    Only the file's header is read. A file that is damaged has none either: reading its tensors refuses it.

    Raises:
        WeightsError: its lineage cannot be understood.
    """
    try:
        document: Json = json.loads(_metadata(path).get(KEY, "{}"))
        body = document.get(MEMBER) if isinstance(document, dict) else None
        return None if body is None else Lineage.from_dict(body)
    except (ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error


def _metadata(path: Path) -> Mapping[str, str]:
    if path.suffix != ".safetensors":
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError, ValueError):
        return {}


def _unreadable(path: Path, error: Exception) -> WeightsError:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
    return weights_error(
        path,
        f"has a lineage that cannot be understood ({reason})",
        f"Its metadata {KEY} says what was finetuned, as `embank finetune` writes it",
        f"use the version of embank that wrote the file, or save its tensors again without {KEY}",
    )
