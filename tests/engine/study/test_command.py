"""Commands that make cells again, parsed by the command line itself."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import cli
from engine.kernels.transforms import TRANSFORMS
from engine.study import kinds
from engine.study.cells import cells_of
from engine.study.command import command_of
from engine.study.image_sets import bank_of
from engine.study.options import options_of
from engine.study.read import read_study
from engine.study.study import KINDS

#: A value for every option of every kind, as a study file has it.
EVERY = """\
study: every
datasets:
  digits: {label: [label, split], strata: ["age:40,60", sex]}
models: [efficientnet-lite0, {model: supervised-r18, name: "odd 'name' --x"}]
modes: [default, as-published]
seeds: [0, 7]
evaluations:
  fewshot: {n_way: 4, n_shot: 3, n_query: 2, episodes: 50, distance: cosine, group_disjoint: false, cap: 9,
            split: test, bootstrap: 20}
  knn: {k: [5, 1], distance: cosine, weights: uniform, temperature: 0.1, leave_one_out: true,
        group_disjoint: true, train_split: a, test_split: b, metric: mean_per_class_accuracy}
  probe: {uncertain: ones, blank: zeros, train_split: a, val_split: b, test_split: c, val_fraction: 0.3,
          select: auroc, class_weight: balanced, bootstrap: 20, c_min: 1e-4, c_max: 10, values: 5,
          standardise: false, low_shot: [1, 5], low_shot_draws: 3, specificity: 0.9, threshold: specificity}
  folds: {kind: probe, folds: 3, repeats: 2, compare: false}
  findings: {kind: probe, multi_label: true, holdout: true, metric: average_precision}
  finetune: {steps: 9, batch_size: 4, lr: 1e-3, momentum: 0.5, weight_decay: 0, schedule: constant,
             validate_every: 3, patience: 0, accumulate: 2, class_weight: balanced, holdout: true}
  invariance: {transforms: all, images: 12, views: 16, regularisation: ridge=1e-3, arithmetic: float32,
               batch_norm: eval}
  multiview: {pair: [left, right], images: 12, same_label: true, regularisation: none, arithmetic: float64}
  saliency: {ids: [one, "-two"], size: 8, stride: 4, fill: "1,2,3", batch_norm: eval}
  reconstruct: {images: 2, steps: 5, networks: 2, lr: 0.01}
  audit: {threshold: 0.9, max_pairs: 10}
"""
#: Option in a study -> parameter of the command, where the two differ.
NAMES = {
    "ids": "id",
    "regularisation": "shrinkage",
    "arithmetic": "products",
    "networks": "seeds",
    "low_shot_draws": "seeds",
    "transforms": "transform",
}


def parsed(command: str) -> tuple[str, dict[str, Any]]:
    """Return the name of the command and the values of its parameters, without running it."""
    program, *words = shlex.split(command)
    assert program == "embank"
    group: Any = get_command(cli.app)
    names = []
    while hasattr(group, "commands"):
        names.append(words.pop(0))
        group = group.commands[names[-1]]
    return " ".join(names), group.make_context(names[-1], words).params


def written(folder: Path) -> Path:
    path = folder / "every.yaml"
    path.write_text(EVERY, encoding="utf-8")
    return path


def plain(value: Any) -> Any:
    """Return a parsed value in the form of a study file: lists, numbers and words."""
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return getattr(value, "value", value)


@pytest.fixture
def study(tmp_path: Path) -> Any:
    return read_study(written(tmp_path))


def test_every_option_of_every_kind_reaches_the_command(study: Any, tmp_path: Path) -> None:
    given = {(one.kind, name) for one in study.evaluations for name in one.options}
    assert given >= {
        (kind.name, option.name)
        for kind in kinds.KINDS_BY_NAME.values()
        for option in kind.options
        if option.name != "images" or kind.name != "saliency"  # ids stand in its place
        if (kind.name, option.name) != ("reconstruct", "ids")
        if kind.name != "finetune" or option not in kinds.KINDS_BY_NAME["probe"].options
    }
    for cell in cells_of(study):
        name, values = parsed(command_of(study, cell, tmp_path / "a bank"))
        if cell.kind == "compare":
            assert name == "compare" and plain(values["model"]) == cell.options["models"]
            continue
        if cell.kind == "finetune":
            assert Path(values["manifest"]) == tmp_path / "a bank" / "manifest.parquet"
        else:
            assert values.get("bank", values.get("source")) == str(tmp_path / "a bank")
            assert plain(values["model"]) in (cell.model, [cell.model])
        for option, wanted in cell.options.items():
            got = plain(values[NAMES.get(option, option)])
            if option in ("low_shot", "pair"):
                assert isinstance(wanted, list) and got == ",".join(map(str, wanted))
            elif option == "label" and wanted == ["label"]:
                assert not got
            else:
                assert got == wanted, (cell.kind, option)
        assert plain(values.get("mode", cell.mode)) == cell.mode
        assert values.get("seed", cell.seed) == cell.seed


def test_kinds_are_those_of_studies_and_transforms_those_of_the_kernels() -> None:
    assert tuple(kinds.KINDS_BY_NAME) == KINDS
    assert tuple(TRANSFORMS) == kinds.TRANSFORMS


def test_metrics_of_comparisons_are_the_evaluations_own() -> None:
    from engine.evals.comparison.options import METRICS

    assert {kind.name: kind.metrics for kind in kinds.KINDS_BY_NAME.values() if kind.metrics} == METRICS


def test_what_kinds_need_is_what_the_catalogue_of_evaluations_says() -> None:
    from engine.evals.catalogue import EVALUATIONS

    for kind in kinds.KINDS_BY_NAME.values():
        assert (kind.classifies, kind.opens_images) == (
            EVALUATIONS[kind.name].classifies,
            EVALUATIONS[kind.name].opens_images,
        )


def test_all_options_make_those_of_their_evaluation(study: Any) -> None:
    for cell in cells_of(study):
        if cell.kind != "compare" and cell.mode == "default":
            options = options_of(cell.kind, cell.options, cell.mode, cell.seed)
            assert getattr(options, "seed", cell.seed) == cell.seed
    probe = options_of("probe", {"folds": 3, "repeats": 2, "label": ["label"]})
    assert (probe.folds.folds, probe.folds.repeats, len(probe.C)) == (3, 2, 45)


def test_cells_of_learning_as_published_lie_in_a_bank_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "study: s\ndatasets: {chexpert: {folder: c}, shenzhen: {folder: s}, digits: }\n"
        "models: [moco-v2]\nmodes: [default, as-published]\n"
        "evaluations: {fewshot: , probe: , saliency: , invariance: {transforms: h_flip}}\n",
        encoding="utf-8",
    )
    study = read_study(path)
    banks = {
        (cell.dataset, cell.kind): bank_of(tmp_path, study, cell).name
        for cell in cells_of(study)
        if cell.mode == "as-published"
    }
    assert banks == {
        ("chexpert", "fewshot"): "chexpert.as-published-few-shot.bank",  # another pool
        ("chexpert", "probe"): "chexpert.as-published.bank",  # other labels
        ("chexpert", "saliency"): "chexpert.bank",
        ("chexpert", "invariance"): "chexpert.bank",
        ("shenzhen", "fewshot"): "shenzhen.as-published-few-shot.bank",  # other preprocessing
        ("shenzhen", "probe"): "shenzhen.as-published.bank",
        ("shenzhen", "saliency"): "shenzhen.bank",
        ("shenzhen", "invariance"): "shenzhen.bank",
        **{("digits", kind): "digits.bank" for kind in ("fewshot", "probe", "saliency", "invariance")},
    }
