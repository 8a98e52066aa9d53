"""What a study file says, as frozen data: data sets, models, evaluations, and the cells they make."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stores.json_types import Json

#: Kinds of evaluation that a study can have.
KINDS = (
    "fewshot",
    "knn",
    "probe",
    "finetune",
    "invariance",
    "multiview",
    "saliency",
    "reconstruct",
    "audit",
)


@dataclass(frozen=True)
class DataSet:
    """One data set of a study.

    Attributes:
        name: on the page; names its bank below the study's folder.
        builtin: name of an adapter of `engine.datasets`; None where `manifest` or `bank` is given.
        folder: of the adapter's files; None for sets that are written by embank itself.
        build: options of the adapter (`embank manifest build -O`).
        manifest: a manifest's file; None where `builtin` or `bank` is given.
        root: folder that the manifest's URIs are relative to; None for what the manifest says.
        bank: an existing bank, evaluated where it is; None for a bank of the study.
        label: columns to learn.
        strata: columns in whose strata probes are tested as well.
        domain: what per-domain means call it, e.g. `in` or `out`; "" for none.
        options: kind of evaluation -> options that replace those of the evaluation, e.g.
            `{"fewshot": {"n_way": 5}}`.
        line: where it stands in the file.
    """

    name: str
    builtin: str | None = None
    folder: Path | None = None
    manifest: Path | None = None
    root: Path | None = None
    bank: Path | None = None
    label: tuple[str, ...] = ("label",)
    strata: tuple[str, ...] = ()
    domain: str = ""
    options: Mapping[str, Mapping[str, Json]] = field(default_factory=dict)
    line: int = 0
    build: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Model:
    """One model of a study.

    Attributes:
        name: of its features, and on the page.
        slug: as `embank models list` has it.
        weights: file; None for the published weights in the cache.
        recipe: preprocessing; None for that of the weights.
        group: what per-group means call it, e.g. `self-supervised`; "" for none.
        line: where it stands in the file.
    """

    name: str
    slug: str
    weights: Path | None = None
    recipe: str | None = None
    group: str = ""
    line: int = 0


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a study: a kind with its options, for some data sets and models.

    Attributes:
        name: unique in the study.
        kind: one of `KINDS`.
        options: as the Python options of the kind are called, e.g. `n_way`.
        datasets, models: names; all by default.
        modes: `default`, `as-published` or both.
        seeds: a cell for each.
        controls: whether controls are made, where the kind has them.
        compare: whether the models are compared in pairs, where the kind can be.
        metric: that comparisons are of; None for the kind's own.
        line: where it stands in the file.
    """

    name: str
    kind: str
    options: Mapping[str, Json] = field(default_factory=dict)
    datasets: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    modes: tuple[str, ...] = ("default",)
    seeds: tuple[int, ...] = (0,)
    controls: bool = True
    compare: bool = True
    metric: str | None = None
    line: int = 0


@dataclass(frozen=True)
class Study:
    """A study file, checked.

    Attributes:
        name: names the study's folder.
        title: of its page.
        root: folder of the file; no path of the file leads out of it.
        datasets, models, evaluations: in the order of the file.
        embed: as `engine.study.schema.EMBED`: options of `engine.embed.options.EmbedOptions` by name, and
            `side` (of the input in pixels), `precision`, `seed`, `max_failed`, `certify`.
    """

    name: str
    title: str
    root: Path
    datasets: tuple[DataSet, ...]
    models: tuple[Model, ...]
    evaluations: tuple[Evaluation, ...]
    embed: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True)
class Cell:
    """One number to make: an evaluation of a model on a data set, or a comparison of all models on one.

    Attributes:
        dataset, evaluation: names.
        model: name; "" for a comparison, and for kinds without a model.
        kind: one of `KINDS`, or `compare`.
        mode, seed: as the evaluation's.
        options: all options, those of the data set applied; keys as in `Evaluation.options`, `controls` where
            controls are to be made, and for probes and finetuning `label` (a list) and `strata`. Of a
            comparison: `evaluation` (the kind), `metric` (None for the usual one), `models` and, for probes,
            `label`.
    """

    dataset: str
    model: str
    evaluation: str
    kind: str
    mode: str
    seed: int
    options: Mapping[str, Json] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 of all fields, by which records say what cell they are of (`used.cell`)."""
        body = {**self.__dict__, "options": dict(self.options)}
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()

    @property
    def part(self) -> str:
        """What tells cells of one evaluation, model, mode and seed apart: a transform or a label column."""
        values = self.options.get("transforms", self.options.get("label"))
        names = ", ".join(map(str, values)) if isinstance(values, list) else ""
        return "" if names == "label" else names

    @property
    def label(self) -> str:
        """Name for people, e.g. `digits / resnet50 / fewshot, as-published, seed 1`."""
        what = f"comparison of {self.evaluation}" if self.kind == "compare" else self.evaluation
        words = [what, self.part, self.mode * (self.mode != "default"), f"seed {self.seed}" * (self.seed > 0)]
        return " / ".join(filter(None, (self.dataset, self.model, ", ".join(filter(None, words)))))
