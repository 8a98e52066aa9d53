"""What each evaluation did: images, parts, classes, settings."""

from collections.abc import Sequence

from engine.report.json_parts import members
from engine.report.page.blocks import Column, DataTable, Section, Value
from engine.report.page.inputs import PageInput, PageOptions
from engine.report.page.numbers import finite
from engine.report.page.results import Result, results_of
from engine.report.page.settings import says_something
from stores.bank.records import RunRecord
from stores.json_types import Json

#: Kind -> what it does.
_WORDS = {
    "probe": "Linear probe: logistic regression on frozen features; its regularisation is chosen on the "
    "validation part.",
    "fewshot": "Few-shot: episodes of a few labelled images of each class; the nearest prototype decides.",
    "knn": "k-NN: the nearest training images of each test image decide.",
    "finetune": "Finetuning: all weights are trained on; those of the best validation score are tested.",
    "invariance": "Invariance: similarity of an image's features to those of its views, whitened.",
    "multiview": "Multi-view: similarity of the features of several views of one patient, whitened.",
    "saliency": "Saliency: how the feature changes when a square of the image is hidden.",
    "reconstruct": "Reconstruction: an image is optimised until its features match; how alike it is to the "
    "original.",
}
#: Settings that have columns of their own, or say nothing of the protocol.
_LEFT_OUT = frozenset(
    (
        "model",
        "mode",
        "device",
        "threads",
        "backend",
        "seed",
        "label",
        "splits",
        "workers",
        "scheduler",
        "ids",
    )
)


def sections(page: PageInput, options: PageOptions) -> tuple[Section, ...]:
    """Return the section, if there are results."""
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for one in results_of(page):
        groups.setdefault((one.dataset, one.protocol, one.mode), []).append(one)
    if not groups:
        return ()
    columns = (
        Column("evaluation"),
        Column("data set"),
        Column(
            "mode", hint="default is correct; as published repeats how the numbers of the study were made"
        ),
        Column("models", numeric=True),
        Column("train", numeric=True, group="images", hint="Learned from"),
        Column("validation", numeric=True, group="images", hint="Settings are chosen on them"),
        Column(
            "test",
            numeric=True,
            group="images",
            hint="Scored; of few-shot, those that episodes are drawn from",
        ),
        Column("seed", numeric=True),
        Column("settings"),
    )
    rows = tuple(_row(own) for own in groups.values())
    caption = (
        "What each evaluation did. Where the models of a row differ in a number, it is that of the first."
    )
    kinds = dict.fromkeys(one.kind for own in groups.values() for one in own)
    notes = tuple(_WORDS[kind] for kind in kinds if kind in _WORDS)
    table = DataTable("table-protocols", caption, columns, rows, notes)
    return (Section("protocols", "What was done", (table,)),)


def _row(own: Sequence[Result]) -> tuple[Value, ...]:
    first = own[0]
    record = first.record
    train, val, test = _parts(record)
    return (
        Value(first.protocol),
        Value(first.dataset),
        Value("as published" if first.mode != "default" else first.mode),
        _count(len({one.model for one in own})),
        _count(train),
        _count(val),
        _count(test),
        _count(finite(record.asked.get("seed"))),
        Value(_settings(record)),
    )


def _parts(record: RunRecord) -> tuple[float | None, float | None, float | None]:
    metrics = record.metrics
    images: Json = metrics.get("images")
    if isinstance(images, dict):
        sizes = [finite(images.get(part)) for part in ("train", "val", "test")]
        return sizes[0], sizes[1], sizes[2]
    if record.kind == "knn":
        return finite(metrics.get("train_images")), None, finite(metrics.get("test_images"))
    if record.kind == "reconstruct" or record.kind == "saliency":
        return None, None, _rows(record)
    return None, None, finite(metrics.get("n") if metrics.get("n") is not None else images)


def _rows(record: RunRecord) -> float | None:
    return finite(members(members(record.used.get("splits")).get("images")).get("rows"))


def _count(value: float | None) -> Value:
    return Value("–") if value is None else Value(f"{value:,.0f}", float(value))


def _settings(record: RunRecord) -> str:
    shown = [(name, value) for name, value in record.asked.items() if name not in _LEFT_OUT]
    return ", ".join(
        f"{name.replace('_', ' ')} {_word(value)}" for name, value in shown if says_something(value)
    )


def _word(value: Json) -> str:
    if isinstance(value, list):
        return " ".join(map(_word, value))
    if isinstance(value, dict):
        return (
            "("
            + ", ".join(f"{name} {_word(inner)}" for name, inner in value.items() if says_something(inner))
            + ")"
        )
    return "yes" if value is True else str(value)
