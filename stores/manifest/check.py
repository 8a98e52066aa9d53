"""Look for what makes a study's numbers wrong before a single image is embedded."""

import os
import stat
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stores import members
from stores.manifest.image_check import Fault, image_problems
from stores.manifest.image_folder import Progress, run_threads
from stores.manifest.manifest import Manifest, plain_uris
from stores.manifest.problems import CheckReport, Problem
from stores.manifest.spelling_check import text_problems

#: A class with fewer rows cannot give 5 support and 15 query images, the smallest common episode.
FEW = 20
_SHOWN = 5


def check(
    manifest: Manifest,
    *,
    files: bool = True,
    content: bool = False,
    fault_of: Callable[[int], Fault | None] | None = None,
    workers: int | None = None,
    allow_outside: bool = False,
    progress: Progress | None = None,
) -> CheckReport:
    """Check a manifest against itself and against the files it names. Reads; changes nothing.

    Args:
        manifest: rows to check.
        files: look at every file: is it there, regular, below the root; is a member in its archive.
        content: also find equal files (those of equal size are hashed) and compare the manifest's digests.
        fault_of: with `content`, also find files that are no image, or a damaged one: says what is wrong with
            a row's, or None (`engine.decode.soundness`).
        workers: threads.
        allow_outside: links may lead out of the root.
        progress: told (files looked at, files), and again while hashing.

    Returns:
        the findings; `ok` is false if any is an error.
    """
    problems = [*_group_problems(manifest), *_class_problems(manifest), *_uri_problems(manifest)]
    problems += text_problems(manifest)
    if files or content:
        sizes, found = _look(manifest, workers, allow_outside, progress)
        problems += found
        if content:
            problems += _content_problems(manifest, sizes, workers, progress)
        if content and fault_of is not None:
            rows = [row for row, size in enumerate(sizes) if size >= 0]
            problems += image_problems(manifest, rows, fault_of, workers, progress)
    order = ("error", "warning", "note")
    return CheckReport(
        rows=len(manifest),
        unlabelled=manifest.unlabelled,
        digest=manifest.digest,
        classes=manifest.classes,
        class_counts=_class_counts(manifest),
        groups=len(manifest.codes("group")[1]),
        files_checked=files or content,
        content_checked=content,
        problems=tuple(sorted(problems, key=lambda problem: order.index(problem.severity))),
        notes=manifest.notes,
    )


def _class_counts(manifest: Manifest) -> dict[str, dict[str, int]]:
    counts = Counter(zip(manifest.column("split"), manifest.column("label"), strict=True))
    result: dict[str, dict[str, int]] = {}
    for (split, label), count in sorted(counts.items()):
        result.setdefault(split, {})[label] = count
    return result


# The table


def _group_problems(manifest: Manifest) -> Iterable[Problem]:
    groups, names = manifest.codes("group")
    splits, split_names = manifest.codes("split")
    if not names:
        yield Problem(
            "note", "no_group", len(manifest), "No row names its group (patient)",
            "name it with `embank manifest table --group COLUMN`, lest a patient be on both sides of a split",
        )  # fmt: skip
        return
    if missing := int((groups < 0).sum()):
        yield Problem(
            "warning", "group_missing", missing, f"{missing} rows have no group",
            "fill in the group: such rows cannot be kept out of the other splits",
        )  # fmt: skip
    torn = _torn(groups, splits)
    if len(torn):
        rows = int(np.isin(groups, torn).sum())
        yield Problem(
            "error", "group_across_splits", len(torn),
            f"{len(torn)} of {len(names)} groups stand in more than one split ({rows} rows)",
            "split by group; otherwise a model is tested on patients it has seen",
            tuple(
                f"{names[g]}: {', '.join(split_names[s] for s in np.unique(splits[groups == g]) if s >= 0)}"
                for g in torn[:_SHOWN].tolist()
            ),
        )  # fmt: skip


def _torn(keys: "np.ndarray[Any, Any]", values: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Keys that occur with more than one value; negative keys and values stand for none."""
    both = (keys >= 0) & (values >= 0)
    pairs = np.unique(np.stack([keys[both], values[both]]), axis=1)
    found, counts = np.unique(pairs[0], return_counts=True)
    return found[counts > 1]


def _class_problems(manifest: Manifest) -> Iterable[Problem]:
    classes = manifest.classes
    if not classes:
        yield Problem(
            "note", "no_label", len(manifest), "No row has a label",
            "name it with `embank manifest table --label COLUMN`; to embed needs none, every evaluation does",
        )  # fmt: skip
        return
    if manifest.unlabelled:
        yield Problem(
            "note", "unlabelled", manifest.unlabelled,
            f"{manifest.unlabelled} of {len(manifest)} rows have no label",
            "nothing, if meant so: they are embedded, and evaluations leave them out",
        )  # fmt: skip
    few = sorted((count, name) for name, count in classes.items() if count < FEW)
    if few:
        yield Problem(
            "warning", "small_class", len(few), f"{len(few)} classes have fewer than {FEW} images",
            "merge or drop them, or use fewer shots and queries",
            tuple(f"{name}: {count}" for count, name in few[:_SHOWN]),
        )  # fmt: skip
    if len(classes) == 1:
        yield Problem("warning", "one_class", 1, "All labels are equal", "check the label column")
    yield from _absent_classes(manifest)


def _absent_classes(manifest: Manifest) -> Iterable[Problem]:
    counts = _class_counts(manifest)
    absent = [
        f"{split}: {label}"
        for split in counts
        if split
        for label in manifest.classes
        if not counts[split].get(label)
    ]
    if absent:
        yield Problem(
            "warning", "class_absent", len(absent), f"{len(absent)} times a split lacks a class",
            "check the splits; a class that is only in test cannot be learned", tuple(absent[:_SHOWN]),
        )  # fmt: skip


def _uri_problems(manifest: Manifest) -> Iterable[Problem]:
    uris = plain_uris(manifest.table["uri"]).to_pylist()
    twice = [rows for rows in _same(uris) if len(rows) > 1]
    if twice:
        yield _duplicates(manifest, twice, "duplicate_uri", "files stand in more than one row")


def _same(keys: Sequence[Any]) -> list[list[int]]:
    """Rows of each key, in order of first occurrence."""
    rows: dict[Any, list[int]] = defaultdict(list)
    for row, key in enumerate(keys):
        rows[key].append(row)
    return list(rows.values())


def _duplicates(manifest: Manifest, twice: list[list[int]], code: str, text: str) -> Problem:
    """How bad copies are depends on what they straddle."""
    labels, splits = manifest.column("label"), manifest.column("split")

    def straddle(cells: list[str]) -> int:
        return sum(len({cells[row] for row in rows} - {""}) > 1 for rows in twice)

    label, split = straddle(labels), straddle(splits)
    detail = [f"{label} with different labels"] if label else []
    detail += [f"{split} in different splits"] if split else []
    return Problem(
        "error" if detail else "warning",
        code,
        len(twice),
        f"{len(twice)} {text}" + (f" ({', '.join(detail)})" if detail else ""),
        "keep one row each; a copy in another split is leakage, and in one split it counts twice",
        tuple(" = ".join(manifest.uris[row] for row in rows[:_SHOWN]) for rows in twice[:_SHOWN]),
    )


# The files


def _look(
    manifest: Manifest, workers: int | None, allow_outside: bool, progress: Progress | None
) -> tuple[list[int], list[Problem]]:
    """(size of each file, -1 where it cannot be used; problems)."""
    look = _looker(manifest.root, allow_outside)
    answers = run_threads(look, manifest.uris, len(manifest), workers=workers, progress=progress)
    problems = []
    for code, (text, remedy) in _FILE_PROBLEMS.items():
        rows = [row for row, answer in enumerate(answers) if answer == code]
        if rows:
            examples = tuple(manifest.uris[row] for row in rows[:_SHOWN])
            problems.append(Problem("error", code, len(rows), f"{len(rows)} {text}", remedy, examples))
    return [answer if isinstance(answer, int) else -1 for answer in answers], problems


_FILE_PROBLEMS = {
    "missing": ("files are missing", "check the root and the uris; such rows will fail"),
    "unreadable": ("files cannot be looked at", "check permissions, links and the length of names"),
    "not_a_file": ("uris name something that is no regular file", "remove these rows; they will fail"),
    "outside_root": (
        "files lie outside the root, by way of links",
        "copy them into the root, or allow files outside the root explicitly",
    ),
    "empty": ("files are empty", "fetch them again; such rows will fail"),
    "archive": (
        "images lie in archives, arrays or volumes that cannot be read as such",
        "fetch these files again, or read the row's failure once embedded; such rows will fail",
    ),
}


def _looker(root: Path, allow_outside: bool) -> Callable[[str], int | str]:
    """A function from uri to the file's size or the code of what is wrong with it."""
    top = os.path.realpath(root)
    prefix = top if top.endswith(os.sep) else top + os.sep
    folders: dict[str, bool] = {}

    def inside(path: str) -> bool:
        return (os.path.realpath(path) + os.sep).startswith(prefix)

    containers = members.Containers()

    def look(uri: str) -> int | str:
        uri, member = members.split(uri)
        folder, _, _ = uri.rpartition("/")
        path = f"{top}/{uri}" if not uri.startswith("/") else uri
        if folder not in folders:  # resolving is slow, and folders are few
            folders[folder] = inside(f"{top}/{folder}" if not uri.startswith("/") else folder)
        try:
            status = os.lstat(path)
            linked = stat.S_ISLNK(status.st_mode)
            if not allow_outside and not (folders[folder] and (not linked or inside(path))):
                return "outside_root"
            size = _size(os.stat(path) if linked else status)  # noqa: PTH116 - a Path each is slow
            return _member_size(containers, path, member) if member and isinstance(size, int) else size
        except (FileNotFoundError, NotADirectoryError):
            return "missing"
        except (OSError, ValueError):
            return "unreadable"

    return look


def _member_size(containers: members.Containers, path: str, member: str) -> int | str:
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return containers.of(handle, path).size(member) or "empty"
    except members.MemberError as error:
        return "missing" if error.code == "missing" else "archive"
    finally:
        os.close(handle)


def _size(status: os.stat_result) -> int | str:
    if not stat.S_ISREG(status.st_mode):
        return "not_a_file"
    return status.st_size or "empty"


def _content_problems(
    manifest: Manifest, sizes: list[int], workers: int | None, progress: Progress | None
) -> Iterable[Problem]:
    known = manifest.sha256s or [""] * len(manifest)
    uris = plain_uris(manifest.table["uri"]).to_pylist()
    # Two rows of one file are found by their uri; here copies under other names count.
    files_of_size = Counter(size for _, size in set(zip(uris, sizes, strict=True)))
    rows = [row for row, size in enumerate(sizes) if size >= 0 and (files_of_size[size] > 1 or known[row])]
    containers = members.Containers()

    def hashed_file(row: int) -> str | None:
        file, member = members.split(manifest.uris[row])
        return members.digest(containers, manifest.root / file, member)

    found = run_threads(hashed_file, rows, len(rows), workers=workers, progress=progress)
    digests = dict(zip(rows, found, strict=True))
    changed = [row for row in rows if known[row] and digests[row] not in (None, known[row])]
    if changed:
        yield Problem(
            "error", "digest", len(changed), f"{len(changed)} files are not those the manifest was made of",
            "restore them, or write the manifest again",
            tuple(manifest.uris[row] for row in changed[:_SHOWN]),
        )  # fmt: skip
    hashed = [row for row in rows if digests[row] is not None]
    copies = [[hashed[i] for i in same] for same in _same([digests[row] for row in hashed])]
    twice = [same for same in copies if len({uris[row] for row in same}) > 1]
    if twice:
        yield _duplicates(manifest, twice, "duplicate_content", "sets of files have equal content")
