"""Columns of a manifest read from a tree of folders: one folder a class, perhaps below one folder a split."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from stores.errors import ManifestError
from stores.manifest import split_words
from stores.manifest.image_folder import SUFFIXES, Listing, list_images
from stores.manifest.uri_policy import shown


def read_class_folders(
    root: Path, *, split_folders: bool, follow_links: bool
) -> tuple[dict[str, Sequence[str]], list[str]]:
    """List the images below a folder, with what their folders say of them.

    Args:
        root: the folder.
        split_folders: the first folder is the split and the second the label; otherwise the first is the
            label.
        follow_links: enter links to folders.

    Returns:
        (columns `uri`, `label` and, with `split_folders`, `split`, rows sorted by the bytes of the uri; notes
        on what was skipped, and on what the user may not expect).

    Raises:
        ManifestError: not a folder, no image in it, or a first folder whose name is no split.
    """
    listing = _listing(root, follow_links)
    columns: dict[str, Sequence[str]] = {"uri": listing.uris}
    columns |= _folder_columns(listing.uris, split_folders)
    notes = [f"{count} skipped: {reason}" for reason, count in listing.skipped.items()]
    notes += _gif_notes(listing.uris)
    notes += [] if split_folders else _split_like_notes(columns["label"])
    return columns, notes


def _listing(root: Path, follow_links: bool) -> Listing:
    try:
        listing = list_images(root, follow_links=follow_links)
    except OSError as error:
        raise ManifestError(
            f"{error.filename}: {error.strerror}", "The root is a folder that can be listed", "check the path"
        ) from error
    if not listing.uris:
        skipped = ", ".join(f"{count} {reason}" for reason, count in listing.skipped.items()) or "nothing"
        raise ManifestError(
            f"{root} holds no image (skipped: {skipped})",
            f"Images end in {' '.join(sorted(SUFFIXES))}",
            "choose another folder, or list the files in a CSV",
        )
    return listing


def _folder_columns(uris: Iterable[str], split_folders: bool) -> dict[str, Sequence[str]]:
    folders_of = [uri.split("/")[:-1] for uri in uris]
    if not split_folders:
        return {"label": [folders[0] if folders else "" for folders in folders_of]}
    for folders, uri in zip(folders_of, uris, strict=True):
        if not folders or split_words.usual_split(folders[0]) is None:
            raise ManifestError(
                f"{shown(uri)} lies in no split folder",
                f"With split folders the first folder is one of {', '.join(split_words.WORDS)}",
                "move the file, or leave the option out",
            )
    return {
        "split": [folders[0] for folders in folders_of],
        "label": [folders[1] if len(folders) > 1 else "" for folders in folders_of],
    }


def _gif_notes(uris: list[str]) -> list[str]:
    count = sum(uri.lower().endswith(".gif") for uri in uris)
    return [f"{count} listed: GIF (of an animated one, the first frame is taken)"] if count else []


def _split_like_notes(labels: Iterable[str]) -> list[str]:
    names = sorted(set(labels))
    if len(names) > 1 and all(split_words.usual_split(name) for name in names):
        return [f"the folders {', '.join(names)} look like splits and were read as labels (--split-folders)"]
    return []
