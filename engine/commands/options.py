"""The options and arguments that several commands have, each with one name, type, help and panel.

What differs from command to command is what is taken where an option is left out, and whether it may be
repeated (its metavar then ends in ` ...`). What an option means to one command alone stands in that
command's description.
"""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.main import get_click_type

from engine.commands.choices import (
    Backend,
    BatchNorm,
    Blank,
    ClassWeight,
    Distance,
    Mode,
    Plot,
    Precision,
    Select,
    Threshold,
    Uncertain,
)
from engine.commands.declaring import MACHINE, OUTPUT, PROTOCOL, WHAT, option


def number(value: float | None) -> float | None:
    """Refuse NaN, which is in every range: no comparison with it is true."""
    if value != value:
        raise typer.BadParameter("nan is not a number.")
    return value


def some_of(*words: StrEnum, former: dict[str, str] | None = None) -> Any:
    """Return the type of an option that accepts only some words of a set, for use as `click_type`.

    Args:
        former: names that words had before -> the words; accepted for one release and shown nowhere.
    """
    every: Any = get_click_type(annotation=type(words[0]), parameter_info=typer.models.OptionInfo())
    kind = type(every)([word.value for word in words])
    kind.former = former or {}
    return kind


# --- what -------------------------------------------------------------------------------------------

# A text, since a Path would lose a slash of a URL; `stores.backends.location.place` reads it.
BankPath = Annotated[
    str, typer.Argument(metavar="BANK", help="Directory of the bank, or its URL (s3://, gs://, az://).")
]
ManifestPath = Annotated[Path, typer.Argument(metavar="MANIFEST", help="Parquet or CSV manifest.")]
FeatureWord = Annotated[
    str, typer.Argument(metavar="FEATURE", help="Name of a feature, its slug, or an unambiguous beginning.")
]
Slug = Annotated[str, typer.Argument(metavar="SLUG", help="A slug from `embank models list`.")]
DatasetName = Annotated[str, typer.Argument(metavar="DATASET", help="A name from `embank datasets list`.")]


def _model(**settings: Any) -> Any:
    return option(
        WHAT, "--model", help="Slug (see `embank models list`), or name of a feature in a bank.", **settings
    )


OneModel = Annotated[str, _model(metavar="SLUG")]
Models = Annotated[list[str], _model(metavar="SLUG ...")]
ModelFilter = Annotated[str | None, _model(metavar="SLUG", show_default="all")]
ModelsFilter = Annotated[list[str] | None, _model(metavar="SLUG ...", show_default="all")]


def _weights(**settings: Any) -> Any:
    return option(WHAT, "--weights", help="File of weights (.pth, .safetensors).", **settings)


Weights = Annotated[Path | None, _weights(metavar="FILE", show_default="the model's own")]
BankWeights = Annotated[Path | None, _weights(metavar="FILE", show_default="the recorded file")]
ModelWeights = Annotated[
    list[str] | None, _weights(metavar="FILE|SLUG=FILE ...", show_default="the model's own")
]
RecipeWord = Annotated[
    str | None,
    option(
        WHAT,
        "--recipe",
        metavar="NAME|FILE",
        help="Preprocessing: its name or a JSON file.",
        show_default="that of the weights",
    ),
]
DepthRule = Annotated[
    str | None,
    option(
        WHAT,
        "--depth",
        metavar="RULE",
        help="For more than 8 bits: scale, voi (DICOM's own window) or window:LOW,HIGH.",
    ),
]
Root = Annotated[
    Path | None,
    option(
        WHAT,
        "--root",
        metavar="FOLDER",
        help="Folder that the images' relative paths start from.",
        show_default="that of the manifest",
    ),
]
AllowOutside = Annotated[
    bool, option(WHAT, "--allow-outside", help="Let absolute paths and links lead out of the root.")
]


def _images(default: str) -> Any:
    return option(WHAT, "--images", min=1, help="Number of images, drawn by --seed.", show_default=default)


ImagesOccluded = Annotated[int | None, _images("8; 1 as-published")]
ImagesReconstructed = Annotated[int | None, _images("4, or all of fewer")]
ImagesScored = Annotated[int | None, _images("100, or half of a smaller bank")]


def _id(**settings: Any) -> Any:
    return option(WHAT, "--id", help="Id of an image.", **settings)


Controls = Annotated[
    bool,
    option(
        PROTOCOL,
        "--controls",
        help="Also evaluate what knows nothing, or little: untrained network, image statistics, metadata, "
        "shuffled labels, majority class, chance.",
    ),
]
ImageId = Annotated[str | None, _id(metavar="ID")]
ImageIds = Annotated[list[str] | None, _id(metavar="ID ...")]


def _label(**settings: Any) -> Any:
    return option(WHAT, "--label", help="Column with the label.", **settings)


LabelColumn = Annotated[str | None, _label(metavar="COLUMN")]
LabelColumns = Annotated[list[str] | None, _label(metavar="COLUMN ...", show_default="label")]
Split = Annotated[
    str | None,
    option(WHAT, "--split", metavar="SPLIT", help="Images of this split only.", show_default="all"),
]
TrainSplit = Annotated[str, option(WHAT, "--train-split", metavar="SPLIT", help="Split to train on.")]
TestSplit = Annotated[str, option(WHAT, "--test-split", metavar="SPLIT", help="Split to test on.")]
ValSplit = Annotated[
    str, option(WHAT, "--val-split", metavar="SPLIT", help="Split to validate on: C, or weights, are chosen.")
]
ValFraction = Annotated[
    float,
    option(
        WHAT,
        "--val-fraction",
        help="Share of the train patients to validate on, if no split is for that.",
    ),
]
Holdout = Annotated[
    bool, option(WHAT, "--holdout", help="No test split: hold out a fifth of the train patients.")
]
MultiLabel = Annotated[
    bool, option(WHAT, "--multi-label", help="The columns are findings: learn all of them in one run.")
]
StrataColumns = Annotated[
    list[str] | None,
    option(
        WHAT,
        "--strata",
        metavar="COLUMN ...",
        help="Also test in strata: the values of a column, or age:40,60 for parts of one of numbers.",
        show_default="none",
    ),
]
FromFile = Annotated[
    Path | None,
    option(WHAT, "--from-file", metavar="FILE", help="The published file, downloaded by other means."),
]
KindFilter = Annotated[
    str | None,
    option(
        WHAT,
        "--kind",
        metavar="KIND",
        help="Records of this kind only: embed, fewshot, knn, probe, invariance, ...",
        show_default="all",
    ),
]

# --- protocol ---------------------------------------------------------------------------------------

ModeOption = Annotated[
    Mode, option(PROTOCOL, "--mode", help="as-published reproduces the study, step by step.")
]
Seed = Annotated[
    int,
    option(
        PROTOCOL, "--seed", help="Another seed gives other draws, cuts, resamples and random/NAME weights."
    ),
]
GroupDisjoint = Annotated[
    bool | None,
    option(
        PROTOCOL,
        "--group-disjoint/--no-group-disjoint",
        help="Keep the images of a group (patient) apart; --no-group-disjoint mixes them.",
        show_default="where groups are known",
    ),
]


def _distance(*words: Distance) -> Any:
    return option(PROTOCOL, "--distance", click_type=some_of(*words), help="Distance between embeddings.")


PrototypeDistance = Annotated[Distance, _distance(Distance.sqeuclidean, Distance.cosine, Distance.centred)]
NeighbourDistance = Annotated[Distance, _distance(Distance.cosine, Distance.euclidean)]


def _neighbours(**settings: Any) -> Any:
    return option(PROTOCOL, "-k", "--k", help="Number of nearest neighbours.", **settings)


Neighbours = Annotated[int, _neighbours(metavar="K")]
NeighboursTried = Annotated[list[int] | None, _neighbours(metavar="K ...", show_default="20, others")]


def _uncertain(*words: Uncertain, **settings: Any) -> Any:
    return option(
        PROTOCOL,
        "--uncertain",
        click_type=some_of(*words),
        help="Treatment of uncertain findings (-1).",
        **settings,
    )


UncertainLabels = Annotated[Uncertain | None, _uncertain(*Uncertain)]
UncertainFindings = Annotated[
    Uncertain | None,
    _uncertain(Uncertain.ignore, Uncertain.zeros, Uncertain.ones, show_default="ignore; zeros as-published"),
]
BlankFindings = Annotated[
    Blank | None,
    option(
        PROTOCOL, "--blank", help="Treatment of empty findings.", show_default="ignore; zeros as-published"
    ),
]
SelectScore = Annotated[
    Select | None,
    option(
        PROTOCOL,
        "--select",
        metavar="SCORE",
        help="Validation score that decides: accuracy, mean-per-class, auroc or log-loss.",
        show_default="accuracy; auroc with --multi-label",
    ),
]
ClassWeightOption = Annotated[
    ClassWeight,
    option(PROTOCOL, "--class-weight", help="balanced gives every class the same weight."),
]
Steps = Annotated[int, option(PROTOCOL, "--steps", min=1, help="Updates of the weights, at most.")]
LearningRate = Annotated[
    float, option(PROTOCOL, "--lr", metavar="RATE", help="Learning rate of the first update.")
]
Bootstrap = Annotated[
    int,
    option(PROTOCOL, "--bootstrap", min=0, help="Resamples of the patients for 95 % intervals; 0 for none."),
]
Specificity = Annotated[
    float,
    option(
        PROTOCOL,
        "--specificity",
        metavar="SHARE",
        callback=number,
        help="Report the sensitivity of two classes or findings at this specificity.",
    ),
]
ThresholdRule = Annotated[
    Threshold,
    option(
        PROTOCOL,
        "--threshold-rule",
        help="Rule for the threshold from validation: Youden's index, or --specificity.",
    ),
]
BatchNormOption = Annotated[
    BatchNorm,
    option(
        PROTOCOL, "--batch-norm", help="train uses the statistics of the images at hand (as-published only)."
    ),
]
MaxFailed = Annotated[
    float,
    option(
        PROTOCOL,
        "--max-failed",
        metavar="SHARE",
        min=0,
        max=1,
        callback=number,
        help="Exit with 1 if a larger share of the images failed.",
    ),
]

# --- machine ----------------------------------------------------------------------------------------

Device = Annotated[str, option(MACHINE, "--device", metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")]


def _backend(*words: Backend, former: dict[str, str] | None = None) -> Any:
    kind = some_of(*words, former=former)
    return option(
        MACHINE, "--backend", click_type=kind, help="Library that computes; all solve the same problem."
    )


NeighbourBackend = Annotated[Backend, _backend(Backend.auto, Backend.array, Backend.faiss)]
SolverBackend = Annotated[
    Backend,
    _backend(Backend.batched, Backend.sklearn, Backend.cuml, former={"lockstep": "batched"}),
]


def _precision(*words: Precision) -> Any:
    return option(
        MACHINE,
        "--precision",
        click_type=some_of(*words),
        help="Number format in which the backbone computes.",
    )


AnyPrecision = Annotated[Precision, _precision(*Precision)]
AutoFp32OrBf16 = Annotated[Precision, _precision(Precision.auto, Precision.fp32, Precision.bf16)]
Fp32OrBf16 = Annotated[Precision, _precision(Precision.fp32, Precision.bf16)]
Threads = Annotated[
    int | None,
    option(MACHINE, "--threads", min=1, help="CPU threads.", show_default="all usable cores"),
]


def _batch_size(**settings: Any) -> Any:
    return option(MACHINE, "--batch-size", min=1, help="Images a batch.", **settings)


EmbedBatch = Annotated[int | None, _batch_size(show_default="256 on CUDA, 32 on the CPU")]
TrainBatch = Annotated[int | None, _batch_size(show_default="64; 16 for DenseNets, as published")]
PairsBatch = Annotated[int, _batch_size()]
Workers = Annotated[
    int,
    option(
        MACHINE,
        "--workers",
        min=0,
        help="Processes that share the work, one for each GPU; 0: only this one.",
    ),
]
Scheduler = Annotated[
    str | None,
    option(MACHINE, "--scheduler", metavar="ADDRESS", help="dask scheduler whose workers share the work."),
]

# --- output -----------------------------------------------------------------------------------------


def _out(metavar: str, **settings: Any) -> Any:
    return option(OUTPUT, "--out", "-o", metavar=metavar, help="Output path; see above.", **settings)


BankOut = Annotated[
    str,
    option(
        OUTPUT,
        "--bank",
        metavar="BANK",
        help="Directory of the bank, or its URL (s3://, gs://, az://); made if absent.",
    ),
]


def _plot(*words: Plot, **settings: Any) -> Any:
    kind = some_of(*words)
    return option(
        OUTPUT, "--plot", click_type=kind, metavar="KIND", help="Kind of picture; see above.", **settings
    )


ProbePlot = Annotated[
    Plot | None,
    _plot(
        Plot.selection,
        Plot.reliability,
        Plot.curves,
        Plot.confusion,
        Plot.strata,
        Plot.low_shot,
        show_default="selection",
    ),
]
ComparisonPlot = Annotated[Plot | None, _plot(Plot.forest, Plot.ranking, show_default="forest")]
ManifestOut = Annotated[Path, _out("FILE")]
PictureOut = Annotated[Path, _out("FILE")]
TableOut = Annotated[Path, _out("FILE")]
PageOut = Annotated[Path, _out("FILE")]
NewBank = Annotated[Path, _out("NEW")]
MaybeFile = Annotated[Path | None, _out("FILE")]
ConvertedOut = Annotated[Path | None, _out("FILE", show_default="where `embed` looks for it")]
MaybeFolder = Annotated[Path | None, _out("FOLDER")]
ExportFolder = Annotated[Path | None, _out("FOLDER", show_default="BANK-export")]
Force = Annotated[bool, option(OUTPUT, "--force", help="Replace a file that is there already.")]
Json = Annotated[bool, option(OUTPUT, "--json", help="Print one JSON document on stdout.")]
