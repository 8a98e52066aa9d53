"""Studies that ship: paper.yaml has every number of the paper's tables, quick.yaml lacks nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.paper import names, values
from benchmarks.speed.plan import large_study
from engine.study.cells import COMPARE, cells_of
from engine.study.place import study_file
from engine.study.plan import plan
from engine.study.read import read_study
from engine.study.study import Cell, Study

#: Metric of a published table -> kind, and its options.
METRICS = {
    "few_shot_2way_20shot_accuracy_pct": ("fewshot", {"n_way": 2, "n_shot": 20}),
    "few_shot_5way_20shot_accuracy_pct": ("fewshot", {"n_way": 5, "n_shot": 20}),
    "linear_accuracy_pct": ("probe", {}),
    "linear_mean_per_class_accuracy_pct": ("probe", {"select": "mean-per-class"}),
    "finetune_accuracy_pct": ("finetune", {"steps": 5000}),
    "finetune_mean_per_class_accuracy_pct": ("finetune", {"select": "mean-per-class"}),
    "rotation_invariance_cosine": ("invariance", {"transforms": ["rotation"]}),
    "hue_invariance_cosine": ("invariance", {"transforms": ["hue"]}),
    "hflip_invariance_cosine": ("invariance", {"transforms": ["h_flip"]}),
    "multiview_invariance_cosine": ("multiview", {"images": 100}),
    "lpips_alex": ("reconstruct", {}),
    "lpips_squeeze": ("reconstruct", {}),
    "lpips_vgg": ("reconstruct", {}),
    "attentive_diffusion": ("saliency", {}),
}


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> Study:
    path, _ = study_file("paper.yaml")
    return read_study(path, tmp_path_factory.mktemp("paper"))


def matches(cell: Cell, value: values.Value) -> bool:
    """Return whether a cell gives a published number, or one of the checkpoints that it is the largest of."""
    kind, options = METRICS[value.metric]
    models = names.VARIANTS.get(value.model, (value.model,))
    return (
        (cell.kind, cell.dataset) == (kind, value.dataset)
        and cell.model in models
        and all(cell.options.get(name) == wanted for name, wanted in options.items())
    )


def test_the_paper_study_has_every_number_of_the_papers_tables_in_both_modes(paper: Study) -> None:
    published = list(values.published_tables())
    assert len(published) == 536  # cells of tables 3, 4 and A1 to A7, by the reference's own count
    cells = cells_of(paper)
    by_place: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        by_place.setdefault((cell.kind, cell.dataset), []).append(cell)
    for value in published:
        own = [
            cell
            for cell in by_place.get((METRICS[value.metric][0], value.dataset), [])
            if matches(cell, value)
        ]
        modes = {"default"} if METRICS[value.metric][0] == "multiview" else {"default", "as-published"}
        assert {cell.mode for cell in own} == modes, value
        assert {cell.model for cell in own} == set(names.VARIANTS.get(value.model, (value.model,)))


def test_models_domains_and_groups_are_those_of_the_paper(paper: Study) -> None:
    assert tuple(model.name for model in paper.models) == names.MODELS
    groups = {model.name: model.group for model in paper.models}
    assert {name for name, group in groups.items() if group == "self-supervised"} == set(names.SSL)
    assert {name for name, group in groups.items() if group == "supervised"} == set(names.SUPERVISED)
    assert {data.name for data in paper.datasets if data.domain == "in"} == set(names.IN_DOMAIN)
    assert {data.name for data in paper.datasets if data.domain == "out"} == set(names.OUT_OF_DOMAIN)


def test_what_is_not_here_is_listed_with_what_to_fetch(
    paper: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EMBANK_CACHE", str(tmp_path / "cache"))
    planned = plan(paper, tmp_path / "study")
    assert {one.state for one in planned.cells} == {"missing"}
    assert all(one.lacks and one.reason and one.remedy for one in planned.cells)
    remedies = [why.remedy for why in planned.to_fetch]
    for data in paper.datasets:
        assert f"download the data set as `embank datasets show {data.builtin}` says" in remedies
    for model in paper.models:
        assert f"run `embank models fetch {model.slug}`" in remedies
    assert planned.seconds() == 0 and planned.seconds(everything=True) > 0
    assert not (tmp_path / "study").exists()
    # CheXpert: 223,414 rows (tests/engine/datasets), float16, models of 2048, 512 and 1024 features.
    own = next(one for one in planned.passes if one.dataset == "chexpert")
    assert own.bytes == 223_414 * 2 * (6 * 2048 + 2 * 512 + 5 * 1024)
    # Other labels alone take no second pass; the few-shot pool of another resizing does.
    others = {one.dataset: one for one in planned.passes}
    assert others["chexpert.as-published"].takes_over and others["chexpert.as-published"].bytes == 0
    assert others["chexpert.as-published-few-shot"].images == 10_001
    assert not others["shenzhen.as-published-few-shot"].takes_over


def test_nothing_of_the_quick_study_is_lacking_or_impossible(tmp_path: Path) -> None:
    path, _ = study_file("quick.yaml")
    planned = plan(read_study(path, tmp_path), tmp_path / "quick")
    assert {one.state for one in planned.cells} == {"missing"}
    assert not planned.lacking and not planned.to_fetch
    # The untrained network sees the very same pixels: one decode pass a data set.
    assert [(one.dataset, len(one.models)) for one in planned.passes] == [("digits", 2), ("tiles", 2)]
    assert {cell.kind for cell in cells_of(planned.study)} >= {"fewshot", "knn", "probe", "saliency", COMPARE}


@pytest.mark.slow
def test_a_large_study_is_planned_without_torch(tmp_path: Path) -> None:
    """Of 13 models, 11 data sets and 8 evaluations; `benchmarks.speed.plan` says how long it takes."""
    file, folder = str(large_study(tmp_path)), str(tmp_path / "large")
    code = (
        "import sys; from pathlib import Path; from engine.study.read import read_study; "
        "from engine.study.plan import plan; "
        f"planned = plan(read_study(Path({file!r})), Path({folder!r})); "
        "assert len([c for c in planned.cells if c.cell.kind != 'compare']) == 13 * 11 * 8; "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
