"""The user's own images in torchvision's layout, SPLIT/CLASS/NAME, also inside archives."""

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
                names: list[str] = list(members.open_index(file, path.name).entries)
            # macOS adds a metadata file to each file of an archive.
            files = (name for name in names if not name.startswith("__MACOSX/"))
            yield from (f"{path.name}!/{name}" for name in files if name.lower().endswith(IMAGE_SUFFIXES))


def _split_and_label(uri: str) -> tuple[str, str]:
    """Return split and label of an image from its folders and archives. Raises ManifestError."""
    folders = [
        part.lower().removesuffix("!").removesuffix(".zip").removesuffix(".tar") for part in uri.split("/")
    ]
    level = next((i for i, folder in enumerate(folders[:-1]) if split_words.usual_split(folder)), None)
    if level is None:
        raise ManifestError(
            f"{shown(uri)} lies in no split folder",
            f"A folder or archive above each image is one of {', '.join(split_words.WORDS)}",
            "move the file, or use `embank manifest folder`, which needs no splits",
        )
    # train.zip may contain train/CLASS/NAME instead of CLASS/NAME.
    while folders[level + 1 : -1][:1] == [folders[level]]:
        level += 1
    label = uri.split("/")[level + 1] if level + 2 < len(folders) else ""
    return folders[level], label  # the manifest gives the split its usual name, with a note
