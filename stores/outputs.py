"""Files and folders that commands write for the user: checked before the work, written atomically.

An output never replaces an input or a file of a bank, and another file only with `--force`. A picture may
replace one that the same command drew, which is recorded in the picture's metadata.
"""

import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from stores.backends import files
from stores.backends.location import Place, place
from stores.bank.layout import RUN_DOCUMENT, SIDE
from stores.errors import Refused
from stores.manifest.atomic_file import atomic_file, write_error

PICTURES = (".png", ".svg", ".pdf")
TABLES = (".csv", ".parquet", ".json", ".tex")
MANIFESTS = (".parquet", ".csv")
#: Contents of the side folder of a folder of occlusion maps; that of a bank has more.
_MAPS = frozenset({"saliency", "tmp"})
_MANIFEST_COLUMNS = b"image_id,uri,label,split,group"
_PNG = b"\x89PNG\r\n\x1a\n"
#: Bytes at either end of a file in which its metadata are looked for.
_ENDS = 1 << 16


class ImageList(Protocol):
    """The part of a manifest that `Images` needs."""

    @property
    def root(self) -> Path: ...
    @property
    def uris(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class Images:
    """The image files of a manifest, as inputs that are inspected only if an output exists already.

    Attributes:
        root: folder that relative paths start from.
        uris: of the images; a member of an archive stands for the archive.
    """

    root: Path
    uris: Sequence[str]

    @classmethod
    def of(cls, manifest: ImageList) -> "Images":
        """Take the files of a manifest."""
        return cls(manifest.root, manifest.uris)

    def contain(self, target: Path, thorough: bool) -> bool:
        """Return whether the file at `target` is one of these images.

        Args:
            target: an existing file.
            thorough: compare it with every image, because symbolic links may have other names; otherwise, if
                the file has no second hard link, only with images whose uri contains its name.
        """
        from stores.members import split as split_member

        status, name = target.stat(), target.name
        compare_all = thorough or status.st_nlink > 1
        files = {split_member(uri)[0] for uri in self.uris if compare_all or name in uri}
        return any(_is_same_file(self.root / file, status) for file in files)


def _is_same_file(path: Path, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(path.stat(), status)
    except (OSError, ValueError):
        return False


def is_bank(folder: Path) -> bool:
    """Return whether a directory is a bank, or was one before it lost its run document."""
    try:
        if (folder / RUN_DOCUMENT).is_file():
            return True
        contents = os.listdir(folder / SIDE)  # noqa: PTH208
    except (OSError, ValueError):
        return False
    return not _MAPS.issuperset(contents)


def bank_above(path: Path) -> Path | None:
    """Return the bank that a path lies in (or is), with links followed; None if it lies in none."""
    real = Path(os.path.realpath(path))
    return next((folder for folder in (real, *real.parents) if is_bank(folder)), None)


def refuse_in_bank(path: Path | str) -> None:
    """Refuse a path in a bank, which contains only its own files. Raises Refused."""
    path = Path(path)
    # The folder decides where a new file would appear, the path itself where an existing link leads.
    for where in (path.absolute().parent, path):
        if (bank := bank_above(where)) is not None:
            raise _inside(path, bank)


def refuse_unwritable(path: Place) -> None:
    """Refuse a path whose nearest existing parent is a file, or a folder that cannot be written to.

    Raises:
        Refused: naming that parent.
    """
    if reason := files.why_unwritable(path):
        raise Refused(reason, "An output lies in a folder that can be written to", "choose another")


def check_file(
    path: Path,
    kinds: Sequence[str],
    *,
    command: str = "",
    force: bool = False,
    inputs: Sequence[Path | None] = (),
    images: Callable[[], Images] | None = None,
) -> None:
    """Refuse a file that must not or cannot be written, before anything is computed.

    Args:
        path: of the output; missing folders are made when it is written.
        kinds: allowed endings, with their dot, in lower case.
        command: whose pictures may be replaced without force; empty for none.
        force: replace an existing file that is not an input.
        inputs: files that the command reads; None is skipped.
        images: returns further inputs; called only if `path` exists.

    Raises:
        Refused: another ending, a directory, an input, a place in a bank, one that cannot be written to, or
            an existing file.
    """
    if path.suffix.lower() not in kinds:
        raise Refused(f"The name {path}", f"It ends in {' or '.join(kinds)}", "choose a name that ends so")
    refuse_in_bank(path)
    if os.path.lexists(path):
        _refuse_existing(path, command, force, inputs, images)
    refuse_unwritable(path.absolute().parent)


def _refuse_existing(
    path: Path,
    command: str,
    force: bool,
    inputs: Sequence[Path | None],
    images: Callable[[], Images] | None,
) -> None:
    try:
        status = path.stat()
    except OSError:  # a dangling link, which is replaced like a file
        status = path.lstat()
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no ordinary file"
        raise Refused(f"{path} is {kind}", "The output is a file", "choose another name")
    if any(_is_same_file(source, status) for source in inputs if source is not None):
        raise Refused(f"{path} is read by this command", "An output replaces no input", "choose another name")
    own_picture = bool(command) and written_by(path, command)
    if images is not None and path.exists() and images().contain(path, force or not own_picture):
        raise Refused(
            f"{path} is one of the images", "An output replaces no image of the bank", "choose another name"
        )
    if not (force or own_picture):
        rule = "only a picture that the same command drew" if command else "nothing unasked"
        raise Refused(f"{path} exists", f"An output replaces {rule}", "choose another name, or add --force")


def refuse_in_folder(path: Path, ours: bool, images: Images, force: bool) -> None:
    """Refuse to replace a file of a folder of pictures.

    Args:
        path: exists.
        ours: the same command wrote it.
        images: never replaced.
        force: replace other files.

    Raises:
        Refused: an image, a folder, or a file of another origin.
    """
    if path.is_file() and images.contain(path, thorough=force or not ours):
        raise Refused(f"{path} is one of the images", "An output replaces no image", "choose another folder")
    if path.is_dir() or not (force or ours):
        raise Refused(
            f"{path} exists",
            "An output replaces only a picture that the same command drew",
            "choose another folder" + ("" if path.is_dir() else ", or add --force"),
        )


def refuse_twice(*paths: Path | None) -> None:
    """Refuse two outputs under one name. Raises Refused."""
    real = [os.path.realpath(path) for path in paths if path is not None]
    if len(set(real)) < len(real):
        raise Refused(f"{real[0]} twice", "Each output has a name of its own", "choose another name for one")


def check_folder(path: Path) -> None:
    """Refuse a folder that must not or cannot be written into.

    Raises:
        Refused: a place in a bank, or one that cannot be written to.
    """
    refuse_in_bank(path)
    refuse_unwritable(path)


def check_bank(path: Place | str) -> None:
    """Refuse a new bank inside another one, or where no folder can be made. Raises Refused.

    Only what can be told on this machine: in a bucket the user may not be allowed to look above the prefix.
    """
    where = place(path)
    refuse_unwritable(where)
    local = files.local_path(where)
    if local is not None and (bank := bank_above(local.absolute().parent)) is not None:
        raise _inside(where, bank)


def _inside(where: Place, bank: Place) -> Refused:
    return Refused(
        f"{where} lies in the bank {bank}",
        "A bank holds its own files and nothing else",
        "choose a place outside of it",
    )


@contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name once it is complete; missing folders are made.

    Raises:
        Refused: the folder is not writable.
        MachineFault: the disk is full or fails.
    """
    make_folder(path.absolute().parent)
    with atomic_file(path) as file:
        yield file


def author(command: str) -> str:
    """Return the author that a command's pictures have in their metadata."""
    return f"embank {command}"


def written_by(path: Path, command: str) -> bool:
    """Return whether a picture's metadata (PNG `Software`, PDF `Creator`, SVG `creator`) name a command."""
    try:
        with path.open("rb") as file:
            head = file.read(_ENDS)
            if head.startswith(_PNG):
                return _software(head) == author(command).encode()
            file.seek(max(0, os.fstat(file.fileno()).st_size - _ENDS))
            return _names_author(head, author(command)) or _names_author(file.read(_ENDS), author(command))
    except OSError:
        return False


def _software(head: bytes) -> bytes | None:
    """Return the text `Software` of a PNG, if it comes before the pixels."""
    offset = len(_PNG)
    while offset + 8 <= len(head):
        size, kind = int.from_bytes(head[offset : offset + 4], "big"), head[offset + 4 : offset + 8]
        if kind == b"IDAT":
            break
        name, _, text = head[offset + 8 : offset + 8 + size].partition(b"\0")
        if kind == b"tEXt" and name == b"Software":
            return text
        offset += 12 + size
    return None


def _names_author(data: bytes, name: str) -> bool:
    utf16 = b"\xfe\xff" + name.encode("utf-16-be")
    pdf = any(b"/Creator (" + text + b")" in data for text in (name.encode(), utf16))
    svg = rb"<dc:creator>\s*<cc:Agent>\s*<dc:title>" + re.escape(name.encode()) + rb"</dc:title>"
    return pdf or re.search(svg, data) is not None


def check_manifest(
    path: Path, *, force: bool = False, inputs: Sequence[Path | None] = (), root: Path | None = None
) -> None:
    """Refuse the name of a new manifest, before it is made.

    Args:
        path: Parquet or CSV; also an object's URL.
        force, inputs: as for `check_file`.
        root: folder of a data set. Any of its files may be an input, so that only manifests are replaced
            there; a CSV must lie in it.

    Raises:
        Refused: as `check_file`.
    """
    where = place(path)
    if files.local_path(where) is None:
        _check_remote_manifest(where, force)
        return
    if root is not None and path.is_file() and not is_manifest(path) and bank_above(path) is None:
        inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))
        inputs = (*inputs, path) if inside else inputs
    check_file(path, MANIFESTS, force=force, inputs=inputs)
    if root is not None and path.suffix.lower() == ".csv":
        refuse_csv_outside(path, root)


def refuse_csv_outside(path: Path, root: Path) -> None:
    """Refuse a CSV manifest that could not say where its images are. Raises Refused."""
    if path.absolute().parent.resolve() != root.absolute().resolve():
        raise Refused(
            f"{path} lies outside the root {root}",
            "A CSV file keeps no root, so it lies in the root itself",
            f"write {path.with_suffix('.parquet')}, or a CSV in the root",
        )


def _check_remote_manifest(where: Place, force: bool) -> None:
    if not where.name.lower().endswith(MANIFESTS[0]):
        raise Refused(str(where), "A manifest in a bucket is Parquet", "choose a name that ends in .parquet")
    for folder in where.parents:
        if files.stat_if_there(folder / RUN_DOCUMENT) is not None:
            raise _inside(where, folder)
    if not force and files.stat_if_there(where) is not None:
        raise Refused(
            f"{where} exists", "A manifest replaces nothing unasked", "choose another name, or add --force"
        )


def is_manifest(path: Path) -> bool:
    """Return whether embank wrote this file as a manifest: Parquet with a root, or CSV with its columns."""
    try:
        with path.open("rb") as file:
            head = file.read(64)
            file.seek(max(0, os.fstat(file.fileno()).st_size - _ENDS))
            return head.startswith(_MANIFEST_COLUMNS) or b"embank.root" in file.read(_ENDS)
    except OSError:
        return False


def make_folder(path: Path) -> None:
    """Make a folder and its missing parents. Raises Refused, MachineFault."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(path, error) from error
