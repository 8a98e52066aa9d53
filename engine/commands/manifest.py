"""`embank manifest`: lists of images."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.commands.checking import read_manifest
from engine.commands.choices import Mode
from engine.commands.declaring import PROTOCOL, WHAT, Options, command, option
from engine.commands.options import (
    DatasetName,
    Force,
    Json,
    LabelColumn,
    ManifestOut,
    ManifestPath,
    ModeOption,
    Root,
    Seed,
    UncertainLabels,
)
from engine.commands.processes import terminable
from engine.commands.showing import show
from stores.errors import Refused

if TYPE_CHECKING:
    from stores.manifest.manifest import Manifest

app = typer.Typer(help="Lists of images: make one, check one, split one.", no_args_is_help=True)

ClassFolders = Annotated[Path, typer.Argument(metavar="ROOT", help="A folder for each class, images inside.")]
SplitFolders = Annotated[
    bool, option(WHAT, "--split-folders", help="The layout is SPLIT/CLASS/FILE, e.g. train/normal/1.png.")
]
HashFiles = Annotated[
    bool,
    option(WHAT, "--hash", help="Record every file's SHA-256: silent damage is then found when embedding."),
]
GroupPattern = Annotated[
    str | None,
    option(
        WHAT,
        "--group-pattern",
        metavar="REGEX",
        help="Regular expression that finds the patient in each path, e.g. '(p[0-9]+)_'.",
        show_default="no patients",
    ),
]


@command(app, "folder")
def manifest_folder(
    root: ClassFolders,
    out: ManifestOut,
    split_folders: SplitFolders = False,
    hash_files: HashFiles = False,
    group_pattern: GroupPattern = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Make a manifest from class-per-folder images.

    -o takes the manifest: .parquet or .csv.
    """
    from stores.manifest.manifest import Manifest
    from stores.outputs import check_manifest

    check_manifest(out, force=force)
    manifest = Manifest.from_folder(
        root, split_folders=split_folders, hash_files=hash_files, group_pattern=group_pattern
    )
    _write(manifest, out, json)


class Columns(Options):
    """The columns of a table of images, by their content."""

    uri: Annotated[str, option(WHAT, metavar="COLUMN", help="Column with the image's path.")] = "uri"
    id: Annotated[
        str | None,
        option(WHAT, "--id", metavar="COLUMN", help="Column with a unique id.", show_default="the path"),
    ] = None
    label: LabelColumn = None
    split: Annotated[str | None, option(WHAT, metavar="COLUMN", help="Column with train, val, test.")] = None
    group: Annotated[
        str | None,
        option(WHAT, metavar="COLUMN", help="Column with the patient, whose images stay in one split."),
    ] = None


ImageTable = Annotated[Path, typer.Argument(metavar="TABLE", help="CSV or Parquet with one row an image.")]


@command(app, "table")
def manifest_table(
    table: ImageTable,
    columns: Columns,
    out: ManifestOut,
    root: Root = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Make a manifest from any table that names image files.

    -o takes the manifest: .parquet or .csv.
    """
    from stores.manifest.manifest import Manifest
    from stores.outputs import check_manifest

    check_manifest(out, force=force, inputs=[table])
    manifest = Manifest.from_table(
        table,
        id=columns.id,
        uri=columns.uri,
        label=columns.label,
        split=columns.split,
        group=columns.group,
        root=root,
    )
    _write(manifest, out, json)


Downloaded = Annotated[Path, typer.Argument(metavar="ROOT", help="The data set's folder, as downloaded.")]
DatasetOptions = Annotated[
    list[str] | None,
    option(
        PROTOCOL,
        "-O",
        "--option",
        metavar="NAME=VALUE ...",
        help="Options in `embank datasets show DATASET`.",
    ),
]


@command(app, "build")
def manifest_build(
    dataset: DatasetName,
    root: Downloaded,
    out: ManifestOut,
    mode: ModeOption = Mode.default,
    uncertain: UncertainLabels = None,
    option: DatasetOptions = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Make the manifest of a data set of the catalogue; embedded ones write their images to ROOT.

    -o takes the manifest: .parquet or .csv. --mode as-published takes the study's label rules and splits.
    --uncertain WORD is short for -O uncertain=WORD.
    """
    from engine import datasets
    from stores.outputs import check_manifest

    check_manifest(out, force=force, root=root)
    options = _name_values(option or [])
    if uncertain is not None:
        options["uncertain"] = uncertain.value
    _write(datasets.build(dataset, root, mode.value, options), out, json)


Content = Annotated[
    bool,
    option(
        WHAT,
        "--content",
        help="Also read every file, to find damage, duplicates and files that are no images.",
    ),
]


@command(app, "check")
def manifest_check(
    manifest: ManifestPath, root: Root = None, content: Content = False, json: Json = False
) -> None:
    """Find missing files, duplicates and patients across splits, and count the classes."""
    from engine.report import console
    from engine.report.manifest_text import print_check
    from stores.manifest.check import check

    listed = read_manifest(manifest, root)
    fault_of = None
    if content:
        from engine.decode.soundness import fault_finder
        from engine.decode.source import ImageSource

        fault_of = fault_finder(ImageSource(listed.root, listed.uris))
    with terminable(), console.probe_progress() as progress:
        update = progress("manifest check")
        report = check(
            listed,
            content=content,
            fault_of=fault_of,
            progress=lambda done, total: update("files", done, total),
        )
    document = report.to_dict()
    show(document, json, lambda: print_check(document))
    if any(problem.severity == "error" for problem in report.problems):
        raise typer.Exit(Refused.exit_code)


class Cutting(Options):
    """Options for splits and folds."""

    ratios: Annotated[
        str | None,
        option(
            PROTOCOL,
            metavar="TRAIN[,VAL],TEST",
            help="Shares of the images, e.g. 0.7,0.1,0.2; or give --folds.",
        ),
    ] = None
    folds: Annotated[
        int | None,
        option(PROTOCOL, min=2, help="Parts of equal size, numbered from 0 in the column fold."),
    ] = None
    fold: Annotated[
        int | None,
        option(PROTOCOL, min=0, help="With --folds: this fold becomes the split test, the others train."),
    ] = None
    stratify: Annotated[
        bool,
        option(
            PROTOCOL,
            "--stratify/--no-stratify",
            help="Divide each class in the same ratio; --no-stratify ignores classes.",
        ),
    ] = True
    replace_split: Annotated[
        bool,
        option(PROTOCOL, "--replace-split", help="Replace the split that the manifest has already."),
    ] = False
    seed: Seed = 0


@command(app, "split")
def manifest_split(
    manifest: ManifestPath,
    cutting: Cutting,
    out: ManifestOut,
    root: Root = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Add a split or folds to a manifest: by patient (column group) and label, independent of the order.

    -o takes the manifest: .parquet or .csv.
    """
    from engine.report.manifest_text import print_cut
    from stores.manifest.manifest import Manifest
    from stores.manifest.split import CutOptions, split_manifest
    from stores.outputs import check_manifest

    ratios = _shares(cutting.ratios) if cutting.ratios is not None else None
    options = CutOptions(
        ratios, cutting.folds, cutting.fold, cutting.seed, cutting.stratify, cutting.replace_split
    )
    check_manifest(out, force=force, inputs=[manifest])
    cut = split_manifest(Manifest.read(manifest, root=root, allow_outside=True), options)  # opens no image
    _write(cut.manifest, out, json, {"by": cut.by, "splits": cut.splits, "folds": cut.folds})
    if not json:
        print_cut(cut.by, cut.splits, cut.folds)


def _write(
    manifest: "Manifest", out: Path, json: bool, additions: Mapping[str, object] | None = None
) -> None:
    """Write a manifest and print a summary."""
    from engine.report import console
    from engine.report.manifest_text import print_written
    from stores.backends import files
    from stores.backends.location import place
    from stores.outputs import make_folder, refuse_csv_outside

    if files.local_path(place(out)) is not None:
        if out.suffix.lower() == ".csv":
            refuse_csv_outside(out, manifest.root)
        make_folder(out.absolute().parent)
    manifest.write(out)
    classes, rows, digest = manifest.classes, len(manifest), manifest.digest
    for note in manifest.notes:
        console.say(note)
    document = {
        "manifest": out,
        "rows": rows,
        "classes": sorted(classes),
        "digest": digest,
        **(additions or {}),
    }
    show(document, json, lambda: print_written(out, rows, len(classes), digest))


def _name_values(words: list[str]) -> dict[str, str]:
    """Parse the pairs of `-O NAME=VALUE`. Raises Refused for anything else."""
    pairs = [word.partition("=") for word in words]
    for word, (name, equals, _) in zip(words, pairs, strict=True):
        if not (name and equals):
            raise Refused(f"-O {word!r}", "It reads NAME=VALUE", "write for instance -O seed=1")
    return {name: value for name, _, value in pairs}


def _shares(text: str) -> tuple[float, ...]:
    """Parse the numbers of `--ratios`. Raises Refused for anything else."""
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise Refused(
            f"--ratios {text[:60]!r}",
            "They are numbers with commas between",
            "write for instance 0.7,0.1,0.2",
        ) from None
