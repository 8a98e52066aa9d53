"""What a finetuning learns, and from which rows: the same targets and parts as a probe's."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.evals.finetune.options import FinetuneOptions
from engine.evals.probe.multilabel import Unfit, finding_task, unfit_reason
from engine.evals.probe.options import Policies
from engine.evals.probe.parts import Columns, Parts, parts
from engine.evals.probe.targets import Target, classes_of, finding_of, together
from engine.evals.probe.task import Task
from stores.manifest.manifest import Manifest
from stores.manifest.text import clean

Cells = tuple[NDArray[np.integer], list[str]]


@dataclass(frozen=True, eq=False)
class Problem:
    """A finetuning's targets and parts.

    Attributes:
        targets: what is learned: one, unless options name findings.
        parts: rows of each part.
        tasks: of one target, or of each finding that can be learned and tested.
        unfit: findings that cannot, and why.
        groups: int64 [N], patients; negative where unknown.
        images: digest of the images (`Manifest.image_digest`).
        rows: N.
        several: True for findings that are learned together.
    """

    targets: tuple[Target, ...]
    parts: Parts
    tasks: tuple[Task, ...]
    unfit: tuple[Unfit, ...]
    groups: NDArray[np.integer]
    images: str
    rows: int
    several: bool

    @property
    def label(self) -> str:
        """The columns learned, with commas between them."""
        return ", ".join(target.column for target in self.targets)

    @classmethod
    def of(cls, manifest: Manifest, label: str, options: FinetuneOptions) -> "Problem":
        """Read targets and parts from a manifest's columns.

        Every listed image counts as usable: whether one can be decoded shows when it is.

        Args:
            label: column of the classes, or of the one finding.

        Raises:
            Refused, ManifestError: as `engine.evals.probe.targets.targets_of` and `parts`; or no finding that
                can be learned.
        """
        columns = _columns(manifest)
        ok = np.ones(len(manifest), np.bool_)
        if options.findings:
            policies = options.policies or Policies()
            targets = tuple(finding_of(n, *_cells(manifest, n), policies) for n in options.findings)
            chosen = parts(columns, together(targets), ok, options.splits)
            tasks = [finding_task(target, chosen) for target in targets]
            unfit = tuple(Unfit(t.name, reason) for t in tasks if (reason := unfit_reason(t)))
            names = {finding.name for finding in unfit}
            able = tuple(task for task in tasks if task.name not in names)
            if not able:
                raise _no_finding(unfit)
            return cls(targets, chosen, able, unfit, columns.group, manifest.image_digest, len(ok), True)
        cells = _cells(manifest, label)
        target = (
            finding_of(label, *cells, options.policies) if options.policies else classes_of(label, *cells)
        )
        chosen = parts(columns, target.codes, ok, options.splits, target.classes)
        task = Task(target.column, target.classes, target.codes, chosen)
        return cls((target,), chosen, (task,), (), columns.group, manifest.image_digest, len(ok), False)

    @cached_property
    def known(self) -> NDArray[np.intp]:
        """The classes that the head has an output for: those of the train part, ascending; of one target."""
        (task,) = self.tasks
        return np.unique(task.codes[self.parts.train]).astype(np.intp)

    @cached_property
    def codes(self) -> NDArray[np.int64]:
        """Targets of the head: int64 [N] positions in `known`, or [N, T] of 0 and 1; -1 where masked."""
        if self.several:
            return np.stack([task.codes for task in self.tasks], axis=1)
        (task,) = self.tasks
        place = np.full(len(task.classes) + 1, -1, np.int64)  # the last is a masked row's
        place[self.known] = np.arange(len(self.known))
        return place[task.codes]

    @property
    def classes(self) -> int:
        """Number of classes of a label: of `known`, or 2 for findings."""
        return 2 if self.several else len(self.known)

    @property
    def unseen(self) -> list[int]:
        """Classes that no row trained on has."""
        return [] if self.several else sorted({*range(len(self.tasks[0].classes))} - {*self.known.tolist()})

    def digest(self, rows: NDArray[np.intp]) -> str:
        """Return the SHA-256 of rows, in order, and their targets."""
        parts = (rows.astype("<i8"), np.ascontiguousarray(self.codes[rows]).astype("<i8"))
        return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()

    def of_task(self, number: int, probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the probabilities of a task's classes, float64 [n, K]; 0 for classes without an output.

        Args:
            number: of the task.
            probabilities: [n, outputs] of the head.
        """
        if self.several:
            return np.stack([1 - probabilities[:, number], probabilities[:, number]], axis=1)
        spread = np.zeros((len(probabilities), len(self.tasks[0].classes)))
        spread[:, self.known] = probabilities
        return spread


def _no_finding(unfit: Sequence[Unfit]) -> Refused:
    reasons = "; ".join(f"{finding.name}: {finding.reason}" for finding in unfit)
    return Refused(
        f"Not one finding can be learned: {reasons}",
        "A finding needs positive and negative images in train, and images in validation and test",
        "check the columns, the policies for uncertain and blank cells, and the splits",
    )


def _cells(manifest: Manifest, name: str) -> Cells:
    """Return a column as codes, -1 where a cell is empty, and their texts. Raises ManifestError: no such."""
    known = name if name in manifest.table.column_names else clean(name)
    manifest.column(known)  # raises an error that lists the columns
    return manifest.codes(known)


@dataclass(frozen=True)
class _Ids:
    """The ids of a manifest's images, read when the first is needed."""

    read: Callable[[], list[str]]

    def __getitem__(self, index: int, /) -> str:
        return self.read()[index]


def _columns(manifest: Manifest) -> Columns:
    split, group = (manifest.codes(name) for name in ("split", "group"))
    return Columns(_Ids(lambda: manifest.image_ids), *split, *group, there="The manifest has")
