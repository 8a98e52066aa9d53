"""The files of WebDataset shards as samples: which files belong together, and which of them is the image.

WebDataset's own rule: a sample's key is the file's name up to its first dot, the rest is the suffix. Where
keys have dots themselves (`1.2.840.png`, `case_22.05.png`), that rule parts images from their labels or heaps
up different samples; then the key is the name up to the last dot.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from engine.datasets._archives import IMAGE_SUFFIXES
from engine.errors import Refused
from stores.manifest.uri_policy import shown

#: Suffixes of the files that describe a sample.
LABELS = ("cls", "json")
KEYS = ("auto", "first", "last")


@dataclass
class Samples:
    """The samples of one shard.

    Attributes:
        files: key -> suffix in lower case -> member, in the archive's order.
        repeated: files that share key and suffix with a later one.
        nameless: images whose names begin with a dot, which are no part of any sample.
    """

    files: dict[str, dict[str, str]] = field(default_factory=dict)
    repeated: int = 0
    nameless: int = 0


def samples(members: Iterable[str], dots: str) -> Samples:
    """Group the members of a shard.

    Args:
        dots: `first` or `last`, the dot that ends a key.
    """
    found = Samples()
    for member in members:
        folder, slash, name = member.rpartition("/")
        if name.startswith("."):
            found.nameless += is_image(name.rpartition(".")[2])
            continue
        stem, _, suffix = name.partition(".") if dots == "first" else name.rpartition(".")
        if not stem or not suffix:
            continue
        files = found.files.setdefault(folder + slash + stem, {})
        found.repeated += suffix.lower() in files
        files[suffix.lower()] = member
    return found


def is_image(suffix: str) -> bool:
    """Whether files with this suffix, without its first dot, are taken for images."""
    return f".{suffix.lower()}".endswith(IMAGE_SUFFIXES)


def images_of(files: Mapping[str, str]) -> list[str]:
    """The suffixes of a sample's images."""
    return [suffix for suffix in files if is_image(suffix)]


def ending_dot(shards: Mapping[str, Samples], image: str) -> str:
    """Find the dot that ends keys: `first` by WebDataset's rule, `last` where it cannot be that one.

    It cannot be where images with a dot in their suffix have a label file of the same name, and the sample
    has none of its own: `a.05.png` and `a.05.cls`, but no `a.cls`.

    Args:
        shards: grouped by the first dot.
        image: suffix of the image that the user chose, if any; with a dot in it, it is one of the first rule.

    Raises:
        Refused: some samples speak for the one, some for the other.
    """
    torn, sound = "", ""
    for shard, found in shards.items():
        for key, files in found.files.items():
            dotted = [suffix for suffix in images_of(files) if "." in suffix]
            labelled = any(label in files for label in LABELS)
            if dotted and labelled:
                sound = sound or f"{shard}!/{files[dotted[0]]}"
            elif any(f"{name.rpartition('.')[0]}.{label}" in files for name in dotted for label in LABELS):
                torn = torn or f"{shard}!/{key}.{dotted[0]}"
    if torn and not sound and "." not in image:
        return "last"
    if torn and sound and "." not in image:
        raise Refused(
            f"{shown(torn)} has its label under its name up to the last dot, {shown(sound)} up to the first",
            "All keys end at the same dot",
            "choose with -O keys=first or -O keys=last; the notes count what then has no label",
        )
    return "first"


def refuse_several(shards: Mapping[str, Samples], dots: str) -> None:
    """Refuse samples of several images, with what each choice would list. Raises Refused."""
    every = [
        (f"{shard}!/{key}", images_of(files))
        for shard, found in shards.items()
        for key, files in found.files.items()
    ]
    several = [(key, images) for key, images in every if len(images) > 1]
    if not several:
        return
    key, images = several[0]
    total, listed = sum(len(images) for _, images in every), sum(bool(images) for _, images in every)
    counts = Counter(suffix for _, images in every for suffix in images)
    best, count = counts.most_common(1)[0]
    choices = [f"-O image={best} lists {count:,} of {total:,} images"]
    apart = len({(key, suffix.rpartition(".")[0]) for key, images in every for suffix in images})
    if dots == "first" and apart == total:
        choices.append(f"-O keys=last lists all {total:,}, each as a sample of its own")
    raise Refused(
        f"{shown(key)} has the images {', '.join(images[:5])}{', ...' * (len(images) > 5)} "
        f"({len(several):,} of {listed:,} samples have several)",
        "A row is one image",
        "choose: " + "; ".join(reversed(choices)),
    )
