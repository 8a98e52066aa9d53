"""Where the files of a study are: the study file itself, what it names, and what a run makes."""

from importlib import resources
from pathlib import Path

from engine.errors import Refused
from engine.study.values import Value, suggestion

#: Folder of the studies that ship with embank.
_SHIPPED = "shipped"


def shipped() -> dict[str, Path]:
    """Return the studies that ship with embank, by file name."""
    folder = resources.files(__package__) / _SHIPPED
    files = (Path(str(entry)) for entry in folder.iterdir() if entry.name.endswith(".yaml"))
    return {path.name: path for path in sorted(files)}


def study_file(word: str) -> tuple[Path, Path]:
    """Return a study file, and the folder that its paths are relative to and may not leave.

    Args:
        word: a path, or where there is no such file the name of a shipped study, e.g. `quick.yaml`; its
            folder is the current one.

    Raises:
        Refused: neither.
    """
    path = Path(word)
    if path.exists():
        return path, path.absolute().parent
    known = shipped()
    name = word if word.endswith(".yaml") else f"{word}.yaml"
    if name in known:
        return known[name], Path.cwd()
    raise Refused(
        f"{word} is not there",
        f"A study is a file, or one of {', '.join(known)}, which ship with embank",
        suggestion(word, known) or "name another file",
    )


def inside(value: Value, root: Path) -> Path:
    """Return the path that a value names, resolved.

    Raises:
        Refused: a URL, a path that leads out of the root, also by links, or none at all.
    """
    text = value.text()
    if "://" in text:
        raise value.refused("It is a path on this machine", "name a file or folder below the study file")
    home = root.resolve()
    try:
        path = (home / text).resolve()
    except (OSError, RuntimeError, ValueError):  # links in a circle, a name too long
        raise value.refused("It is a path", "name a file or folder below the study file") from None
    if not path.is_relative_to(home):
        where = "" if path == Path(home / text) else f", it leads to {path}"
        raise value.refused(
            f"No path leads out of the study's folder {home}{where}",
            "put the study file into a folder above the data, or the data below it",
        )
    return path
