"""The first run: real pictures and real weights that packages ship, from files to numbers, offline."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypeAlias, TypedDict, cast

from engine import datasets
from engine.embed.run import embed
from engine.errors import Refused
from engine.evals.fewshot.bank import fewshot_from_bank
from engine.evals.fewshot.evaluate import Protocol
from engine.evals.probe.bank import BankProbe, probes_from_bank
from engine.evals.probe.evaluate import ProbeOptions
from engine.evals.probe.parts import SplitOptions
from engine.models import resolve
from engine.pipeline import PassProgress
from engine.runtime import Runtime, usable_cores
from stores.bank.records import RunRecord, together
from stores.outputs import check_file, check_folder, check_manifest, is_manifest, make_folder

#: An ImageNet network, and an untrained one to see what pretraining is worth.
MODELS = ("efficientnet-lite0", "random/resnet18")

#: Input side in pixels. Both embedded sets are small pictures: 128 takes a third of the time of 224 and loses
#: nothing.
SIDE = 128

PROTOCOLS = {
    "digits": Protocol(n_way=5, n_shot=20, n_query=15, episodes=600),
    # No class of the tiles comes from more than two pictures, so tiles of one picture cannot be kept apart.
    "tiles": Protocol(n_way=3, n_shot=5, n_query=10, episodes=600, group_disjoint=False),
}

_PICTURE = "quickstart.png"

#: Sets that can be probed: no class of the tiles comes from more than two pictures, so none can be held out.
PROBED = ("digits",)


#: A cell of a printed table, and a row of them.
Cell: TypeAlias = str | int | float | bool | None
Row: TypeAlias = tuple[Cell, ...]


class Interval(TypedDict):
    """Ends of a 95 % interval."""

    low: float
    high: float


class TestScores(TypedDict):
    """What a probe scores on the test images."""

    accuracy: float
    auroc: float | None
    intervals: dict[str, Interval]


class ProbeResult(TypedDict):
    """The printed part of a probe's result; `set` is the data set."""

    set: NotRequired[str]
    model: str
    images: dict[str, int]
    test: TestScores
    best_C: float
    converged: bool


class QuickstartReport(TypedDict):
    """What `--json` prints: rows of both tables, and where everything was written."""

    results: list[dict[str, Cell]]
    probes: list[dict[str, Cell]]
    paths: dict[str, str]


@dataclass(frozen=True)
class Table:
    """What is printed."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]

    def to_dicts(self) -> list[dict[str, Cell]]:
        """Give each row as column -> cell."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


@dataclass(frozen=True)
class Result:
    """Tables to print and the paths of what was made."""

    fewshot: Table
    probes: Table
    paths: dict[str, str]

    def to_dict(self) -> QuickstartReport:
        """Give the result as a JSON object."""
        return {
            "results": self.fewshot.to_dicts(),
            "probes": self.probes.to_dicts(),
            "paths": self.paths,
        }


def run(
    directory: Path,
    *,
    on_progress: Callable[[PassProgress], None] | None = None,
    say: Callable[[str], None] = lambda _: None,
    sets: tuple[str, ...] = tuple(PROTOCOLS),
) -> Result:
    """Write the embedded sets, embed them with both models, evaluate, draw.

    Running it again in the same folder resumes or finds everything done.

    Args:
        directory: made if absent; everything goes below it.
        sets: which of the embedded data sets.
    """
    if directory.exists() and not directory.is_dir():
        raise Refused(
            f"{directory} is a file", "The quickstart writes into a folder", "name another with --dir"
        )
    _refuse_strangers(directory, sets)
    recipe = resolve(MODELS[0]).recipe.at(SIDE)  # the untrained control sees the very same pixels
    specs = [resolve(slug, recipe=recipe) for slug in MODELS]
    make_folder(directory)
    rows: list[Row] = []
    probes: list[ProbeResult] = []
    paths: dict[str, str] = {}
    records: dict[str, list[RunRecord]] = {}
    for name in sets:
        say(f"{name}: {datasets.load(name).facts.title}")
        manifest = datasets.build(name, directory / name)
        manifest.write(directory / f"{name}.parquet")
        bank = directory / f"{name}.bank"
        embed(manifest, specs, bank, runtime=Runtime.resolve(), on_progress=on_progress)
        if PROTOCOLS[name].group_disjoint is False:
            say(f"{name}: those of one picture are not kept apart: no class has more than two pictures")
        with together() as batch:
            rows += [_row(name, bank, spec.slug, PROTOCOLS[name]) for spec in specs]
            if name in PROBED:
                probes += [{**result, "set": name} for result in probe(bank)]
        records[name] = batch.made
        paths |= {f"{name} images": str(directory / name), f"{name} bank": str(bank)}
    paths["picture"] = str(_draw(directory, records))
    columns = ("data set", "model", "images", "way", "shot", "chance", "accuracy", "ci95")
    title = "Few-shot accuracy from the bank (mean and 95 % interval of 600 episodes)"
    return Result(Table(title, columns, tuple(rows)), probe_table(probes), paths)


def _refuse_strangers(directory: Path, sets: tuple[str, ...]) -> None:
    """Refuse a folder inside a bank, or one with a picture or manifests of these names that others made."""
    check_folder(directory)
    try:
        check_file(directory / _PICTURE, (".png",), command="quickstart")
        for name in sets:
            path = directory / f"{name}.parquet"
            check_manifest(path, force=path.is_file() and is_manifest(path))
    except Refused as error:  # its advice is for commands with --force
        raise Refused(error.found, error.rule, "choose another folder with --dir") from error


def probe(bank: Path) -> list[ProbeResult]:
    """Probe both models with 45 values of C on a part of the images, and test on a fifth held out."""
    request = BankProbe(splits=SplitOptions(holdout=True))
    results: list[Any] = probes_from_bank(bank, MODELS, request, ProbeOptions(threads=usable_cores()))
    return cast(list[ProbeResult], results)


def probe_table(results: Sequence[ProbeResult]) -> Table:
    """Show the results of probes, a row each."""
    columns = (
        "data set",
        "model",
        "train",
        "val",
        "test",
        "best C",
        "accuracy",
        "95 %",
        "AUROC",
        "converged",
    )
    title = "Linear probe: 45 regularisation values, the best on validation (95 % interval over test images)"
    return Table(title, columns, tuple(map(_probe_row, results)))


def _probe_row(result: ProbeResult) -> Row:
    test, parts = result["test"], result["images"]
    interval = test["intervals"]["accuracy"]
    within = f"{interval['low']:.3f}-{interval['high']:.3f}"
    scores = (result["best_C"], test["accuracy"], within, test["auroc"], result["converged"])
    return (result["set"], result["model"], parts["train"], parts["val"], parts["test"], *scores)


def _row(name: str, bank: Path, slug: str, protocol: Protocol) -> Row:
    result = fewshot_from_bank(bank, slug, protocol)
    images, accuracy, ci95 = (cast(float, result[name]) for name in ("images", "accuracy", "ci95"))
    return (name, slug, images, protocol.ways, protocol.n_shot, 1 / protocol.ways, accuracy, ci95)


def _draw(directory: Path, records: dict[str, list[RunRecord]]) -> Path:
    from engine.report.quickstart_figure import overview

    banks = {name: directory / f"{name}.bank" for name in records}
    return overview(records, banks, directory, MODELS[0], directory / _PICTURE)
