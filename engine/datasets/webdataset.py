"""WebDataset: TAR shards in which the files of one sample share their name up to the first dot."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.datasets._archives import IMAGE_SUFFIXES, opened
from engine.datasets._layout import refuse_no_folder
from engine.datasets._protocol import Facts, Mode, Option
from engine.errors import ManifestError, Refused
from stores import members, split_words
from stores.folders import run_threads
from stores.manifest import Manifest
from stores.members.tars import Tar
from stores.paths import shown

#: Of a label or JSON file.
_MAX_BYTES = 1 << 20

facts = Facts(
    name="webdataset",
    title="your own TAR shards in the WebDataset layout, read in place",
    source="your own; the layout is https://github.com/webdataset/webdataset",
    licence="your own",
    images=0,
    classes={},
    groups="-O group=KEY names the JSON field that holds the patient",
    caveats=(
        "Packed shards (.tar.gz) cannot be read in place: gunzip them.",
        "One image a sample; of several, -O image=SUFFIX chooses.",
    ),
    layout=(
        "ROOT/train-000000.tar   (0001.jpg, 0001.cls, 0002.jpg, 0002.cls, ...)",
        "ROOT/test-000000.tar    (0001.png, 0001.json, ...)",
    ),
    label="the text of KEY.cls; else the field `label` of KEY.json, or the one that -O label=FIELD names",
    splits="by the shard's name: train, val, test and their usual other names, up to the first dash or digit",
    options=(
        Option("image", "", "suffix of the image, such as left.png, where a sample has several"),
        Option("label", "label", "field of KEY.json that holds the label"),
        Option("group", "", "field of KEY.json that holds the patient"),
    ),
)


@dataclass(frozen=True)
class _Fields:
    """What the options name."""

    image: str
    label: str
    group: str


def index(
    root: Path, mode: Mode = "default", *, image: str = "", label: str = "label", group: str = ""
) -> Manifest:
    """List the samples of all shards. Labels are read, images are not. See `Dataset.index`."""
    refuse_no_folder(root, "webdataset")
    shards = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.tar"))
    if not shards:
        packed = " unpacked (gunzip them)" if any(root.rglob("*.tar.gz")) else ""
        raise ManifestError(
            f"{root} holds no file NAME.tar{packed}",
            "A shard is a TAR archive without compression",
            "see `embank datasets show webdataset`",
        )
    fields = _Fields(image.lower().lstrip("."), label, group)
    found = run_threads(lambda shard: list(_rows(root, shard, fields)), shards, len(shards))
    rows = [row for shard in found for row in shard]
    if not rows:
        raise ManifestError(
            f"The {len(shards)} shards in {root} hold no image",
            f"Images end in {' '.join(IMAGE_SUFFIXES)}",
            "check the shards, or choose with -O image=SUFFIX",
        )
    return Manifest.from_columns({name: [row[name] for row in rows] for name in rows[0]}, root)


def _rows(root: Path, shard: str, fields: _Fields) -> Iterator[dict[str, str]]:
    stem = shard.removesuffix(".tar")
    word = stem.rpartition("/")[2].lower()
    split = next((name for name in split_words.WORDS if _starts(word, name)), "")
    with opened(root / shard, "fetch it again, or gunzip it") as file:
        archive: Tar = members.index(file, shard)
        for key, files in _samples(archive).items():
            image = _image(files, fields, f"{shard}!/{key}")
            if image is None:
                continue
            label, group = _described(archive, file, files, fields, f"{shard}!/{key}")
            yield {
                "image_id": f"{stem}/{key}", "uri": f"{shard}!/{files[image]}",
                "label": label, "split": split, "group": group,
            }  # fmt: skip


def _starts(word: str, name: str) -> bool:
    return word == name or (word.startswith(name) and not word[len(name)].isalpha())


def _samples(archive: Tar) -> dict[str, dict[str, str]]:
    """Key -> suffix in lower case -> member, in the archive's order."""
    samples: dict[str, dict[str, str]] = {}
    for member in archive.entries:
        folder, slash, name = member.rpartition("/")
        stem, dot, suffix = name.partition(".")
        if stem and dot:
            samples.setdefault(folder + slash + stem, {})[suffix.lower()] = member
    return samples


def _image(files: dict[str, str], fields: _Fields, where: str) -> str | None:
    """The suffix of a sample's image, if it has one."""
    if fields.image:
        return fields.image if fields.image in files else None
    images = [suffix for suffix in files if f".{suffix}".endswith(IMAGE_SUFFIXES)]
    if len(images) > 1:
        raise Refused(
            f"{shown(where)} has the images {', '.join(images)}",
            "A row is one image",
            f"choose with -O image={images[0]}",
        )
    return images[0] if images else None


def _described(
    archive: Tar, file: int, files: dict[str, str], fields: _Fields, where: str
) -> tuple[str, str]:
    """A sample's label and group, empty where it names none."""
    values: dict[str, Any] = {}
    if "json" in files:
        try:
            values = json.loads(archive.read(file, files["json"], _MAX_BYTES))
        except (ValueError, RecursionError) as error:
            raise ManifestError(
                f"{shown(where)}.json is no JSON", "It holds one object", "mend the shard"
            ) from error
        if not isinstance(values, dict):
            raise ManifestError(f"{shown(where)}.json is no object", "It holds one object", "mend the shard")
    label = _text(values.get(fields.label), f"{where}.json: {fields.label}")
    if "cls" in files:
        label = archive.read(file, files["cls"], _MAX_BYTES).decode("utf-8", "replace").strip()
    return label, _text(values.get(fields.group), f"{where}.json: {fields.group}") if fields.group else ""


def _text(value: object, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str | int | float):
        raise ManifestError(
            f"{shown(where)} is a {type(value).__name__}", "It is text or a number", "name another field"
        )
    return str(value)
