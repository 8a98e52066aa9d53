"""The command that computes a record again, built from what the record says it was asked."""

import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from engine.report.record_values import at, number, numbers, text
from stores.bank.records import RunRecord
from stores.json_types import Json

#: Grid of C that `embank probe` tries by default: smallest, largest, number of values.
_GRID = (1e-5, 1e6, 45)


@dataclass(frozen=True)
class _Option:
    """An option of a command.

    Attributes:
        flag: e.g. `--n-way`.
        path: of its value in a record, dotted.
        default: that is left out of the command; None where a missing value alone is left out.
        off: flag that says no, of an option that is a flag; "" where there is none.
    """

    flag: str
    path: str
    default: Json = None
    off: str = ""

    def words(self, body: Mapping[str, Json]) -> Iterator[str]:
        """Give the words of a command line, none where the value is the default."""
        value = at(body, self.path)
        if value is None or value == self.default:
            return
        if isinstance(value, bool):
            if value or self.off:
                yield self.flag if value else self.off
            return
        for one in value if isinstance(value, list) else [value]:
            # One word each: a value that begins with a dash is no option.
            word = str(one)
            yield from [f"{self.flag}={word}"] if word.startswith("-") else [self.flag, word]


_MODE, _SEED = _Option("--mode", "asked.mode", "default"), _Option("--seed", "asked.seed", 0)
_APART = _Option("--group-disjoint", "asked.group_disjoint", off="--no-group-disjoint")
_DRAWN = (_Option("--images", "asked.images"), _Option("--id", "asked.ids"))
_SPLITS = (
    _Option("--train-split", "asked.splits.train", "train"),
    _Option("--val-split", "asked.splits.val", "val"),
    _Option("--test-split", "asked.splits.test", "test"),
    _Option("--val-fraction", "asked.splits.fraction", 0.2),
    _Option("--holdout", "asked.splits.holdout", False),
)
_FINDINGS = (
    _Option("--uncertain", "asked.policies.uncertain"),
    _Option("--blank", "asked.policies.blank"),
)
_NORM = _Option("--batch-norm", "asked.batch_norm", "eval")
_OPTIONS: Mapping[str, tuple[_Option, ...]] = {
    "fewshot": (
        _Option("--n-way", "asked.n_way"),
        _Option("--n-shot", "asked.n_shot", 20),
        _Option("--n-query", "asked.n_query", 15),
        _Option("--episodes", "asked.episodes", 600),
        _Option("--distance", "asked.distance", "sqeuclidean"),
        _Option("--split", "asked.split"),
        _Option("--cap", "asked.cap"),
        _Option("--backend", "asked.backend", "auto"),
        _MODE,
        _APART,
        _SEED,
    ),
    "knn": (
        _Option("--k", "asked.k"),
        _Option("--distance", "asked.distance", "cosine"),
        _Option("--weights", "asked.weights"),
        _Option("--temperature", "asked.temperature", 0.07),
        _Option("--train-split", "asked.train_split", "train"),
        _Option("--test-split", "asked.test_split", "test"),
        _Option("--leave-one-out", "asked.leave_one_out", False),
        _Option("--backend", "asked.backend", "auto"),
        _APART,
    ),
    "probe": (
        _Option("--multi-label", "asked.multi_label", False),
        *_SPLITS,
        _Option("--strata", "asked.stratify"),
        *_FINDINGS,
        _Option("--select", "select"),
        _Option("--class-weight", "asked.class_weight", "none"),
        _Option("--specificity", "asked.specificity", 0.95),
        _Option("--threshold-rule", "asked.threshold", "youden"),
        _Option("--bootstrap", "asked.bootstrap", 1000),
        _Option("--folds", "asked.cross_validation.folds"),
        _Option("--repeats", "asked.cross_validation.repeats", 1),
        _MODE,
        _SEED,
    ),
    "finetune": (
        _Option("--multi-label", "multi_label", False),
        *_SPLITS,
        *_FINDINGS,
        _Option("--steps", "asked.steps", 5000),
        _Option("--batch-size", "asked.batch_size"),
        _Option("--lr", "asked.lr", 1e-2),
        _Option("--momentum", "asked.momentum", 0.9),
        _Option("--weight-decay", "asked.weight_decay", 1e-8),
        _Option("--schedule", "asked.schedule", "cosine"),
        _Option("--validate-every", "asked.validate_every", 200),
        _Option("--patience", "asked.patience", 3),
        _Option("--accumulate", "asked.accumulate", 1),
        _Option("--select", "asked.select"),
        _Option("--class-weight", "asked.class_weight", "none"),
        _Option("--bootstrap", "asked.bootstrap", 1000),
        _Option("--precision", "asked.precision"),
        _MODE,
        _SEED,
    ),
    "saliency": (
        *_DRAWN,
        _Option("--size", "asked.size", 10),
        _Option("--stride", "asked.stride"),
        _Option("--fill", "asked.fill", "0"),
        _NORM,
        _Option("--precision", "asked.precision", "fp32"),
        _MODE,
        _SEED,
    ),
    "reconstruct": (
        *_DRAWN,
        _Option("--steps", "asked.steps", 3000),
        _Option("--seeds", "asked.seeds"),
        _Option("--lr", "asked.lr", 1e-3),
        _Option("--precision", "asked.precision", "auto"),
        _MODE,
        _SEED,
    ),
    "audit": (
        _Option("--threshold", "asked.threshold", 0.99),
        _Option("--max-pairs", "asked.max_pairs", 10000),
    ),
    "embed": (
        _Option("--decoder", "asked.decoder", "auto"),
        _Option("--dct", "asked.dct", False),
        _Option("--dtype", "asked.dtype", "float16"),
        _Option("--batch-size", "asked.batch_size"),
        _Option("--allow-outside", "asked.allow_outside", False),
        _Option("--max-pixels", "asked.limits.max_pixels", 64_000_000),
    ),
    "compare": (
        _Option("--resamples", "asked.resamples", 2000),
        _Option("--alpha", "asked.alpha", 0.05),
        _SEED,
    ),
}
_TRANSFORM = (
    _Option("--transform", "asked.transform"),
    _Option("--images", "asked.images"),
    _Option("--views", "asked.views"),
    _Option("--products", "asked.arithmetic", "float64"),
    _NORM,
    _MODE,
    _SEED,
)
_MULTI_VIEW = (
    _Option("--images", "asked.images"),
    _Option("--same-label", "asked.same_label", False),
    _Option("--products", "asked.arithmetic", "float64"),
    _SEED,
)


def command_of(record: RunRecord, bank: str, *, ids: bool = True) -> str:
    """Return the command line that computes a record again; "" for kinds without one.

    Options that have their default are left out.

    Args:
        record: of an evaluation, a comparison or an embedding run.
        bank: as the command is to name it.
        ids: whether ids of images are named; they may name patients, and are `ID` otherwise.
    """
    if not ids and record.asked.get("ids"):
        record = replace(record, asked={**record.asked, "ids": ["ID"]})
    kind = record.kind
    if kind == "invariance":
        return shlex.join([*_invariance(record, bank), *_device(record)])
    if kind not in _OPTIONS:
        return ""
    findings, select = bool(_findings(record)), record.asked.get("select")
    body: dict[str, Json] = {**record.to_dict(), "multi_label": findings}
    body["select"] = None if select == ("auroc" if findings else "accuracy") else select
    words = ["embank", *(["bank"] if kind == "audit" else []), kind]
    words += ["MANIFEST", "--bank", bank] if kind in ("finetune", "embed") else [bank]
    words += _compared(record) if kind == "compare" else _subject(record)
    words += [word for option in _OPTIONS[kind] for word in option.words(body)]
    words += _grid(record) if kind == "probe" else []
    words += ["--controls"] if at(record.metrics, "controls") else []
    return shlex.join(words + _device(record))


def _subject(record: RunRecord) -> list[str]:
    """Return the options for model and label columns."""
    words = ["--model", text(record.asked.get("model")) or text(record.used.get("title"))]
    if record.kind not in ("probe", "finetune"):
        return words
    columns = _findings(record) or [text(record.asked.get("label"))]
    columns = [] if columns == ["label"] else columns
    return words + [word for column in columns if column for word in ("--label", column)]


def _findings(record: RunRecord) -> list[str]:
    """Return the columns that were learned together; empty where one was."""
    findings = record.asked.get("findings")
    if isinstance(findings, list) and findings:
        return [text(column) for column in findings]
    if not record.asked.get("multi_label"):
        return []
    targets = record.used.get("targets")
    columns = [text(at(target, "column")) for target in targets] if isinstance(targets, list) else []
    return [column for column in columns if column] or text(record.asked.get("label")).split(", ")


def _grid(record: RunRecord) -> list[str]:
    """Return the options for the values of C, and for numbers of images per class."""
    tried, words = numbers(at(record.metrics, "sweep.C")), list[str]()
    if len(tried) and record.asked.get("mode") != "as-published":
        own = (float(tried.min()), float(tried.max()), len(tried))
        for flag, value, default in zip(("--c-min", "--c-max", "--values"), own, _GRID, strict=True):
            words += [flag, f"{value:g}"] if abs(value / default - 1) > 1e-9 else []
    shots = numbers(at(record.metrics, "low_shot.shots"))
    if not len(shots):
        return words
    seeds = number(at(record.metrics, "low_shot.seeds"))
    words += ["--low-shot", ",".join(f"{shot:g}" for shot in shots)]
    return words + ([] if seeds in (5.0,) or seeds != seeds else ["--seeds", f"{seeds:g}"])


def _invariance(record: RunRecord, bank: str) -> list[str]:
    words = ["embank", "invariance", bank, *_subject(record)]
    body = record.to_dict()
    options: tuple[_Option, ...] = _TRANSFORM
    if record.asked.get("transform") == "multi-view":
        views = record.asked.get("views")
        pair = [text(view) for view in views] if isinstance(views, list) else []
        words += ["--multi-view", *(["--pair", ",".join(pair)] if len(pair) == 2 else [])]
        options = _MULTI_VIEW
    words += [word for option in options for word in option.words(body)]
    rule = at(record.used, "covariance.regularisation")
    if isinstance(rule, str) and rule != "ledoit-wolf" and record.asked.get("mode") != "as-published":
        words += ["--shrinkage", rule]
    return words


def _compared(record: RunRecord) -> list[str]:
    """Return the options for what a comparison is of."""
    kind = text(record.metrics.get("evaluation")) or text(record.asked.get("evaluation"))
    words = ["--evaluation", kind] if kind in ("probe", "knn", "fewshot") else []
    metric = text(record.metrics.get("metric")) or text(record.asked.get("metric"))
    words += ["--metric", _METRICS[metric]] if metric in _METRICS else []
    label = record.asked.get("label")
    words += ["--label", label] if isinstance(label, str) and label else []
    models = record.asked.get("models")
    names = [text(name) for name in models] if isinstance(models, list) else []
    return words + [word for name in names if name for word in ("--model", name)]


#: Name of a metric in a comparison -> word of `--metric`.
_METRICS = {
    "accuracy": "accuracy",
    "mean_per_class_accuracy": "mean-per-class",
    "mean-per-class": "mean-per-class",
    "auroc": "auroc",
    "average_precision": "average-precision",
    "average-precision": "average-precision",
    "log_loss": "log-loss",
    "log-loss": "log-loss",
}


def _device(record: RunRecord) -> list[str]:
    """Return the option for the device where it was computed; kinds without one have none."""
    device = text(record.used.get("device")) or text(record.asked.get("device"))
    if record.kind in ("audit", "compare") or not device:
        return []
    return ["--device", device]
