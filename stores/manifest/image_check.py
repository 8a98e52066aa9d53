"""Image files of a manifest that are no image, or a damaged one: how it is counted and said.

What a file is, the caller knows (`engine.decode.soundness`): nothing here opens an image.
"""

from collections.abc import Callable, Iterable, Sequence

from stores.manifest.image_folder import Progress, run_threads
from stores.manifest.manifest import Manifest
from stores.manifest.problems import Problem, Severity
from stores.manifest.uri_policy import shown

#: A row's (code, detail, whether a setting or the machine is at fault); None if its image is sound.
Fault = tuple[str, str, bool]
_SHOWN = 5
_ROWS = "such rows will fail"
#: Code -> what these files are, and what to do.
_TEXTS = {
    "unknown_format": ("files are no image of an accepted format", f"convert or remove them; {_ROWS}"),
    "truncated": ("image files are cut short", f"fetch them again; {_ROWS}"),
    "corrupt": ("image files are damaged", f"fetch them again; {_ROWS}"),
    "multi_frame": ("files hold more than one picture", f"write the picture that is meant alone; {_ROWS}"),
    "undecodable": ("images are of a kind that is not supported", f"convert them; {_ROWS}"),
    "too_large": ("images are beyond the limits", "remove them, or embed with a larger --max-pixels"),
    "needs_package": ("images need a package that is not installed", "install what the examples name"),
}


def image_problems(
    manifest: Manifest,
    rows: Sequence[int],
    fault_of: Callable[[int], Fault | None],
    workers: int | None,
    progress: Progress | None,
) -> Iterable[Problem]:
    """Look at the images of some rows in threads; one problem for each kind of fault.

    Args:
        rows: those whose files are there.
        fault_of: says of a row what is wrong with its image; called in threads.
    """
    faults = run_threads(fault_of, rows, len(rows), workers=workers, progress=progress)
    kinds: dict[tuple[str, bool], list[str]] = {}
    for row, fault in zip(rows, faults, strict=True):
        if fault is not None:
            code, detail, pending = fault
            kinds.setdefault((code, pending), []).append(f"{shown(manifest.uris[row])}: {detail}")
    for (code, pending), examples in kinds.items():
        text, remedy = _TEXTS.get(code, (f"images cannot be used ({code})", f"look at them; {_ROWS}"))
        severity: Severity = "warning" if pending else "error"
        count = len(examples)
        yield Problem(severity, code, count, f"{count} {text}", remedy, tuple(examples[:_SHOWN]))
