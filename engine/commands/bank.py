"""`embank bank`: stores of embeddings."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from engine.commands.bank_scatter import bank_scatter
from engine.commands.checking import check_output, read_manifest
from engine.commands.choices import ExportFormat
from engine.commands.declaring import OUTPUT, PROTOCOL, WHAT, Options, command, option
from engine.commands.options import (
    BankPath,
    BankWeights,
    Device,
    ExportFolder,
    FeatureWord,
    Force,
    Json,
    ManifestPath,
    MaybeFile,
    ModelFilter,
    ModelsFilter,
    NewBank,
    OneModel,
    Root,
)
from engine.commands.processes import terminable
from engine.commands.showing import end_with_failures, noting, say_undone, show
from stores.errors import Refused

if TYPE_CHECKING:
    from engine.evals.neighbours.audit import Audit
    from stores.bank.feature_info import FeatureInfo
    from stores.json_types import JsonObject

app = typer.Typer(
    help="Stores of embeddings: show, draw, verify, repair, relabel, rename, remove, export.",
    no_args_is_help=True,
)


@command(app, "ls")
def bank_ls(bank: BankPath, json: Json = False) -> None:
    """List the features of a bank."""
    from engine.report.bank_text import print_features
    from stores.bank.reader import Bank

    infos = Bank.open(bank).list()
    show([_info(info) for info in infos], json, lambda: print_features(infos))


def _info(info: "FeatureInfo") -> "JsonObject":
    return {**{k: v for k, v in vars(info).items() if k != "key"}, "key": info.key.to_dict()}


Failures = Annotated[bool, option(WHAT, "--failures", help="List failed rows with their reasons.")]


@command(app, "show")
def bank_show(
    bank: BankPath, model: ModelFilter = None, failures: Failures = False, json: Json = False
) -> None:
    """Show what made the features: key, provenance, certificate, failures."""
    from engine.report.bank_text import print_descriptions
    from stores.bank.reader import Bank

    store = Bank.open(bank)
    selected = store.select(model)
    shown = [store.describe(info.name, failures=failures) for info in store.list() if info.name in selected]
    document = {"bank": str(bank), "rows": store.rows, "chunk_rows": store.chunk_rows, "features": shown}
    show(document, json, lambda: print_descriptions(bank, store.rows, store.chunk_rows, shown))


@command(app, "verify")
def bank_verify(bank: BankPath, model: ModelFilter = None, json: Json = False) -> None:
    """Check every file against its recorded SHA-256. Exit 0 if intact, 1 if damaged."""
    from engine.report.bank_text import print_verified
    from stores.maintenance.verify import verify

    report = verify(bank, features=[model] if model else None)
    document = report.to_dict()
    show(document, json, lambda: print_verified(bank, report.chunks, document["damaged"]))
    end_with_failures(not report.ok)


LostManifest = Annotated[
    Path | None,
    option(
        WHAT,
        "--manifest",
        metavar="MANIFEST",
        help="The bank's manifest, in case its own copy is lost or damaged.",
    ),
]


@command(app, "repair")
def bank_repair(
    bank: BankPath,
    weights: BankWeights = None,
    root: Root = None,
    manifest: LostManifest = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Compute damaged chunks again; put back those that agree with the recorded ones."""
    from engine.embed.repair import repair
    from engine.report import console
    from engine.report.bank_text import print_damage, print_repair

    given = read_manifest(manifest, None, allow_outside=True) if manifest else None
    with terminable(), console.embed_progress(quiet=json) as update:
        result = repair(bank, weights=weights, root=root, device=device, given=given, on_progress=update)

    def text() -> None:
        print_repair(bank, result)
        print_damage(result["remaining"])

    show(result, json, text)
    end_with_failures(not result["ok"])


FileFormat = Annotated[ExportFormat, option(OUTPUT, "--format", help="Format of the files.")]
# Its name until 0.2.
Overwrite = Annotated[bool, option(OUTPUT, "--overwrite", hidden=True, help="Old name of --force.")]


@command(app, "export")
def bank_export(
    bank: BankPath,
    model: ModelFilter = None,
    out: ExportFolder = None,
    format: FileFormat = ExportFormat.npy,
    force: Force = False,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write embeddings, status and manifest as npy or Parquet files.

    -o takes their folder.
    """
    from engine.report.console import write
    from stores.bank.export import export_all
    from stores.bank.reader import Bank

    store = Bank.open(bank)
    local = store.backend.local_path(store.path)
    beside = Path() if local is None else local.parent
    target = out or beside / f"{store.path.name}-export"
    selected = store.select(model)
    infos = [info for info in store.list() if info.name in selected]
    if not infos:
        raise Refused(f"{bank} has no features", "An export takes what is there", "run `embank embed` first")
    features = [store.features(info.name) for info in infos]
    written = export_all(features, target, format, overwrite=force or overwrite)
    document = {"bank": str(bank), "files": [str(path) for path in written]}
    show(document, json, lambda: write(*written, sep="\n"))


NewName = Annotated[str, typer.Argument(metavar="NAME", help="What to call it from now on.")]


@command(app, "rename")
def bank_rename(bank: BankPath, feature: FeatureWord, name: NewName, json: Json = False) -> None:
    """Call a feature by another name in tables, figures and messages; its files and records stay."""
    from engine.report.bank_text import print_renamed
    from stores.bank.names import Roster, give
    from stores.bank.reader import Bank

    store = Bank.open(bank)
    roster = Roster.of(store.path)
    full = roster.one(feature)
    give(store.path, {full: name})
    before, title = roster.title(full), store.title(full)
    document = {"bank": bank, "feature": full, "before": before, "title": title}
    show(document, json, lambda: print_renamed(full, before, title))


Yes = Annotated[bool, option(PROTOCOL, "--yes", help="Do not ask.")]


@command(app, "rm")
def bank_rm(bank: BankPath, feature: FeatureWord, yes: Yes = False, json: Json = False) -> None:
    """Remove a feature, finished, unfinished or damaged, with its caches; records and other features stay."""
    from engine.report.bank_text import print_removed
    from stores.maintenance.remove import removable, remove

    removal = removable(bank, feature)
    size = f"{removal.bytes / 2**20:,.1f} MiB"
    if not yes:
        _demand_yes(f"Remove {removal.title} ({removal.feature}, {size}) from {bank} for good?")
    report = remove(removal)
    show(report, json, lambda: print_removed(bank, removal.title, removal.feature, size))


def _demand_yes(question: str) -> None:
    """Ask on the terminal. Raises Refused unless the answer is yes."""
    if not sys.stdin.isatty():
        raise Refused(question, "There is no terminal to ask on", "say --yes if it is meant")
    if not typer.confirm(question, err=True):
        raise Refused("The answer was no", "Nothing is removed without a yes", "answer y if it is meant")


MaxSize = Annotated[
    str,
    option(
        WHAT,
        "--max-size",
        metavar="SIZE",
        help="Size that may stay, e.g. 10GB; the most recently used caches do.",
    ),
]


@command(app, "prune")
def bank_prune(bank: BankPath, max_size: MaxSize = "0", json: Json = False) -> None:
    """Remove caches, which can be made again: views, occlusion maps, statistics, copies from buckets."""
    from engine.report.bank_text import print_pruned
    from stores.bank.caches import prune, size

    report = prune(bank, size(max_size))
    show(report, json, lambda: print_pruned(report))


@command(app, "relabel")
def bank_relabel(
    bank: BankPath,
    manifest: ManifestPath,
    out: NewBank,
    model: ModelsFilter = None,
    json: Json = False,
) -> None:
    """Make a new bank of the same features with other labels, splits and groups; nothing is recomputed.

    -o takes the new bank: a directory, or its URL.
    """
    from engine.embed.relabel import relabel
    from engine.report import console
    from engine.report.bank_text import print_relabel
    from stores.backends.location import place

    labels = read_manifest(manifest, None, allow_outside=True)  # its files are not opened
    target = str(place(out))
    with terminable(), console.transfer_progress(target) as update:
        report = relabel(bank, labels, target, features=model, on_progress=update)
    show(report, json, lambda: print_relabel(report))


command(app, "scatter")(bank_scatter)


class AuditOutput(Options):
    """Options for the files that an audit writes."""

    out: MaybeFile = None
    sheet: Annotated[
        Path | None,
        option(OUTPUT, metavar="FILE", help="Draw the most similar pairs here: .png, .svg or .pdf."),
    ] = None
    force: Force = False
    json: Json = False


Threshold = Annotated[float, option(PROTOCOL, help="Least cosine similarity of a pair.")]
MaxPairs = Annotated[int, option(PROTOCOL, "--max-pairs", help="The most pairs listed; all are counted.")]


@command(app, "audit")
def bank_audit(
    bank: BankPath,
    model: OneModel,
    output: AuditOutput,
    root: Root = None,
    threshold: Threshold = 0.99,
    max_pairs: MaxPairs = 10_000,
    device: Device = "auto",
) -> None:
    """Find near-duplicate images, and images or patients in several splits. Findings are results: exit 0.

    -o takes the pairs: .csv, .parquet, .json or .tex.
    """
    from engine.evals.common.compute import evaluation_device
    from engine.evals.neighbours.audit import audit, write_pairs
    from engine.report.audit_text import print_audit
    from stores.bank.reader import Bank
    from stores.bank.records import together

    draw = _audit_outputs(bank, model, output, root)
    undone: list[Exception] = []
    with together() as batch:
        result = audit(
            bank, model, threshold=threshold, max_pairs=max_pairs, device=evaluation_device(device)
        )
        image_ids = Bank.open(bank).manifest().image_ids if output.out or output.sheet else []
        drawn: JsonObject = {}
        with noting(undone):
            drawn = draw(result, image_ids)
    report = {**result.report, **drawn}  # by now it says if no record could be kept
    if output.out:
        with noting(undone):
            write_pairs(result, image_ids, output.out)
            report["file"] = str(output.out)
    show(report, output.json, lambda: print_audit(report))
    say_undone(batch, undone)


def _audit_outputs(
    bank: str, model: str, output: AuditOutput, root: Path | None
) -> Callable[["Audit", list[str]], dict[str, Any]]:
    """Check the outputs of an audit. Returns a function that draws the sheet, if one was requested."""
    from stores.outputs import TABLES

    sheet = output.sheet
    check_output(output.out, bank, "bank audit", output.force, kinds=TABLES)
    check_output(sheet, bank, "bank audit", output.force)
    if sheet is None:
        return lambda result, image_ids: {}
    from engine.report.sheets import audit_sheet, pictures_of

    pictures = pictures_of(bank, model, root=root)
    return lambda result, image_ids: {
        "unreadable": audit_sheet(pictures, image_ids, result, sheet),
        "sheet": sheet,
    }
