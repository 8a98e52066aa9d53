"""Problems of a manifest's image files: files that are not images, or are damaged.

The caller says what is wrong with a file (`engine.decode.soundness`); nothing here opens an image.
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
#: Code of a fault -> (what these files are, remedy).
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
    """Inspect the images of given rows in threads; yield one problem for each kind of fault.

    Args:
        manifest: of the images.
        rows: rows whose files exist.
        fault_of: returns the fault of a row's image, or None; called in threads.
        workers: number of threads.
        progress: called with (images done, images).
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
