"""The samples of WebDataset shards: the files that belong together, and the image among them.

WebDataset's own rule is that a sample's key is the file's name up to its first dot, and the rest its suffix.
If keys contain dots (`1.2.840.png`, `case_22.05.png`), that rule separates images from their labels or merges
different samples; then the key is the name up to the last dot.
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
        repeated: number of files that share key and suffix with a later one.
        nameless: number of images whose names begin with a dot, which belong to no sample.
    """

    files: dict[str, dict[str, str]] = field(default_factory=dict)
    repeated: int = 0
    nameless: int = 0


def samples(members: Iterable[str], dots: str) -> Samples:
    """Group the members of a shard.

    Args:
        members: names of the files.
        dots: the dot that ends a key, `first` or `last`.
    """
    shard = Samples()
    for member in members:
        folder, slash, name = member.rpartition("/")
        if name.startswith("."):
            shard.nameless += is_image(name.rpartition(".")[2])
            continue
        stem, _, suffix = name.partition(".") if dots == "first" else name.rpartition(".")
        if not stem or not suffix:
            continue
        files = shard.files.setdefault(folder + slash + stem, {})
        shard.repeated += suffix.lower() in files
        files[suffix.lower()] = member
    return shard


def is_image(suffix: str) -> bool:
    """Return whether files with this suffix, given without its first dot, are images."""
    return f".{suffix.lower()}".endswith(IMAGE_SUFFIXES)


def images_of(files: Mapping[str, str]) -> list[str]:
    """Return the suffixes of a sample's images."""
    return [suffix for suffix in files if is_image(suffix)]


def ending_dot(shards: Mapping[str, Samples], image: str) -> str:
    """Decide which dot ends keys: `first`, WebDataset's rule, or `last` if that rule does not fit.

    It does not fit if an image with a dot in its suffix has a label file of the same name, and the sample has
    no other: `a.05.png` and `a.05.cls`, but no `a.cls`.

    Args:
        shards: samples by the first dot.
        image: suffix of the image that the user chose, if any; one with a dot implies `first`.

    Raises:
        Refused: some samples fit one rule, some the other.
    """
    fits_last, fits_first = "", ""  # an example of each
    for name, shard in shards.items():
        for key, files in shard.files.items():
            dotted = [suffix for suffix in images_of(files) if "." in suffix]
            labelled = any(label in files for label in LABELS)
            if dotted and labelled:
                fits_first = fits_first or f"{name}!/{files[dotted[0]]}"
            elif any(
                f"{suffix.rpartition('.')[0]}.{label}" in files for suffix in dotted for label in LABELS
            ):
                fits_last = fits_last or f"{name}!/{key}.{dotted[0]}"
    if fits_last and not fits_first and "." not in image:
        return "last"
    if fits_last and fits_first and "." not in image:
        raise Refused(
            f"{shown(fits_last)} has its label under its name up to the last dot, {shown(fits_first)} up to "
            "the first",
            "All keys end at the same dot",
            "choose with -O keys=first or -O keys=last; the notes count what then has no label",
        )
    return "first"


def refuse_several(shards: Mapping[str, Samples], dots: str) -> None:
    """Refuse samples with several images, naming what each choice would list. Raises Refused."""
    all_samples = [
        (f"{name}!/{key}", images_of(files))
        for name, shard in shards.items()
        for key, files in shard.files.items()
    ]
    several = [(key, images) for key, images in all_samples if len(images) > 1]
    if not several:
        return
    key, images = several[0]
    total = sum(len(images) for _, images in all_samples)
    listed = sum(bool(images) for _, images in all_samples)
    counts = Counter(suffix for _, images in all_samples for suffix in images)
    best, count = counts.most_common(1)[0]
    choices = [f"-O image={best} lists {count:,} of {total:,} images"]
    by_last_dot = {(key, suffix.rpartition(".")[0]) for key, images in all_samples for suffix in images}
    if dots == "first" and len(by_last_dot) == total:
        choices.append(f"-O keys=last lists all {total:,}, each as a sample of its own")
    raise Refused(
        f"{shown(key)} has the images {', '.join(images[:5])}{', ...' * (len(images) > 5)} "
        f"({len(several):,} of {listed:,} samples have several)",
        "A row is one image",
        "choose: " + "; ".join(reversed(choices)),
    )
