"""Commands that compute records again: the command line takes them, and means what the record was asked."""

import shlex
from collections.abc import Mapping
from typing import Any

import click
import pytest
import typer

import cli
from engine.report.page import commands
from engine.report.page.commands import command_of
from stores.bank.records import RunRecord

SPLITS = {"train": "a", "val": "b", "test": "c", "fraction": 0.3, "holdout": False, "mode": "default"}
#: Kind -> what a record was asked, with other values than the defaults.
ASKED: Mapping[str, dict[str, Any]] = {
    "fewshot": {
        "n_way": 3, "n_shot": 2, "n_query": 4, "episodes": 7, "seed": 5, "distance": "centred",
        "split": "val", "cap": 9, "mode": "as-published", "group_disjoint": False, "backend": "array",
    },
    "knn": {
        "k": [1, 5], "distance": "euclidean", "weights": "uniform", "temperature": 0.5, "train_split": "x",
        "test_split": "y", "leave_one_out": True, "group_disjoint": True, "backend": "auto",
    },
    "probe": {
        "label": "edema", "splits": SPLITS, "stratify": ["sex", "age:40,60"], "select": "log-loss",
        "class_weight": "balanced", "specificity": 0.9, "threshold": "specificity", "bootstrap": 20,
        "seed": 3, "mode": "default", "cross_validation": {"folds": 4, "repeats": 2}, "multi_label": False,
    },
    "finetune": {
        "label": "edema", "splits": SPLITS, "steps": 4, "batch_size": 8, "lr": 0.5, "momentum": 0.1,
        "weight_decay": 0.2, "schedule": "constant", "validate_every": 2, "patience": 0, "accumulate": 2,
        "select": "auroc", "class_weight": "balanced", "bootstrap": 9, "precision": "bf16", "seed": 1,
        "mode": "default",
    },
    "saliency": {
        "ids": ["a b", "-c"], "images": None, "size": 12, "stride": 3, "fill": "1,2,3", "batch_norm": "train",
        "precision": "bf16", "mode": "as-published", "seed": 8,
    },
    "reconstruct": {
        "ids": [], "images": 2, "steps": 5, "seeds": 4, "lr": 0.1, "precision": "bf16", "mode": "default",
        "seed": 2,
    },
    "audit": {"threshold": 0.5, "max_pairs": 3},
    "embed": {"decoder": "turbo", "dtype": "float32", "batch_size": 3, "allow_outside": True},
    "invariance": {
        "transform": "rotation", "images": 20, "views": 7, "arithmetic": "float32", "batch_norm": "train",
        "mode": "as-published", "seed": 6,
    },
    "compare": {
        "metric": "auroc", "evaluation": "probe", "label": "edema", "models": ["a", "b c"], "seed": 4,
    },
}  # fmt: skip
#: Names of parameters of the command line that differ from those of a record.
RENAMED = {
    "stratify": "strata", "ids": "id", "arithmetic": "products", "models": "model",
}  # fmt: skip


def _parsed(command: str) -> dict[str, Any]:
    """Return the parameters that the command line makes of a command."""
    words = shlex.split(command)
    assert words.pop(0) == "embank"
    taken: Any = typer.main.get_command(cli.app)
    context = click.Context(taken)
    while hasattr(taken, "resolve_command"):
        name, taken, words = taken.resolve_command(context, words)
        context = click.Context(taken, info_name=name, parent=context)
    made = taken.make_context(taken.name, list(words))
    return {name: _plain(value) for name, value in made.params.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return getattr(value, "value", value)


def _record(kind: str, **parts: Any) -> RunRecord:
    asked = {"model": "torchvision/resnet50", **ASKED[kind]}
    return RunRecord.now(kind, **{"asked": asked, "used": {}, "metrics": {}, "seconds": {}, **parts})


@pytest.mark.parametrize("kind", ASKED)
def test_the_command_line_reads_what_the_record_was_asked(kind: str) -> None:
    got = _parsed(command_of(_record(kind), "my bank"))
    assert any(str(value) == "my bank" or value == ["my bank"] for value in got.values())
    flat = dict(ASKED[kind])
    for part, value in flat.pop("splits", {}).items():
        names = {"fraction": "val_fraction", "holdout": "holdout"}
        flat |= {} if part == "mode" else {names.get(part, f"{part}_split"): value}
    flat |= flat.pop("cross_validation", {})
    for name, value in flat.items():
        own = got[RENAMED.get(name, name)]
        if name == "transform" or (name == "label" and kind != "compare"):
            (own,) = own
        assert own == value or (value in (None, [], False) and not own), (name, own, value)


@pytest.mark.parametrize("kind", [*commands._OPTIONS, "invariance"])
def test_what_is_left_out_is_the_default_of_the_command_line(kind: str) -> None:
    options = commands._OPTIONS.get(kind, commands._TRANSFORM)
    bare = {kind: f"embank {kind} M --bank B --model m" for kind in ("finetune", "embed")}
    bare["audit"] = "embank bank audit B --model m"
    got = _parsed(bare.get(kind, f"embank {kind} B" + " --model m" * (kind != "compare")))
    for option in options:
        if option.default is not None:
            name = option.flag.removeprefix("--").removesuffix("-rule").replace("-", "_")
            assert got[name] == option.default, (option.flag, got[name], option.default)


def test_findings_grids_controls_and_devices() -> None:
    asked = {**ASKED["probe"], "label": "edema, oedema", "multi_label": True, "mode": "default"}
    asked |= {"policies": {"uncertain": "zeros", "blank": "ignore"}, "cross_validation": None}
    used = {"targets": [{"column": "edema"}, {"column": "oedema"}], "device": "cuda:1"}
    metrics = {
        "sweep": {"C": [0.1, 1.0, 10.0]},
        "low_shot": {"shots": [1, 5], "seeds": 3},
        "controls": [{"name": "chance"}],
    }
    got = _parsed(
        command_of(_record("probe", asked={"model": "m", **asked}, used=used, metrics=metrics), "b")
    )
    assert got["label"] == ["edema", "oedema"] and got["multi_label"] and got["controls"]
    assert (got["uncertain"], got["blank"], got["device"]) == ("zeros", "ignore", "cuda:1")
    assert (got["c_min"], got["c_max"], got["values"]) == (0.1, 10.0, 3)
    assert (got["low_shot"], got["seeds"]) == ("1,5", 3)


def test_pairs_of_stored_views() -> None:
    asked = {
        "model": "m",
        "transform": "multi-view",
        "views": ["PA", "LATERAL"],
        "same_label": True,
        "seed": 0,
    }
    got = _parsed(command_of(_record("invariance", asked=asked), "b"))
    assert got["multi_view"] and got["pair"] == "PA,LATERAL" and got["same_label"] and not got["transform"]


def test_image_ids_are_left_out_on_request() -> None:
    shown, hidden = (command_of(_record("saliency"), "b", ids=ids) for ids in (True, False))
    assert _parsed(shown)["id"] == ["a b", "-c"] and _parsed(hidden)["id"] == ["ID"]


def test_kinds_without_a_command_have_none() -> None:
    record = RunRecord.now("relabel", asked={}, used={}, metrics={}, seconds={})
    assert command_of(record, "b") == ""
