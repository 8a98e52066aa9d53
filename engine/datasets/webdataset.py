"""WebDataset: TAR shards in which the files of a sample share their name up to a dot (`_samples`)."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.datasets._archives import IMAGE_SUFFIXES, opened
from engine.datasets._layout import refuse_no_folder
from engine.datasets._protocol import Facts, Mode, Option
from engine.datasets._samples import KEYS, Samples, ending_dot, images_of, is_image, refuse_several, samples
from engine.errors import ManifestError
from stores import members
from stores.manifest import split_words
from stores.manifest.image_folder import run_threads
from stores.manifest.manifest import Manifest
from stores.manifest.uri_policy import shown
from stores.members.tars import Tar

_REMEDY = "fetch it again, or gunzip it"
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
        "KEY ends at the first dot of a name, or at the last where the labels' names say so.",
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
        Option("keys", "auto", "which dot of a name ends KEY: first, or last where names have others", KEYS),
    ),
)


@dataclass(frozen=True)
class _Fields:
    """What the options name."""

    image: str
    label: str
    group: str


def index(
    root: Path,
    mode: Mode = "default",
    *,
    image: str = "",
    label: str = "label",
    group: str = "",
    keys: str = "auto",
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
    archives = dict(zip(shards, run_threads(lambda s: _archive(root, s), shards, len(shards)), strict=True))
    grouped, dots = _grouped(archives, fields, keys)
    found = run_threads(
        lambda shard: list(_rows(root, shard, archives[shard], grouped[shard], fields)), shards, len(shards)
    )
    rows = [row for shard in found for row in shard]
    if not rows:
        ends = f".{fields.image}" if fields.image else " ".join(IMAGE_SUFFIXES)
        raise ManifestError(
            f"The {len(shards)} shards in {root} hold no image that ends in {ends}",
            f"They have files that end in {_suffixes(grouped)}",
            "check the shards, or choose with -O image=SUFFIX",
        )
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    notes = [*_dot_notes(rows, dots, keys), *_notes(grouped, rows, fields)]
    return Manifest.from_columns(columns, root, notes=notes)


def _archive(root: Path, shard: str) -> Tar:
    with opened(root / shard, _REMEDY) as file:
        archive: Tar = members.index(file, shard)
        return archive


def _grouped(archives: dict[str, Tar], fields: _Fields, keys: str) -> tuple[dict[str, Samples], str]:
    """(samples of each shard, the dot that ends their keys)."""

    def by(dots: str) -> dict[str, Samples]:
        return {shard: samples(archive.entries, dots) for shard, archive in archives.items()}

    dots, grouped = "first", by("first")
    if keys == "auto":
        dots = ending_dot(grouped, fields.image)
    elif keys == "last":
        dots = "last"
    if dots == "last":
        grouped = by("last")
    if not fields.image:
        refuse_several(grouped, dots)
    return grouped, dots


def _rows(
    root: Path, shard: str, archive: Tar, grouped: Samples, fields: _Fields
) -> Iterator[dict[str, str]]:
    word = shard.removesuffix(".tar").rpartition("/")[2].lower()
    split = next((name for name in split_words.WORDS if _starts(word, name)), "")
    with opened(root / shard, _REMEDY) as file:
        for key, files in grouped.files.items():
            image = _image(files, fields)
            if image is None:
                continue
            label, group = _described(archive, file, files, fields, f"{shard}!/{key}")
            yield {"uri": f"{shard}!/{files[image]}", "label": label, "split": split, "group": group}


def _starts(word: str, name: str) -> bool:
    return word == name or (word.startswith(name) and not word[len(name)].isalpha())


def _image(files: dict[str, str], fields: _Fields) -> str | None:
    """The suffix of a sample's image, if it has one."""
    if fields.image:
        return fields.image if fields.image in files else None
    return next(iter(images_of(files)), None)


def _suffixes(grouped: dict[str, Samples]) -> str:
    """The most frequent suffixes, for a message."""
    counts = Counter(
        suffix for found in grouped.values() for files in found.files.values() for suffix in files
    )
    return " ".join(f".{suffix}" for suffix, _ in counts.most_common(8)) or "nothing"


def _dot_notes(rows: list[dict[str, str]], dots: str, keys: str) -> list[str]:
    if dots == "first" or keys != "auto":
        return []
    example = next(row["uri"] for row in rows if "." in row["uri"].rpartition("/")[2].rpartition(".")[0])
    return [
        f"keys have dots: a sample's files share their name up to the last dot, such as {shown(example)} "
        "(-O keys=first for WebDataset's own rule, up to the first)"
    ]


def _notes(grouped: dict[str, Samples], rows: list[dict[str, str]], fields: _Fields) -> list[str]:
    """Count what was left out, and what has no label."""
    every = [files for found in grouped.values() for files in found.files.values()]
    images = sum(len(images_of(files)) for files in every)
    listed = sum(is_image(suffix) for files in every if (suffix := _image(files, fields)))
    without = len(every) - len(rows)
    unlabelled = sum(not row["label"] for row in rows)
    ungrouped = sum(not row["group"] for row in rows) if fields.group else 0
    chosen = f"no file that ends in .{fields.image}" if fields.image else "no image"
    counts = (
        (without, f"of {len(every):,} samples left out: {chosen}"),
        (images - listed, f"of {images:,} images left out: they do not end in .{fields.image}"),
        (
            unlabelled,
            f"of {len(rows):,} images have no label: no KEY.cls, no field {fields.label} in KEY.json",
        ),
        (ungrouped, f"of {len(rows):,} images have no group: no field {fields.group} in KEY.json"),
        (sum(found.repeated for found in grouped.values()), "files left out: a later one has their name"),
        (sum(found.nameless for found in grouped.values()), "images left out: their names begin with a dot"),
    )
    return [f"{count:,} {what}" for count, what in counts if count]


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
