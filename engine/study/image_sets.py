"""The images of a study's cells: which manifest and preprocessing a mode has, and where its bank lies.

A bank has one manifest and one way of resizing. The paper's protocol changes labels and splits of what is
learned, and for few-shot the pool of images and, on small sets, how they are resized; there a data set has a
second or third bank. Everything else is computed from the data set's own bank.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine import datasets
from engine.errors import Refused
from engine.recipes import Recipe
from engine.study.kinds import KINDS_BY_NAME
from engine.study.study import Cell, DataSet, Study

#: Folders below a study's own that a run writes manifests, images and banks to.
MADE = ("datasets", "images", "banks")
#: Sets that the study's few-shot code resized to 257 x 257 without regard to shape, bilinearly: 224 x 1.15.
_STRETCHED = ("bach", "cifar10", "ichallenge-amd", "ichallenge-pm", "montgomery", "shenzhen")
_STRETCHED_SIDE = 257 / 224
#: Options of adapters that the paper's protocol decides itself.
_DECIDED = ("evaluation", "seed", "splits", "uncertain", "valid")


@dataclass(frozen=True)
class ImageSet:
    """The images of one bank of a study.

    Attributes:
        data: the data set.
        mode: in which its manifest is built.
        pool: whether they are the study's few-shot pool.
    """

    data: DataSet
    mode: str = "default"
    pool: bool = False

    @property
    def name(self) -> str:
        """Name of its files: `chexpert`, `chexpert.as-published` or `chexpert.as-published-few-shot`."""
        if self.pool:
            return f"{self.data.name}.as-published-few-shot"
        return self.data.name if self.mode == "default" else f"{self.data.name}.{self.mode}"

    @property
    def build(self) -> dict[str, str]:
        """Options of the adapter (`engine.datasets.build`)."""
        options = dict(self.data.build)
        if self.mode == "default":
            return options
        options = {name: value for name, value in options.items() if name not in _DECIDED}
        if self.pool and self.data.builtin and _has_pool(self.data.builtin):
            options["evaluation"] = "few-shot"
        return options

    @property
    def relabels(self) -> bool:
        """Whether only labels and splits differ from the data set's own bank, whose features then serve."""
        return self.mode != "default" and not self.pool

    def recipe(self, own: Recipe, side: int | None = None) -> Recipe:
        """Return the preprocessing of a model's images.

        Args:
            own: that of the model.
            side: of the study's inputs in pixels; None for the recipe's own.
        """
        recipe = own if side is None else own.at(side)
        if self.pool and self.data.builtin in _STRETCHED:
            size = int(recipe.side * _STRETCHED_SIDE)
            return replace(recipe, resize="exact", size=size, crop=recipe.side, interpolation="bilinear")
        return recipe

    def manifest(self, directory: Path) -> Path:
        """Return the manifest that a study makes for it below its folder, or the one that was given."""
        return self.data.manifest or directory / "datasets" / f"{self.name}.parquet"

    def bank(self, directory: Path) -> Path:
        """Return its bank below a study's folder, or the one that was given."""
        return self.data.bank or directory / "banks" / f"{self.name}.bank"

    def folder(self, directory: Path) -> Path:
        """Return the folder of the images: that of the file, or the one a study writes embedded sets to."""
        return self.data.folder or directory / "images" / self.data.name


def image_set(data: DataSet, kind: str, mode: str) -> ImageSet:
    """Return the images of an evaluation of a data set.

    Args:
        kind: of the evaluation; of a comparison that of what is compared.
        mode: of the evaluation.
    """
    learns = KINDS_BY_NAME[kind].classifies
    if mode == "default" or not learns or data.builtin is None:
        return ImageSet(data)
    published = mode in datasets.load(data.builtin).facts.modes
    built = mode if published else "default"
    pool = kind == "fewshot" and (data.builtin in _STRETCHED or (published and _has_pool(data.builtin)))
    return ImageSet(data, built, pool)


def image_set_of(study: Study, cell: Cell) -> ImageSet:
    """Return the images of a cell."""
    data = next(data for data in study.datasets if data.name == cell.dataset)
    kind = str(cell.options["evaluation"]) if cell.kind == "compare" else cell.kind
    return image_set(data, kind, cell.mode)


def bank_of(directory: Path, study: Study, cell: Cell) -> Path:
    """Return the bank that a cell's record lies in."""
    return image_set_of(study, cell).bank(directory)


def banks_of(directory: Path, study: Study, cells: Sequence[Cell]) -> list[Path]:
    """Return `bank_of` of each of many cells."""
    images = images_by_cell(study, cells)
    return [one.bank(directory) for one in images]


def images_by_cell(study: Study, cells: Sequence[Cell]) -> list[ImageSet]:
    """Return `image_set_of` of each of many cells; cells of one evaluation and mode share theirs."""
    data = {one.name: one for one in study.datasets}
    sets: dict[tuple[str, str, str], ImageSet] = {}
    shared = []
    for cell in cells:
        kind = str(cell.options["evaluation"]) if cell.kind == "compare" else cell.kind
        key = (cell.dataset, kind, cell.mode)
        if key not in sets:
            sets[key] = image_set(data[cell.dataset], kind, cell.mode)
        shared.append(sets[key])
    return shared


def image_sets(study: Study) -> tuple[ImageSet, ...]:
    """Return the images of a study's evaluations, the data sets' own first; each set once."""
    sets = []
    for data in study.datasets:
        for evaluation in study.evaluations:
            if data.name in evaluation.datasets:
                sets += [image_set(data, evaluation.kind, mode) for mode in evaluation.modes]
    unique = {one.name: one for one in sets}
    for one in list(unique.values()):  # relabelled ones take over the features of the data set's own
        if one.relabels:
            unique.setdefault(one.data.name, ImageSet(one.data))
    order = [data.name for data in study.datasets]
    return tuple(sorted(unique.values(), key=lambda one: (order.index(one.data.name), len(one.name))))


def _has_pool(builtin: str) -> bool:
    """Return whether the adapter knows the study's few-shot pool."""
    return any(option.name == "evaluation" for option in datasets.load(builtin).facts.options)


def refuse_own_files(study: Study, directory: Path) -> None:
    """Refuse a data set that is read from what the study makes of it: it would wait for itself.

    Args:
        directory: of the study.

    Raises:
        Refused: naming the data set.
    """
    home = directory.resolve()
    for data in study.datasets:
        for path in (data.bank, data.manifest, data.folder):
            if path is not None and any(path.is_relative_to(home / made) for made in MADE):
                raise Refused(
                    f"{data.name} is read from {path}",
                    f"{home} is where the study itself writes, so {data.name} would be made from itself",
                    "name what was there before the study, or another folder with --dir",
                )
