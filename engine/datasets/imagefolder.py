"""One's own images as torchvision has them: a folder a split, in it one a class; also inside archives."""

from collections.abc import Iterator
from pathlib import Path

from engine.datasets._archives import IMAGE_SUFFIXES, opened
from engine.datasets._layout import refuse_no_folder
from engine.datasets._protocol import Facts, Mode
from engine.errors import ManifestError
from stores import members
from stores.manifest import split_words
from stores.manifest.image_folder import list_images
from stores.manifest.manifest import Manifest
from stores.manifest.uri_policy import shown

facts = Facts(
    name="imagefolder",
    title="your own images, a folder a split and in it one a class, plain or in ZIP and TAR archives",
    source="your own; the layout is that of torchvision's ImageFolder",
    licence="your own",
    images=0,
    classes={},
    groups="none: give patients with `embank manifest table`",
    caveats=(
        "Folders know no patients: whether one stands in two splits cannot be checked.",
        "Packed TAR archives (.tar.gz) cannot be read in place: gunzip them.",
    ),
    layout=(
        "ROOT/train/CLASS/NAME.png          ROOT/test/CLASS/NAME.png",
        "ROOT/train.zip (CLASS/NAME.png)    ROOT/all.tar (train/CLASS/NAME.png): read in place",
    ),
    label="the folder below the split's",
    splits="the first folder or archive named train, val, test, or by another usual name (valid, dev, ...)",
)


def index(root: Path, mode: Mode = "default") -> Manifest:
    """List the images of folders and of the archives in ROOT. See `Dataset.index`."""
    refuse_no_folder(root, "imagefolder")
    uris = list_images(root).uris + sorted(_archived(root))
    if not uris:
        raise ManifestError(
            f"{root} holds no image",
            f"Images end in {' '.join(IMAGE_SUFFIXES)}, and lie in folders, .zip or .tar files",
            "see `embank datasets show imagefolder`",
        )
    parts = [_split_and_label(uri) for uri in uris]
    columns = {"uri": uris, "split": [split for split, _ in parts], "label": [label for _, label in parts]}
    return Manifest.from_columns(columns, root)


def _archived(root: Path) -> Iterator[str]:
    for path in sorted(root.iterdir()):
        if path.suffix.lower() in (".zip", ".tar") and path.is_file() and not path.name.startswith("."):
            with opened(path) as file:
                names: list[str] = list(members.index(file, path.name).entries)
            # What some systems put beside each file of an archive.
            plain = (name for name in names if not name.startswith("__MACOSX/"))
            yield from (f"{path.name}!/{name}" for name in plain if name.lower().endswith(IMAGE_SUFFIXES))


def _split_and_label(uri: str) -> tuple[str, str]:
    """Of the folders on the way to an image; an archive is a folder."""
    folders = [
        part.lower().removesuffix("!").removesuffix(".zip").removesuffix(".tar") for part in uri.split("/")
    ]
    found = next((i for i, folder in enumerate(folders[:-1]) if split_words.usual(folder)), None)
    if found is None:
        raise ManifestError(
            f"{shown(uri)} lies in no split folder",
            f"A folder or archive above each image is one of {', '.join(split_words.WORDS)}",
            "move the file, or use `embank manifest folder`, which needs no splits",
        )
    # train.zip may hold train/CLASS/NAME as well as CLASS/NAME.
    while folders[found + 1 : -1][:1] == [folders[found]]:
        found += 1
    label = uri.split("/")[found + 1] if found + 2 < len(folders) else ""
    return folders[found], label  # the manifest puts it into the usual words, and says so
