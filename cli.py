"""The command line: parse, decide the Runtime, make one call, print. Heavy imports live in the commands."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from engine.report.console import write as print
from stores.errors import EmbankError, MachineFault, Refused

if TYPE_CHECKING:
    from engine.executors import Executor
    from engine.recipes import Recipe
    from stores.bank.records import Batch
    from stores.manifest.manifest import Manifest
    from stores.outputs import Images

EXIT_FAILED_ROWS = 1
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="embank",
    help="Bank the embeddings of medical images once; evaluate them for ever after.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
manifest_app = typer.Typer(help="Lists of images: make one, check one, split one.", no_args_is_help=True)
bank_app = typer.Typer(
    help="Stores of embeddings: look, verify, mend, relabel, rename, remove, export.", no_args_is_help=True
)
records_app = typer.Typer(
    help="What runs and evaluations found: list, show, export as a table.", no_args_is_help=True
)
models_app = typer.Typer(help="The catalogue of backbones.", no_args_is_help=True)
datasets_app = typer.Typer(help="The catalogue of data sets.", no_args_is_help=True)
for name, group in (
    ("manifest", manifest_app),
    ("bank", bank_app),
    ("records", records_app),
    ("models", models_app),
    ("datasets", datasets_app),
):
    app.add_typer(group, name=name)


class PrecisionName(StrEnum):
    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"
    fp16 = "fp16"


class DecoderName(StrEnum):
    auto = "auto"
    dali = "dali"
    turbo = "turbo"
    reference = "reference"


class StoredType(StrEnum):
    float16 = "float16"
    float32 = "float32"


class ExportFormat(StrEnum):
    npy = "npy"
    parquet = "parquet"


def _number(value: float | None) -> float | None:
    """Refuse NaN, which is in every range: no comparison with it is true."""
    if value != value:
        raise typer.BadParameter("nan is not a number.")
    return value


Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
# A text, since a Path would lose a slash of a URL; `stores.backends.location.place` reads it.
BankPath = Annotated[
    str, typer.Argument(metavar="BANK", help="Directory of the bank, or its URL (s3://, gs://, az://).")
]
ManifestPath = Annotated[Path, typer.Argument(metavar="MANIFEST", help="Parquet or CSV manifest.")]
Root = Annotated[
    Path | None, typer.Option(help="Folder that relative paths start from. (default: what the manifest says)")
]
BankRoot = Annotated[Path | None, typer.Option("--root", help="The images' folder, if it has moved.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Where to write: .parquet or .csv.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a file that is there already.")]
ModelFilter = Annotated[
    str | None, typer.Option("--model", help="Model slug or feature name. (default: all)")
]
FeatureWord = Annotated[
    str, typer.Argument(metavar="FEATURE", help="Its name, slug, or a beginning that fits no other.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Workers = Annotated[
    int, typer.Option(min=0, help="Processes that share the work, one a GPU. (default: this one alone)")
]
Scheduler = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="dask scheduler whose workers share the work.")
]
AllowOutside = Annotated[
    bool, typer.Option("--allow-outside", help="Let absolute paths and links lead out of the root.")
]


def _say_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"embank {version('embank')}")
        raise typer.Exit


@app.callback()
def settings(
    _: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_say_version, help="Print the version and exit."),
    ] = False,
    store_timeout: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            max=86_400,
            callback=_number,
            metavar="SECONDS",
            help="Longest wait for an answer from a bucket. (default: EMBANK_STORE_TIMEOUT, else 30)",
        ),
    ] = None,
) -> None:
    if store_timeout is not None:
        from stores.backends.deadlines import TIMEOUT_VARIABLE

        os.environ[TIMEOUT_VARIABLE] = str(store_timeout)  # so that workers of this machine know it


# --- the machine and the first run ------------------------------------------------------------------


@app.command()
def doctor(json: Json = False) -> None:
    """What this machine can do, what is missing, and how to mend it."""
    from engine import doctor as examination
    from engine.report import console

    findings = examination.examine()
    report = examination.report(findings)
    if json:
        console.print_json(report)
    else:
        console.print_table(
            ["", "what", "found", "remedy"],
            [
                [{"ok": "ok", "absent": "--", "broken": "!!"}[f.status], f.name, f.detail, f.remedy]
                for f in findings
            ],
        )
        verdict = (
            "The main job runs here."
            if report["ok"]
            else "The main job cannot run: mend the lines marked !!."
        )
        print(verdict)
    if not report["ok"]:
        raise typer.Exit(MachineFault.exit_code)


@app.command()
def quickstart(
    dir: Annotated[Path, typer.Option(help="Folder for what is made.")] = Path("quickstart"),
    json: Json = False,
) -> None:
    """The main job on real pictures and real weights, offline: manifest, embed, evaluate."""
    from engine.quickstart import run
    from engine.report import console
    from stores.bank.records import together

    with console.embed_progress(quiet=json) as update, _terminable(), together() as batch:
        result = run(dir, on_progress=update, say=console.say)
    if json:
        console.print_json(result.to_dict())
        _say_undone(batch)
        return
    for table in (result.fewshot, result.probes):
        console.print_table(table.columns, table.rows, title=table.title)
    for what, path in result.paths.items():
        print(f"{what:12} {path}")
    print()
    print("Run it again: nothing is embedded twice. Next: your own images, see `embank embed --help`.")
    _say_undone(batch)


# --- manifests --------------------------------------------------------------------------------------


@manifest_app.command("folder")
def manifest_folder(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="A folder for each class, images inside.")],
    out: Out,
    split_folders: Annotated[
        bool, typer.Option("--split-folders", help="The layout is SPLIT/CLASS/FILE, e.g. train/normal/1.png.")
    ] = False,
    hash_files: Annotated[
        bool,
        typer.Option(
            "--hash", help="Record every file's SHA-256: silent damage is then found when embedding."
        ),
    ] = False,
    group_pattern: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Takes the patient out of each path, e.g. '(p[0-9]+)_'. (default: no patients)",
        ),
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Make a manifest from class-per-folder images."""
    from stores.manifest.manifest import Manifest
    from stores.outputs import check_manifest

    check_manifest(out, force=force)
    manifest = Manifest.from_folder(
        root, split_folders=split_folders, hash_files=hash_files, group_pattern=group_pattern
    )
    _write_manifest(manifest, out, json)


@manifest_app.command("table")
def manifest_table(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="CSV or Parquet with one row an image.")],
    out: Out,
    uri: Annotated[str, typer.Option(help="Column with the image's path.")] = "uri",
    id: Annotated[str | None, typer.Option(help="Column with a unique id. (default: the path)")] = None,
    label: Annotated[str | None, typer.Option(help="Column with the label.")] = None,
    split: Annotated[str | None, typer.Option(help="Column with train, val, test.")] = None,
    group: Annotated[
        str | None, typer.Option(help="Column with what must not straddle a split (patient).")
    ] = None,
    root: Root = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Make a manifest from any table that names image files."""
    from stores.manifest.manifest import Manifest
    from stores.outputs import check_manifest

    check_manifest(out, force=force, inputs=[table])
    manifest = Manifest.from_table(table, id=id, uri=uri, label=label, split=split, group=group, root=root)
    _write_manifest(manifest, out, json)


@manifest_app.command("build")
def manifest_build(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A name from `embank datasets list`.")],
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="The data set's folder, as downloaded.")],
    out: Out,
    mode: Annotated[
        str, typer.Option(help="default, or as-published: the study's label rules and splits.")
    ] = "default",
    uncertain: Annotated[
        str | None, typer.Option(help="Uncertain labels: ignore, zeros, ones or soft; as -O uncertain=...")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("-O", "--option", metavar="NAME=VALUE", help="See `embank datasets show`; repeat."),
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Make the manifest of a data set of the catalogue; embedded ones write their images to ROOT."""
    from engine import datasets
    from stores.outputs import check_manifest

    check_manifest(out, force=force, root=root)
    options = _name_values(option or [])
    if uncertain is not None:
        options["uncertain"] = uncertain
    _write_manifest(datasets.build(dataset, root, mode, options), out, json)


def _name_values(words: list[str]) -> dict[str, str]:
    pairs = [word.partition("=") for word in words]
    for word, (name, equals, _) in zip(words, pairs, strict=True):
        if not (name and equals):
            raise Refused(f"-O {word!r}", "It reads NAME=VALUE", "write for instance -O seed=1")
    return {name: value for name, _, value in pairs}


@manifest_app.command("check")
def manifest_check(
    manifest: ManifestPath,
    root: Root = None,
    content: Annotated[
        bool, typer.Option("--content", help="Also read every file: no image, damage, duplicates.")
    ] = False,
    json: Json = False,
) -> None:
    """Missing files, duplicate content, patients across splits, class counts."""
    from engine.report import console
    from stores.manifest.check import check

    listed = _read_manifest(manifest, root)
    fault_of = None
    if content:
        from engine.decode.soundness import fault_finder
        from engine.decode.source import ImageSource

        fault_of = fault_finder(ImageSource(listed.root, listed.uris))
    with _terminable(), console.probe_progress() as progress:
        update = progress("manifest check")
        report = check(
            listed,
            content=content,
            fault_of=fault_of,
            progress=lambda done, total: update("files", done, total),
        )
    if json:
        console.print_json(report.to_dict())
    else:
        console.print_table(
            ["split", "label", "images"],
            [
                [split or "-", label or "(none)", n]
                for split, counts in report.class_counts.items()
                for label, n in counts.items()
            ],
        )
        for problem in report.problems:
            print(f"{problem.severity}: {problem.text}. Remedy: {problem.remedy}.")
            for example in problem.examples:
                print(f"  {example}")
        if not report.problems:
            print("No problem found.")
    if any(problem.severity == "error" for problem in report.problems):
        raise typer.Exit(Refused.exit_code)


@manifest_app.command("split")
def manifest_split(
    manifest: ManifestPath,
    out: Out,
    ratios: Annotated[
        str | None,
        typer.Option(
            metavar="TRAIN[,VAL],TEST", help="Shares of the images, e.g. 0.7,0.1,0.2; or give --folds."
        ),
    ] = None,
    folds: Annotated[
        int | None, typer.Option(min=2, help="Parts of equal size, numbered from 0 in the column fold.")
    ] = None,
    fold: Annotated[
        int | None,
        typer.Option(min=0, help="With --folds: this one is the split test, the others are train."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed gives another cut.")] = 0,
    stratify: Annotated[bool, typer.Option("--stratify/--no-stratify", help="Cut each class alike.")] = True,
    replace_split: Annotated[
        bool, typer.Option("--replace-split", help="Replace the split that the manifest has already.")
    ] = False,
    root: Root = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Give a manifest a split or folds: by patient (column group), by label, the same whatever the order."""
    from engine.report import console
    from stores.manifest.manifest import Manifest
    from stores.manifest.split import CutOptions, split_manifest
    from stores.outputs import check_manifest

    shares = _shares(ratios) if ratios is not None else None
    options = CutOptions(shares, folds, fold, seed, stratify, replace_split)
    check_manifest(out, force=force, inputs=[manifest])
    cut = split_manifest(Manifest.read(manifest, root=root, allow_outside=True), options)  # opens no image
    _write_manifest(cut.manifest, out, json, {"by": cut.by, "splits": cut.splits, "folds": cut.folds})
    if not json:
        for name, parts in (("split", cut.splits), ("fold", cut.folds)):
            rows = [
                [part, label or "(none)", images, counts["groups"] if label == first else ""]
                for part, counts in parts.items()
                for first in [next(iter(counts["classes"]))]
                for label, images in counts["classes"].items()
            ]
            if rows:
                patients = "patients" if cut.by == "group" else "images in all"
                console.print_table([name, "label", "images", patients], rows)


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise Refused(
            f"--ratios {text[:60]!r}",
            "They are numbers with commas between",
            "write for instance 0.7,0.1,0.2",
        ) from None


def _write_manifest(manifest: "Manifest", out: Path, json: bool, more: dict[str, Any] | None = None) -> None:
    from engine.report import console
    from stores.backends.location import place
    from stores.outputs import make_folder, refuse_csv_outside

    if isinstance(place(out), Path):
        if out.suffix.lower() == ".csv":
            refuse_csv_outside(out, manifest.root)
        make_folder(out.absolute().parent)
    manifest.write(out)
    classes = manifest.classes
    for note in manifest.notes:
        console.say(note)
    if json:
        result = {
            "manifest": out,
            "rows": len(manifest),
            "classes": sorted(classes),
            "digest": manifest.digest,
            **(more or {}),
        }
        console.print_json(result)
    else:
        print(f"{out}: {len(manifest):,} images, {len(classes)} classes, digest {manifest.digest[:12]}")


def _read_manifest(path: Path, root: Path | None, allow_outside: bool = False) -> "Manifest":
    from engine.report import console
    from stores.manifest.manifest import Manifest

    manifest = Manifest.read(path, root=root, allow_outside=allow_outside)
    for note in manifest.notes:
        console.say(note)
    return manifest


# --- the main job -----------------------------------------------------------------------------------


@app.command()
def embed(
    manifest: ManifestPath,
    model: Annotated[
        list[str],
        typer.Option("--model", help="Slug (see `embank models list`); repeat for models in one pass."),
    ],
    bank: Annotated[
        str,
        typer.Option(
            metavar="BANK", help="Directory of the bank, or its URL (s3://, gs://, az://); made if absent."
        ),
    ],
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            metavar="FILE|SLUG=FILE",
            help="State dict (.pth, .safetensors): one for each --model, or for those named by SLUG=.",
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(
            "--name",
            metavar="NAME|SLUG=NAME",
            help="What to call the features, as --weights. (default: SLUG)",
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Name or JSON file of another preprocessing than the weights' own.")
    ] = None,
    depth: Annotated[
        str | None,
        typer.Option(help="For more than 8 bits: scale, voi (DICOM's own window) or window:LOW,HIGH."),
    ] = None,
    deep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="As --depth, for rows that fail without; the others and the key stay as they are. Repeat: "
            "the first that fits.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    precision: PrecisionName = PrecisionName.auto,
    decoder: DecoderName = DecoderName.auto,
    dct: Annotated[
        bool,
        typer.Option(
            "--dct",
            help="Let the JPEG decoder scale: much faster on large files, at most 0.5/255 off on average.",
        ),
    ] = False,
    dtype: Annotated[StoredType, typer.Option(help="Of the stored embeddings.")] = StoredType.float16,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="(default: 256 on CUDA, 32 on the CPU)")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="(default: all usable cores)")] = None,
    chunk_rows: Annotated[
        int | None, typer.Option(min=1, help="Rows a chunk of a new bank: the unit of commit and resume.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of random/NAME weights.")] = 0,
    compile: Annotated[
        bool, typer.Option("--compile", help="Put the backbone through torch.compile.")
    ] = False,
    certify: Annotated[
        bool,
        typer.Option(
            "--certify", help="Measure the run against Pillow and the plain model in fp32; kept in the bank."
        ),
    ] = False,
    max_failed: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            callback=_number,
            help="Exit with 1 if more rows failed; do not start if more are missing.",
        ),
    ] = 0.01,
    max_pixels: Annotated[int, typer.Option(min=1, help="Largest image decoded.")] = 64_000_000,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again the rows that failed because of their image.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Compare every image embedded before with its file, not a random sample."
        ),
    ] = False,
    accept_changed: Annotated[
        bool,
        typer.Option(
            "--accept-changed", help="Images have changed: make features of them beside the old ones."
        ),
    ] = False,
    workers: Workers = 0,
    scheduler: Scheduler = None,
    root: Root = None,
    allow_outside: AllowOutside = False,
    json: Json = False,
) -> None:
    """Embed every image with every model. Run it again to resume; finished rows are never computed twice."""
    from engine.decode.source import Limits
    from engine.embed.run import EmbedOptions, InputChecks
    from engine.embed.run import embed as run
    from engine.report import console
    from engine.runtime import Runtime

    options = EmbedOptions(
        decoder=decoder,
        dct=dct,
        dtype=dtype,
        batch_size=batch_size,
        chunk_rows=chunk_rows,
        limits=Limits(max_pixels=max_pixels),
        allow_outside=allow_outside,
    )
    names = _by_model("--name", "name", name or [], model)
    specs = _resolve_models(model, weights or [], recipe, seed)
    if depth is not None:
        specs = [replace(spec, recipe=spec.recipe.showing(depth)) for spec in specs]
    if deep:
        specs = [replace(spec, recipe=replace(spec.recipe, deep=tuple(deep))) for spec in specs]
    images = _read_manifest(manifest, root, allow_outside)
    with _terminable(), _executor(workers, scheduler, device) as executor:
        settings = (device, precision, threads or _share(workers), seed, compile)
        runtime = executor.ask(Runtime.resolve, *settings) if executor else Runtime.resolve(*settings)
        with console.embed_progress(quiet=False) as update:
            reports = run(
                images,
                specs,
                bank,
                runtime=runtime,
                options=options,
                checks=InputChecks(max_failed, check, accept_changed, retry_failed),
                executor=executor,
                on_progress=update,
                names=names,
            )
    results = [report.to_dict() for report in reports]
    if certify:
        from engine.embed.certify import certify as measure

        here = Runtime.resolve(device, precision, threads, seed, compile)
        for spec, result in zip(specs, results, strict=True):
            result["certificate"] = measure(
                images, spec, bank, runtime=here, options=options, feature=result["feature"]
            )
    _print_embed(results, json)
    for note in dict.fromkeys(note for result in results for note in result["notes"]):
        console.say(f"{note}.")
    if any(result["failed"] + result["pending"] > max_failed * result["rows"] for result in results):
        console.say(
            f"More than {max_failed:.1%} of the rows failed or are not embedded; "
            f"`embank bank show {bank} --failures` lists them."
        )
        raise typer.Exit(EXIT_FAILED_ROWS)


@contextlib.contextmanager
def _executor(workers: int, scheduler: str | None, device: str) -> "Iterator[Executor | None]":
    """Who computes: this process (None), processes of this machine, or a scheduler's workers."""
    from engine import executors
    from engine.report import console
    from engine.runtime import cuda_available

    if workers and scheduler:
        raise Refused("--workers and --scheduler", "Either says who computes", "leave one out")
    if scheduler:
        with executors.remote(scheduler, say=console.say) as found:
            yield found
    elif workers:
        cuda = device != "cpu" and cuda_available()
        with executors.local(workers, cuda=cuda, say=console.say) as found:
            yield found
    else:
        yield None


def _share(workers: int) -> int | None:
    """Threads of each of several processes on this machine; None, all, for one alone."""
    from engine.runtime import usable_cores

    return max(1, usable_cores() // workers) if workers else None


def _by_model(option: str, what: str, words: list[str], slugs: list[str]) -> list[str | None]:
    """Assign the values of an option to models: SLUG=VALUE to one, plain values to all, in order."""
    parts = [word.partition("=") for word in words]
    addressed = {slug: value for slug, equals, value in parts if equals and slug in slugs}
    if not words or (len(addressed) == len(words) and all(addressed.values())):
        return [addressed.get(slug) for slug in slugs]
    if addressed or len(words) != len(slugs):
        raise Refused(
            f"{option} {', '.join(words)} for --model {', '.join(slugs)}",
            f"Give one {what} for each model, in the same order, or each as {option} SLUG={what.upper()}",
            f"write for instance {option} {slugs[0]}={what.upper()}",
        )
    return list(words)


def _resolve_models(slugs: list[str], weights: list[str], recipe: str | None, seed: int) -> list[Any]:
    from engine.models import resolve
    from engine.recipes import load_recipe

    chosen = _by_model("--weights", "file", weights, slugs)
    if len(set(slugs)) != len(slugs):
        raise Refused(
            f"models {slugs}", "Each model is named once", "drop the repetition, or embed in two commands"
        )
    override: Recipe | None = load_recipe(recipe) if recipe else None
    files = [Path(word) if word else None for word in chosen]
    return [resolve(s, weights=w, recipe=override, seed=seed) for s, w in zip(slugs, files, strict=True)]


def _print_embed(results: list[dict[str, Any]], json: bool) -> None:
    from engine.report import console

    if json:
        console.print_json(results if len(results) > 1 else results[0])
        return
    busy = [r for r in results if r["embedded"]]
    if busy:
        columns = ["model", "rows", "ok", "failed", "pending", "embedded now", "img/s", "decoder"]
        names = ("title", "rows", "ok", "failed", "pending", "embedded", "img_per_s", "decoder", "precision")
        rows = [[*(r[name] for name in names), r["key"][:12]] for r in busy]
        console.print_table([*columns, "precision", "key"], rows)
    for r in results:
        if not r["embedded"]:
            print(_nothing_to_do(r))
    for r in results:
        if r["failures"]:
            reasons = ", ".join(f"{code} {n:,}" for code, n in r["failures"].items())
            print(f"{r['title']}: rows without embedding by reason: {reasons}")
        if r["pending"]:
            print(f"  {r['pending']:,} are not embedded yet; the same command tries them again")
        if "certificate" in r:
            print(f"{r['title']}: {_certificate(r['certificate'])}")


def _nothing_to_do(r: dict[str, Any]) -> str:
    """What a run says of features for which it had nothing to compute."""
    done = f"{r['title']}: nothing {'could be embedded' if r['pending'] else 'to do'}"
    if r["failed"] or r["pending"]:
        done += f": {r['ok']:,} of {r['rows']:,} images were embedded before"
    else:
        done += f": all {r['rows']:,} images were embedded before"
    if r["failed"]:
        done += f"; {r['failed']:,} failed then, and --retry-failed tries them again"
    return f"{done} (key {r['key'][:12]})"


def _certificate(found: dict[str, Any]) -> str:
    if found["n"] == found["undefined"] == 0:
        return "no certificate, since no image of the sample could be read"
    undefined = f"{found['undefined']} images have no cosine: an embedding is NaN, infinite or all zero"
    if found["n"] == 0:
        return undefined
    return (f"{undefined}; " if found["undefined"] else "") + (
        f"pixels {found['pixels']['mean']:.4f}/255 from Pillow on average; cosine to Pillow's embeddings "
        f"in fp32 at least {found['embedding']['min_cosine']:.6f} (n = {found['n']})"
        f"{_independence(found['deep'])}"
    )


def _independence(deep: dict[str, Any]) -> str:
    """What the certificate says of deep images, whose truth is to be another reader's."""
    if not deep["images"]:
        return ""
    missing = deep["images"] - deep["independent"]
    readers = f" by {', '.join(deep['readers'])}" if deep["readers"] else ""
    return f"; of {deep['images']} deep images {deep['independent']} were read independently{readers}" + (
        f", {missing} by embank's own code (install imagecodecs, tifffile and SimpleITK)" if missing else ""
    )


class _terminable:
    """Turn SIGTERM into KeyboardInterrupt, and KeyboardInterrupt into a resumable end."""

    def __enter__(self) -> "_terminable":
        from engine.report.process import interrupt

        self._before = signal.signal(signal.SIGTERM, interrupt)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        signal.signal(signal.SIGTERM, self._before)
        if kind is KeyboardInterrupt:
            from engine.report.process import say_stopped

            say_stopped()
            raise typer.Exit(EXIT_INTERRUPTED)


# --- banks ------------------------------------------------------------------------------------------


@bank_app.command("ls")
def bank_ls(bank: BankPath, json: Json = False) -> None:
    """The features a bank holds."""
    from engine.report import console
    from stores.bank.reader import Bank

    infos = Bank.open(bank).list()
    if json:
        console.print_json([_info(i) for i in infos])
        return
    console.print_table(
        ["name", "feature", "rows", "dim", "dtype", "ok", "failed", "pending", "MiB", "sealed"],
        [
            [
                i.title,
                i.name,
                i.rows,
                i.dim,
                i.dtype,
                i.ok,
                i.failed,
                i.pending,
                i.bytes / 2**20,
                "yes" if i.sealed else "no",
            ]
            for i in infos
        ],
    )


def _info(info: Any) -> dict[str, Any]:
    return {**{k: v for k, v in vars(info).items() if k != "key"}, "key": info.key.to_dict()}


@bank_app.command("show")
def bank_show(
    bank: BankPath,
    model: ModelFilter = None,
    failures: Annotated[
        bool, typer.Option("--failures", help="List failed rows with their reasons.")
    ] = False,
    json: Json = False,
) -> None:
    """What made the features: key, provenance, certificate, failures."""
    from engine.report import console
    from stores.bank.reader import Bank

    store = Bank.open(bank)
    chosen = store.select(model)
    shown = [store.describe(info.name, failures=failures) for info in store.list() if info.name in chosen]
    if json:
        console.print_json(
            {"bank": str(bank), "rows": store.rows, "chunk_rows": store.chunk_rows, "features": shown}
        )
        return
    print(f"{bank}: {store.rows:,} rows in chunks of {store.chunk_rows:,}")
    for one in shown:
        print()
        print(one["name"] + f" ({one['title']})" * (one["title"] != one["name"]))
        for section in ("key", "counts", "provenance", "certificate"):
            for field, value in (one.get(section) or {}).items():
                print(f"  {section}.{field}: {value}")
        for failure in one.get("failures", ()):
            print(f"  row {failure['row']}: {failure['code']}: {failure['detail']}")


@bank_app.command("verify")
def bank_verify(bank: BankPath, model: ModelFilter = None, json: Json = False) -> None:
    """Re-hash every file against its seal. Exit 0 if whole, 1 if damaged."""
    from engine.report import console
    from stores.maintenance.verify import verify

    report = verify(bank, features=[model] if model else None)
    if json:
        console.print_json(report.to_dict())
    elif report.ok:
        print(f"{bank}: {report.chunks:,} chunks verified, no damage")
    else:
        _print_damage([(damage.path, damage.reason, damage.remedy) for damage in report.damaged])
        print(f"{len(report.damaged)} damaged files; `embank bank repair {bank}` mends what it can")
    if not report.ok:
        raise typer.Exit(EXIT_FAILED_ROWS)


def _print_damage(damaged: list[tuple[str, str, str]]) -> None:
    for path, reason, _ in damaged:
        print(f"{path}: {reason}")
    for remedy in dict.fromkeys(remedy for _, _, remedy in damaged):
        print(f"  remedy: {remedy}.")


@bank_app.command("repair")
def bank_repair(
    bank: BankPath,
    weights: Annotated[Path | None, typer.Option(help="The weights file, if it has moved.")] = None,
    root: BankRoot = None,
    manifest: Annotated[
        Path | None, typer.Option(help="The bank's manifest, to be put back where it is lost or damaged.")
    ] = None,
    device: DeviceOption = "auto",
    json: Json = False,
) -> None:
    """Compute damaged chunks again; put back those that come out as they were promised."""
    from engine.embed.repair import repair
    from engine.report import console

    given = _read_manifest(manifest, None, allow_outside=True) if manifest else None
    with _terminable(), console.embed_progress(quiet=json) as update:
        result = repair(bank, weights=weights, root=root, device=device, given=given, on_progress=update)
    if json:
        console.print_json(result)
    else:
        _print_repair(bank, result)
        _print_damage([(each["path"], each["reason"], each["remedy"]) for each in result["remaining"]])
    if not result["ok"]:
        raise typer.Exit(EXIT_FAILED_ROWS)


def _print_repair(bank: str, r: dict[str, Any]) -> None:
    print(
        f"{bank}: {r['damaged']} damaged files, {r['recomputed']} chunks put back, "
        f"{'no damage left' if r['ok'] else 'still damaged'}"
    )
    if r["quarantined"]:
        print(f"moved to {bank}/.embank/quarantine: {', '.join(r['quarantined'])}")
    for left in r["unrepaired"]:
        chunks = "".join(f", chunk {index}" for index in left["chunks"])
        print(f"left as it is: {left['feature']}{chunks}: {left['reason']}")
        print(f"  remedy: {left['remedy']}.")


@bank_app.command("export")
def bank_export(
    bank: BankPath,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="(default: BANK-export)")] = None,
    model: ModelFilter = None,
    format: ExportFormat = ExportFormat.npy,
    force: Force = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", hidden=True)] = False,  # its name until 0.2
    json: Json = False,
) -> None:
    """Write embeddings, status and manifest as npy or Parquet files."""
    from engine.report import console
    from stores.bank.export import export_all
    from stores.bank.reader import Bank

    store = Bank.open(bank)
    beside = store.path.parent if isinstance(store.path, Path) else Path()
    target = out or beside / f"{store.path.name}-export"
    chosen = store.select(model)
    infos = [info for info in store.list() if info.name in chosen]
    if not infos:
        raise Refused(f"{bank} has no features", "An export takes what is there", "run `embank embed` first")
    features = [store.features(info.name) for info in infos]
    written = export_all(features, target, format, overwrite=force or overwrite)
    if json:
        console.print_json({"bank": str(bank), "files": [str(path) for path in written]})
    else:
        for path in written:
            print(path)


@bank_app.command("rename")
def bank_rename(
    bank: BankPath,
    feature: FeatureWord,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it from now on.")],
    json: Json = False,
) -> None:
    """Call a feature by another name in tables, figures and messages; its files and records stay."""
    from engine.report import console
    from stores.bank.names import Roster, give
    from stores.bank.reader import Bank

    store = Bank.open(bank)
    roster = Roster.of(store.path)
    full = roster.one(feature)
    give(store.path, {full: name})
    before, title = roster.title(full), store.title(full)
    if json:
        console.print_json({"bank": bank, "feature": full, "before": before, "title": title})
    else:
        print(f"{full}: {title}, before {before}")


@bank_app.command("rm")
def bank_rm(
    bank: BankPath,
    feature: FeatureWord,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    json: Json = False,
) -> None:
    """Remove one feature with its caches, sealed, unfinished or damaged; records and other features stay."""
    from engine.report import console
    from stores.maintenance.remove import removable, remove

    chosen = removable(bank, feature)
    size = f"{chosen.bytes / 2**20:,.1f} MiB"
    if not yes:
        _demand_yes(f"Remove {chosen.title} ({chosen.feature}, {size}) from {bank} for good?")
    report = remove(chosen)
    if json:
        console.print_json(report)
    else:
        print(f"{bank}: removed {chosen.title} ({chosen.feature}), {size}")


def _demand_yes(question: str) -> None:
    """Ask on the terminal. Raises Refused unless the answer is yes."""
    if not sys.stdin.isatty():
        raise Refused(question, "There is no terminal to ask on", "say --yes if it is meant")
    if not typer.confirm(question, err=True):
        raise Refused("The answer was no", "Nothing is removed without a yes", "answer y if it is meant")


@bank_app.command("prune")
def bank_prune(
    bank: BankPath,
    max_size: Annotated[
        str, typer.Option("--max-size", help="What may stay, e.g. 10GB: the most recently used. (default: 0)")
    ] = "0",
    json: Json = False,
) -> None:
    """Remove caches (views, occlusion maps, statistics, copies from buckets): what can be made again."""
    from engine.report import console
    from stores.bank.caches import prune, size

    report = prune(bank, size(max_size))
    if json:
        console.print_json(report)
        return
    console.print_table(
        ["cache", "removed", "MiB"],
        [[kind, of["files"], of["bytes"] / 2**20] for kind, of in report["removed"].items()],
    )
    print(
        f"{report['removed_bytes'] / 2**20:,.1f} MiB removed, {report['kept_bytes'] / 2**20:,.1f} MiB kept"
        + (f"; copies from buckets of all banks lie in {report['cache']}" if report["cache"] else "")
    )


@bank_app.command("relabel")
def bank_relabel(
    bank: BankPath,
    manifest: ManifestPath,
    out: Annotated[str, typer.Option("--out", "-o", metavar="NEW", help="The new bank, or its URL.")],
    model: Annotated[
        list[str] | None,
        typer.Option("--model", help="Slug or feature name; repeat for several. (default: all)"),
    ] = None,
    json: Json = False,
) -> None:
    """The same features under other labels, splits and groups: a new bank, and nothing computed again."""
    from engine.embed.relabel import relabel
    from engine.report import console

    labels = _read_manifest(manifest, None, allow_outside=True)  # its files are not opened
    with _terminable(), console.transfer_progress(out) as update:
        report = relabel(bank, labels, out, features=model, on_progress=update)
    if json:
        console.print_json(report)
        return
    _print_relabel(report)


def _print_relabel(r: dict[str, Any]) -> None:
    from engine.report import console

    count = len(r["features"])
    print(
        f"{r['bank']}: {count} feature{'' if count == 1 else 's'} of {r['rows']:,} images, "
        f"{r['named']:,} of them in the manifest (matched by {r['matched_by']}), "
        f"{r['unlabelled']:,} without label"
    )
    for name in r["unfinished"]:
        print(f"left out, not finished: {name}")
    if not r["in_order"]:
        print("The rows keep the order of the old bank; what is drawn `as-published` follows it.")
    console.print_table(["label", "images"], [[name, images] for name, images in r["classes"].items()])


@bank_app.command("audit")
def bank_audit(
    bank: BankPath,
    model: Annotated[str, typer.Option("--model", help="Slug or feature name.")],
    threshold: Annotated[float, typer.Option(help="Least cosine similarity of a pair.")] = 0.99,
    max_pairs: Annotated[int, typer.Option(help="The most pairs listed; all are counted.")] = 10_000,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write the pairs here: .csv, .parquet, .json or .tex."),
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Draw the most similar pairs here: .png, .svg or .pdf.")
    ] = None,
    force: Force = False,
    root: BankRoot = None,
    device: DeviceOption = "auto",
    json: Json = False,
) -> None:
    """Near-duplicate images, and what leaks across splits. Findings are results: exit 0."""
    from engine.evals.common.compute import evaluation_device
    from engine.evals.neighbours.audit import audit, write_pairs
    from engine.report import console
    from stores.bank.reader import Bank
    from stores.bank.records import together
    from stores.outputs import TABLES

    _check_output(out, bank, "bank audit", force, kinds=TABLES)
    _check_output(sheet, bank, "bank audit", force)
    pictures = None
    if sheet:
        from engine.report.sheets import audit_sheet, pictures_of

        pictures = pictures_of(bank, model, root=root)
    undone: list[Exception] = []
    drawn: dict[str, Any] = {}
    with together() as batch:
        found = audit(bank, model, threshold=threshold, max_pairs=max_pairs, device=evaluation_device(device))
        image_ids = Bank.open(bank).manifest().image_ids if out or sheet else []
        if sheet and pictures is not None:
            with _noting(undone):
                drawn = {"unreadable": audit_sheet(pictures, image_ids, found, sheet), "sheet": sheet}
    report = {**found.report, **drawn}
    if out:
        with _noting(undone):
            write_pairs(found, image_ids, out)
            report["file"] = out
    if json:
        console.print_json(report)
    else:
        _print_audit(report)
    _say_undone(batch, undone)


def _print_audit(r: dict[str, Any]) -> None:
    from engine.report import console

    same, groups, unknown = r["identical"], r["groups"], r["unknown"]
    rows: list[list[Any]] = [
        ["pairs", r["pairs"], f"of {r['images_in_pairs']:,} images"],
        ["  across splits", r["across_splits"], f"{unknown['split']:,} with an image in no split"],
        ["  of different labels", r["different_label"], f"{unknown['label']:,} with an unlabelled image"],
        ["  of different groups", r["different_group"], f"{unknown['group']:,} with an image of no group"],
        ["  of the same group", r["same_group"], ""],
        ["images with an identical embedding", same["images"], f"in {same['groups']:,} sets"],
        ["  sets across splits", same["groups_across_splits"], ""],
        ["groups (patients) in several splits", groups["across_splits"], f"of {groups['total']:,}"],
        ["  images of these", groups["images_of_these"], ""],
        ["  more, if case, zeros and .0 are nothing", groups["across_splits_by_spelling"], ""],
    ]
    print(f"{r['model']}: {r['images']:,} images ({r['masked']:,} masked), cosine >= {r['threshold']:g}")
    console.print_table(["", "found", ""], rows)
    for name in ("file", "sheet"):
        if name in r:
            print(f"{name}: {r[name]}")


# --- evaluations ------------------------------------------------------------------------------------


def _check_output(
    out: Path | None,
    bank: str,
    command: str,
    force: bool,
    *,
    kinds: tuple[str, ...] | None = None,
    inputs: tuple[Path | None, ...] = (),
    root: Path | None = None,
) -> None:
    """Refuse an output before anything is computed; kinds are pictures unless said otherwise."""
    from stores.outputs import PICTURES, check_file

    if out is None:
        return

    def images() -> "Images":
        from stores.bank.reader import Bank
        from stores.outputs import Images

        of_bank = Images.of(Bank.open(bank).manifest())
        return Images(root, of_bank.uris) if root else of_bank

    check_file(out, kinds or PICTURES, command=command, force=force, inputs=inputs, images=images)


@contextlib.contextmanager
def _noting(undone: list[Exception]) -> Iterator[None]:
    """Note an output that cannot be written, so that the numbers are printed all the same.

    An image that has changed is no such case: it is a refusal, before a record is kept.
    """
    from engine.errors import ChangedImage

    try:
        yield
    except ChangedImage:
        raise
    except (EmbankError, OSError) as error:
        undone.append(error)


def _say_undone(batch: "Batch", undone: list[Exception] | tuple[()] = ()) -> None:
    """Say, after the numbers, which record or output they have not; exit 3 unless the bank is read-only."""
    from engine.report import console

    for lost in batch.lost:
        console.say(f"No record was kept. {lost}")
    for error in undone:
        console.say(f"Not written. {error}")
    if undone or not all(lost.exit_code == Refused.exit_code for lost in batch.lost):
        raise typer.Exit(MachineFault.exit_code)


GroupDisjoint = Annotated[
    bool | None,
    typer.Option(
        "--group-disjoint/--no-group-disjoint",
        help="Keep the images of a group (patient) apart. (default: where groups are known)",
    ),
]


@app.command()
def fewshot(
    bank: BankPath,
    model: Annotated[list[str], typer.Option("--model", help="Slug or feature name; repeat for several.")],
    n_way: Annotated[
        int | None, typer.Option(help="Classes an episode. (default: 5, or all if they are fewer)")
    ] = None,
    n_shot: Annotated[int, typer.Option(help="Support images a class.")] = 20,
    n_query: Annotated[int, typer.Option(help="Query images a class.")] = 15,
    episodes: int = 600,
    seed: int = 0,
    distance: Annotated[str, typer.Option(help="sqeuclidean, cosine or centred.")] = "sqeuclidean",
    mode: Annotated[
        str, typer.Option(help="default, or as-published: the study's pool and interval.")
    ] = "default",
    split: Annotated[str | None, typer.Option(help="Images of this split only. (default: all)")] = None,
    group_disjoint: GroupDisjoint = None,
    patient_disjoint: Annotated[bool, typer.Option("--patient-disjoint", hidden=True)] = False,
    cap: Annotated[int | None, typer.Option(help="Images a class at most. (default: all)")] = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Resamples of an interval over patients; 0 for none.")
    ] = 0,
    backend: Annotated[str, typer.Option(help="auto, array or faiss; the same answers.")] = "auto",
    device: Annotated[
        str, typer.Option(help="auto (the CPU, which is done before a GPU has started), cpu, cuda or cuda:N.")
    ] = "auto",
    json: Json = False,
) -> None:
    """Prototype few-shot accuracy with its 95 % interval, from the bank alone; models in pairs."""
    # Before numpy is imported: the kernel has threads of its own, and each calls single-threaded products.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from engine.evals.fewshot.bank import fewshots_from_bank
    from engine.evals.fewshot.evaluate import Protocol
    from engine.report import console

    if patient_disjoint:
        group_disjoint = _renamed("--patient-disjoint", "--group-disjoint", group_disjoint)
    protocol = Protocol(n_way, n_shot, n_query, episodes, seed, distance, mode, group_disjoint, cap)
    from stores.bank.records import together

    with together() as batch:
        results = fewshots_from_bank(
            bank, model, protocol, split=split, backend=backend, device=device, bootstrap=bootstrap
        )
    if json:
        console.print_json(results if len(results) > 1 else results[0])
    else:
        _print_fewshot(results)
    _say_undone(batch)


def _renamed(old: str, new: str, value: bool | None) -> bool:
    """Take an option by its old name, which works for one release more."""
    from engine.report import console

    if value is False:
        raise Refused(
            f"{old} with {new.replace('--', '--no-', 1)}", "One says the opposite", "drop one of them"
        )
    console.say(f"{old} is now called {new}; the old name will go with the next release.")
    return True


def _print_notes(results: list[dict[str, Any]]) -> None:
    """Each sentence once, whichever models it is on."""
    for note in dict.fromkeys(note for r in results for note in r["notes"]):
        print(f"{note}.")


def _over_patients(found: dict[str, Any], places: str = ".4f") -> str:
    """An interval over patients, or why there is none."""
    if reason := found.get("reason"):
        return f"no interval over patients: {reason}"
    return f"{found['low']:{places}} to {found['high']:{places}} over {found['groups']:,} patients"


def _print_fewshot(results: list[dict[str, Any]]) -> None:
    for r in results:
        apart = "patients apart, " if r["group_disjoint"] else ""
        print(
            f"{r['model']}: {r['n_way']}-way {r['n_shot']}-shot accuracy {r['accuracy']:.4f} "
            f"± {r['ci95']:.4f} ({r['episodes']} episodes, {apart}{r['images']:,} images, "
            f"{r['masked']:,} masked, {r['seconds']:.2f} s)"
        )
        _print_splits(r)
        if r["patients"]["groups"]:
            print(f"  {_over_patients(r['patients'])}")
        if boot := r.get("bootstrap"):
            spread = boot.get("reason") or f"{boot['low']:.4f} to {boot['high']:.4f}"
            print(f"  {boot['resamples']:,} resamples of {boot['groups']:,} patients or images: {spread}")
    for at, r in enumerate(results):
        for p in r["paired"][at:]:
            patients = p["patients"]
            beside = f"; {_over_patients(patients, '+.4f')}" if patients["groups"] else ""
            over = "the same episodes" if beside else "the same episodes of the same images only"
            print(
                f"{r['model']} - {p['model']}: {p['difference']:+.4f} ± {p['ci95']:.4f} over {over}{beside}"
            )
    _print_notes(results)


def _print_splits(r: dict[str, Any]) -> None:
    """Which split was taken for which word, and the images of splits that were not asked for."""
    from engine.evals.common.splits import others_note

    for note in (*r["split_notes"], others_note(r["other_splits"])):
        if note:
            print(f"  {note}")


class DistanceName(StrEnum):
    cosine = "cosine"
    euclidean = "euclidean"


class BackendName(StrEnum):
    auto = "auto"
    array = "array"
    faiss = "faiss"


class VoteName(StrEnum):
    uniform = "uniform"
    temperature = "temperature"


class IndexName(StrEnum):
    exact = "exact"
    ivf = "ivf"
    cagra = "cagra"


OneModel = Annotated[str, typer.Option("--model", help="Slug or feature name.")]
DistanceOption = Annotated[DistanceName, typer.Option(help="Between embeddings.")]
BackendOption = Annotated[BackendName, typer.Option(help="All give the same answers.")]


@app.command()
def knn(
    bank: BankPath,
    model: Annotated[list[str], typer.Option("--model", help="Slug or feature name; repeat for several.")],
    k: Annotated[
        list[int] | None,
        typer.Option(
            "-k", "--k", help="Neighbours that vote; the first given is the headline. (default: 20, others)"
        ),
    ] = None,
    distance: DistanceOption = DistanceName.cosine,
    weights: Annotated[
        VoteName | None,
        typer.Option(help="Of the votes. (default: temperature for cosine, uniform for euclidean)"),
    ] = None,
    temperature: Annotated[float, typer.Option(help="T of the weights exp(similarity / T).")] = 0.07,
    train_split: Annotated[str, typer.Option(help="The images that vote.")] = "train",
    test_split: Annotated[str, typer.Option(help="The images that are classified.")] = "test",
    leave_one_out: Annotated[
        bool, typer.Option("--leave-one-out", help="Classify every image by all others.")
    ] = False,
    group_disjoint: GroupDisjoint = None,
    backend: BackendOption = BackendName.auto,
    device: DeviceOption = "auto",
    json: Json = False,
) -> None:
    """Classify by nearest neighbours: accuracy, mean per-class accuracy, AUROC, from the bank alone."""
    from engine.evals.common.compute import evaluation_device
    from engine.evals.neighbours.knn import KnnOptions, knn_from_bank
    from engine.report import console
    from engine.runtime import usable_cores

    options = KnnOptions(
        k=tuple(k or ()),
        distance=distance.value,
        weights=weights.value if weights else None,
        temperature=temperature,
        group_disjoint=group_disjoint,
        backend=backend.value,
        device=evaluation_device(device),
        threads=usable_cores(),
    )
    from stores.bank.records import together

    parts: dict[str, Any] = {"train_split": train_split, "test_split": test_split}
    with together() as batch:
        results = [knn_from_bank(bank, m, options, **parts, leave_one_out=leave_one_out) for m in model]
    if json:
        console.print_json(results if len(results) > 1 else results[0])
    else:
        for r in results:
            _print_knn(r)
        _print_notes(results)
    _say_undone(batch)


def _print_knn(r: dict[str, Any]) -> None:
    from engine.report import console

    parts = "leave-one-out" if r["leave_one_out"] else f"{r['train_split']} to {r['test_split']}"
    parts += ", patients apart" if r["group_disjoint"] else ""
    masked = ", ".join(f"{n:,} {reason.replace('_', ' ')}" for reason, n in r["masked"].items())
    console.print_table(
        ["k", "accuracy", "mean per class", "AUROC"],
        [[m["k"], m["accuracy"], m["mean_per_class_accuracy"], m["auroc"]] for m in r["by_k"]],
    )
    print(
        f"{r['model']}: {parts}, {r['distance']} distance, {r['weights']} votes",
        f"{r['test_images']:,} images classified by {r['train_images']:,}, {r['classes']} classes; masked: "
        f"{masked}; {r['backend']}, {r['seconds']:.2f} s",
        sep="\n",
    )
    _print_splits(r)
    if reason := r["test"].get("auroc_reason"):
        print(f"AUROC: {reason}.")
    if r["unseen_classes"]:
        print(f"{r['unseen_classes']} classes are tested but have no image that votes.")


class SelectName(StrEnum):
    accuracy = "accuracy"
    mean_per_class = "mean-per-class"
    auroc = "auroc"
    log_loss = "log-loss"


class ClassWeightName(StrEnum):
    none = "none"
    balanced = "balanced"


class SolverName(StrEnum):
    lockstep = "lockstep"
    sklearn = "sklearn"
    cuml = "cuml"


class ModeName(StrEnum):
    default = "default"
    as_published = "as-published"


class UncertainName(StrEnum):
    ignore = "ignore"
    zeros = "zeros"
    ones = "ones"


class BlankName(StrEnum):
    ignore = "ignore"
    zeros = "zeros"


@app.command()
def probe(
    bank: BankPath,
    model: Annotated[list[str], typer.Option("--model", help="Slug or feature name; repeat for several.")],
    label: Annotated[
        list[str] | None,
        typer.Option("--label", help="Column to learn; repeat for several. (default: label)"),
    ] = None,
    multi_label: Annotated[
        bool, typer.Option("--multi-label", help="The columns are findings: learn all of them in one run.")
    ] = False,
    uncertain: Annotated[
        UncertainName | None,
        typer.Option(
            help="Columns are findings; cells of -1 become this. (default: ignore; zeros as-published)"
        ),
    ] = None,
    blank: Annotated[
        BlankName | None,
        typer.Option(
            help="Columns are findings; empty cells become this. (default: ignore; zeros as-published)"
        ),
    ] = None,
    c_min: Annotated[float, typer.Option(help="Smallest C: the strongest regularisation.")] = 1e-5,
    c_max: Annotated[
        float, typer.Option(help="Largest inverse regularisation C; 1/C is weight decay.")
    ] = 1e6,
    values: Annotated[int, typer.Option(help="Values of C tried, evenly spaced in log C.")] = 45,
    select: Annotated[
        SelectName | None,
        typer.Option(help="Validation score that chooses C. (default: accuracy; auroc with --multi-label)"),
    ] = None,
    standardise: Annotated[
        bool, typer.Option("--standardise/--no-standardise", help="By mean and deviation of the rows fitted.")
    ] = True,
    class_weight: Annotated[
        ClassWeightName, typer.Option(help="balanced gives every class the same weight.")
    ] = ClassWeightName.none,
    train_split: Annotated[str, typer.Option(help="The images that are fitted.")] = "train",
    val_split: Annotated[str, typer.Option(help="The images that choose C.")] = "val",
    test_split: Annotated[str, typer.Option(help="The images that are tested.")] = "test",
    val_fraction: Annotated[
        float, typer.Option(help="Of the train patients, to choose C where no split is for that.")
    ] = 0.2,
    holdout: Annotated[
        bool, typer.Option("--holdout", help="No test split: hold out a fifth of the train patients.")
    ] = False,
    low_shot: Annotated[
        str | None, typer.Option(help="Also train on so many images a class, e.g. 1,2,5,10.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="Draws of --low-shot.")] = 5,
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Resamples of the test patients for 95 % intervals; 0 for none.")
    ] = 1000,
    mode: Annotated[
        ModeName, typer.Option(help="as-published: the study's grid order, warm starts and 100 iterations.")
    ] = ModeName.default,
    backend: Annotated[
        SolverName, typer.Option(help="All minimise the same objective.")
    ] = SolverName.lockstep,
    device: DeviceOption = "auto",
    workers: Workers = 0,
    scheduler: Scheduler = None,
    seed: Annotated[int, typer.Option(help="Of the cuts, draws and resamples.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Draw validation score against C here: .png, .svg or .pdf."),
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Logistic probes on frozen features: C chosen on validation, refitted, tested; from the bank alone."""
    from engine.evals.common.compute import evaluation_device
    from engine.evals.probe.bank import BankProbe, probes_from_bank
    from engine.evals.probe.evaluate import ProbeOptions
    from engine.evals.probe.lowshot import LowShot
    from engine.evals.probe.parts import SplitOptions
    from engine.evals.probe.selection import grid
    from engine.evals.probe.targets import Policies
    from engine.report import console
    from engine.runtime import usable_cores
    from stores.bank.records import together

    _check_output(out, bank, "probe", force)
    options = ProbeOptions(
        C=grid(c_min, c_max, values),
        standardise=standardise,
        class_weight=class_weight.value,
        select=select.value if select else None,
        mode=mode.value,
        backend=backend.value,
        bootstrap=bootstrap,
        seed=seed,
        device=evaluation_device(device),
        threads=_share(workers) or usable_cores(),
    )
    policies = None
    if multi_label or uncertain or blank:
        # The study's uncertain cells became 0, as its blank ones were.
        usual: Literal["zeros", "ignore"] = "zeros" if mode is ModeName.as_published else "ignore"
        policies = Policies(uncertain.value if uncertain else usual, blank.value if blank else usual)
    asked = BankProbe(
        labels=tuple(label or ("label",)),
        multi_label=multi_label,
        policies=policies,
        splits=SplitOptions(train_split, val_split, test_split, val_fraction, holdout, seed, mode.value),
        low_shot=LowShot.parse(low_shot, seeds, seed) if low_shot else None,
    )
    with (
        together() as batch,
        _executor(workers, scheduler, device) as executor,
        console.probe_progress() as on_progress,
    ):
        results = probes_from_bank(bank, model, asked, options, executor=executor, on_progress=on_progress)
    undone: list[Exception] = []
    if out:
        from engine.report.probes import probe_figure

        with _noting(undone):
            probe_figure(results, out)
    drawn = None if undone else out
    if json:
        shown = [{**result, "plot": drawn} if out else result for result in results]
        console.print_json(shown if len(shown) > 1 else shown[0])
    else:
        _print_probe(results, drawn)
    for result in results:
        if not result["converged"]:
            console.say(f"{result['model']}, {result['label']}: not every fit converged; see the notes.")
    _say_undone(batch, undone)


def _print_probe(results: list[dict[str, Any]], out: Path | None) -> None:
    from engine.report import console
    from engine.report.notes import ProbeNotes

    fits = [{**each, "model": r["model"]} for r in results for each in (*r.get("findings", ()), r)]
    columns = ["model", "label", "C", "1/C", fits[-1]["select"] + " (val)", "accuracy", "95 %", "per class"]
    console.print_table([*columns, "AUROC", "converged"], [_probe_row(each) for each in fits])
    notes = ProbeNotes()
    for r in results:
        if "images" in r:
            parts = ", ".join(f"{n:,} {part}" for part, n in r["images"].items())
            masked = ", ".join(f"{n:,} {reason}" for reason, n in r["masked"].items())
            print(f"{r['model']}, {r['label']}: {parts} images; masked: {masked}; {r['seconds']:.2f} s")
        for each in (r, *r.get("findings", ())):
            if each is not r and "masked" in each:
                masked = ", ".join(f"{n:,} {reason}" for reason, n in each["masked"].items())
                print(f"  {each['label']}: masked: {masked}")
            for note in (note for note in each.get("notes", ()) if notes.prints(note, each)):
                print(f"  {'' if each is r else each['label'] + ': '}{note}")
            if reason := each.get("test", {}).get("auroc_reason"):
                print(f"  AUROC: {reason}")
            if reason := each.get("test", {}).get("intervals", {}).get("accuracy", {}).get("reason"):
                print(f"  interval: {reason}")
    for r in results:
        _print_low_shot(r)
    if out:
        print(f"{out}: validation score against C")


def _probe_row(r: dict[str, Any]) -> list[Any]:
    if "test" not in r:
        return [r["model"], r["label"], *["-"] * 8]
    test, mean = r["test"], r["best_C"] is None
    interval = test.get("intervals", {}).get("accuracy")
    return [
        r["model"],
        "mean" if mean else r["label"],
        "" if mean else f"{r['best_C']:.3g}",
        "" if mean else f"{r['weight_decay']:.3g}",
        r["val_score"],
        test["accuracy"],
        ""
        if not interval
        else "undefined"
        if "reason" in interval
        else f"{interval['low']:.3f}-{interval['high']:.3f}",
        test["mean_per_class_accuracy"],
        test["auroc"],
        "yes" if r["converged"] else "NO",
    ]


def _print_low_shot(r: dict[str, Any]) -> None:
    from engine.report import console

    if not r.get("low_shot"):
        return
    rows = [
        [each["shots"], each["images"]]
        + [f"{each[name]['mean']:.4f} ± {each[name]['ci95']:.4f}" for name in ("accuracy", "auroc")]
        for each in r["low_shot"]["curve"]
    ]
    title = f"{r['model']}, {r['label']}: mean of {r['low_shot']['seeds']} seeds"
    console.print_table(["images a class", "images", "accuracy", "AUROC"], rows, title=title)


@app.command()
def search(
    bank: BankPath,
    model: OneModel,
    image: Annotated[Path | None, typer.Option(help="An image file to search with.")] = None,
    id: Annotated[str | None, typer.Option(help="The id of an image of the bank to search with.")] = None,
    k: Annotated[int, typer.Option("-k", "--k", help="Neighbours listed.")] = 10,
    keep_query: Annotated[
        bool,
        typer.Option("--keep-query", help="List the query as well, if it is an image of the bank."),
    ] = False,
    distance: DistanceOption = DistanceName.cosine,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Draw a contact sheet here: .png, .svg or .pdf.")
    ] = None,
    force: Force = False,
    index: Annotated[
        IndexName, typer.Option(help="ivf and cagra are approximate; their recall is measured and printed.")
    ] = IndexName.exact,
    backend: BackendOption = BackendName.auto,
    weights: Annotated[Path | None, typer.Option(help="The weights file, if it has moved.")] = None,
    root: BankRoot = None,
    device: DeviceOption = "auto",
    json: Json = False,
) -> None:
    """The images of a bank nearest to one of them, or to an image file."""
    from engine.evals.neighbours.search import search as run
    from engine.report import console
    from stores.bank.records import together

    _check_output(out, bank, "search", force, inputs=(image, weights))
    pictures = None
    if out:
        from engine.report.sheets import pictures_of, search_sheet

        pictures = pictures_of(bank, model, root=root)
    undone: list[Exception] = []
    drawn: dict[str, Any] = {}
    with together() as batch:
        result = run(
            bank,
            model,
            image=image,
            image_id=id,
            k=k,
            distance=distance.value,
            index=index.value,
            backend=backend.value,
            weights=weights,
            device=device,
            keep_query=keep_query,
        )
        if out and pictures is not None:
            with _noting(undone):
                drawn = {"unreadable": search_sheet(pictures, result, out, image=image), "sheet": out}
    report = {**result.report, **drawn}
    if json:
        console.print_json(report)
    else:
        _print_search(report, result.found, image or id)
    _say_undone(batch, undone)


def _print_search(report: dict[str, Any], found: Any, query: Path | str | None) -> None:
    from engine.report import console

    print(f"Nearest to {query} by {report['model']} ({report['distance']} distance)")
    console.print_table(
        ["rank", "image", "label", "split", "group", "distance"],
        [[f.rank, f.image_id, f.label, f.split, f.group, f.distance] for f in found],
    )
    if (same := report["query"].get("in_bank")) and not report["query_listed"]:
        names = ", ".join(f"{each['image_id']} (row {each['row']})" for each in same[:5])
        print(f"The query itself is {names}: not listed (--keep-query lists it)")
    if report["masked"]:
        print(f"{report['images']:,} images searched, {report['masked']:,} without an embedding left out")
    k = report["k"]
    if (recall := report.get(f"recall_at_{k}")) is not None:
        measured = report["recall_measured_on"]
        print(f"{report['index']}: recall@{k} {recall:.4f}, measured on {measured} images")
    if sheet := report.get("sheet"):
        print(f"{sheet}: query and {len(found)} neighbours, {report['unreadable']} pictures unreadable")


class Fp32OrBf16(StrEnum):
    fp32 = "fp32"
    bf16 = "bf16"


class BatchNormName(StrEnum):
    eval = "eval"
    train = "train"


@app.command()
def saliency(
    source: Annotated[
        str, typer.Argument(metavar="BANK|MANIFEST", help="A bank's directory or URL, or a manifest.")
    ],
    model: OneModel,
    weights: Annotated[
        Path | None, typer.Option(help="State dict instead of the bank's or the slug's.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Name or JSON file of another preprocessing than the weights' own.")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="How many, drawn by --seed. (default: 8; as-published: 1)")
    ] = None,
    id: Annotated[list[str] | None, typer.Option(help="These images instead; repeat.")] = None,
    mode: Annotated[
        str, typer.Option(help="default, or as-published: one image, the study's settings.")
    ] = "default",
    size: Annotated[int, typer.Option(min=1, help="Side of the square, pixels.")] = 10,
    stride: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Pixels from place to place; 1 is exact, and the study's. "
            "(default: 8 on the CPU, where 1 takes hours; 1 on a GPU and as-published)",
        ),
    ] = None,
    fill: Annotated[
        str, typer.Option(help="0 (after normalisation), mean (the image's colour), or R,G,B.")
    ] = "0",
    batch_norm: Annotated[
        BatchNormName, typer.Option(help="train: each occluded image's own statistics (as-published only).")
    ] = BatchNormName.eval,
    precision: Annotated[
        Fp32OrBf16, typer.Option(help="bf16 is faster; its error is measured and recorded.")
    ] = Fp32OrBf16.fp32,
    device: DeviceOption = "auto",
    threads: Annotated[int | None, typer.Option(min=1, help="(default: all usable cores)")] = None,
    seed: Annotated[int, typer.Option(help="Of the draw, and of random/NAME weights.")] = 0,
    root: Root = None,
    allow_outside: AllowOutside = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder for overlays (PNG) and maps (npy); needed with a manifest."),
    ] = None,
    shared_scale: Annotated[
        bool, typer.Option("--shared-scale", help="One colour scale for all overlays, so that they compare.")
    ] = False,
    force: Force = False,
    max_failed: Annotated[
        float,
        typer.Option(min=0, max=1, callback=_number, help="Exit with 1 if a larger share of images failed."),
    ] = 0.01,
    json: Json = False,
) -> None:
    """Occlusion maps and attentive diffusion. Run it again to resume; finished maps are kept."""
    from engine.evals.saliency.evaluate import saliency as run
    from engine.evals.saliency.images import open_images
    from engine.evals.saliency.options import SaliencyOptions
    from engine.recipes import load_recipe
    from engine.report import progress as counting
    from engine.runtime import Runtime
    from stores.bank.records import together

    options = SaliencyOptions(
        mode=mode,
        size=size,
        stride=stride,
        fill=fill,
        batch_norm=batch_norm.value,
        images=images,
        ids=tuple(id or ()),
        seed=seed,
    )
    runtime = Runtime.resolve(device, precision.value, threads, seed)
    chosen = open_images(
        source,
        model,
        weights=weights,
        recipe=load_recipe(recipe) if recipe else None,
        seed=seed,
        root=root,
        allow_outside=allow_outside,
        home=out,
    )
    gallery, undone = None, list[Exception]()
    if out:
        from engine.report.overlays import About, Gallery, refuse_strangers
        from stores.outputs import Images, check_folder

        check_folder(out)
        refuse_strangers(out, Images.of(chosen.manifest), force=force)
        stride = options.on(runtime.on_cuda).stride or 1
        gallery = Gallery(out, About(chosen.title, stride, size), shared=shared_scale)

    def add(one: Any) -> None:
        with _noting(undone):
            if gallery and not undone:
                gallery.add(one)

    with _terminable(), counting.saliency_progress() as update, together() as batch:
        report = run(
            chosen,
            options,
            runtime=runtime,
            on_progress=update,
            on_map=add,
            on_estimate=counting.say_estimate,
        )
    if gallery:
        with _noting(undone):
            gallery.finish()
        report["files"] = gallery.files
    _print_saliency(report, json)
    _say_undone(batch, undone)
    if report["failed"] > max_failed * report["images"]:
        raise typer.Exit(EXIT_FAILED_ROWS)


def _print_saliency(r: dict[str, Any], json: bool) -> None:
    from engine.report import console

    if json:
        console.print_json(r)
        return
    console.print_table(
        ["image", f"attentive diffusion, stride {r['stride']}", "mean score", "largest error", "reason"],
        [
            [
                item["image_id"],
                item["attentive_diffusion"],
                item.get("mean_score", ""),
                item["error"]["max_error"] if "error" in item else "",
                f"{item['reason']}: {item['detail']}" if "reason" in item else "",
            ]
            for item in r["items"]
        ],
    )
    between = r["interval"]
    spread = between.get("reason") or f"{between['low']:.4f} to {between['high']:.4f} over images or patients"
    print(
        f"{r['model']} (weights {r['weights'][:8]}): attentive diffusion {r['mean']:.4f}, "
        f"sd {r['sd']:.4f}, 95 %: {spread}; "
        f"{r['images']} images, {r['failed']} failed",
        f"{r['size']} x {r['size']} at stride {r['stride']}, fill {r['fill']}, {r['places']:,} places an "
        f"image, {r['precision']}; {r['computed']} maps computed, {r['seconds']:.1f} s",
        sep="\n",
    )
    if error := r["stride_error"]:
        print(_stride_error_line(error))
    for note in r["notes"]:
        print(note)
    for path in r.get("files", ()):
        print(path)


def _stride_error_line(error: dict[str, Any]) -> str:
    if "reason" in error:
        return f"distance from the exact map (stride 1): not known: {error['reason']}"
    return (
        f"distance from the exact map (stride 1): {error['mean_error']:.2g} on average, at most "
        f"{error['max_error']:.2g}, where the exact map is {error['mean_score']:.2g} on average; "
        f"{error['other_side']:.1%} of pixels lie on the other side of the mean "
        f"({error['pixels']:,} pixels of {error['image_id']})"
    )


@app.command()
def invariance(
    bank: BankPath,
    model: OneModel,
    transform: Annotated[
        list[str] | None,
        typer.Option("--transform", help="One of the study's 18, repeat for several; or all."),
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="Images scored. (default: 100, or half of a smaller bank)")
    ] = None,
    views: Annotated[
        int, typer.Option(min=1, help="Of each image, where a transform does not fix it.")
    ] = 256,
    shrinkage: Annotated[
        str | None,
        typer.Option(
            help="ledoit-wolf, ridge=VALUE, components=COUNT, none. (default: the first; study: ridge=1e-6)"
        ),
    ] = None,
    products: Annotated[
        str, typer.Option(help="float64, or float32: faster; the factor stays float64.")
    ] = "float64",
    mode: Annotated[str, typer.Option(help="default, or as-published: as the study's code.")] = "default",
    batchnorm: Annotated[
        BatchNormName,
        typer.Option("--batch-norm", help="train: statistics of the batch (as-published only)."),
    ] = BatchNormName.eval,
    multi_view: Annotated[
        bool,
        typer.Option("--multi-view", help="Compare two views of a study instead; opens no image."),
    ] = False,
    pair: Annotated[
        str | None, typer.Option(help="FIRST,SECOND of the column view. (default: the only two)")
    ] = None,
    same_label: Annotated[
        bool, typer.Option("--same-label", help="With --multi-view: pairs of one label only.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the images drawn.")] = 0,
    weights: Annotated[Path | None, typer.Option(help="The weights file, if it has moved.")] = None,
    root: BankRoot = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Draw a contact sheet of views here: .png, .svg or .pdf."),
    ] = None,
    figure: Annotated[
        Path | None, typer.Option(help="Draw cosines over the parameters here: .png, .svg or .pdf.")
    ] = None,
    force: Force = False,
    device: DeviceOption = "auto",
    json: Json = False,
) -> None:
    """How alike features stay when images are transformed. Run it again to resume; view features are kept."""
    from engine.report import console
    from stores.bank.records import together
    from stores.outputs import refuse_twice

    for path in (out, figure):
        _check_output(path, bank, "invariance", force, inputs=(weights,), root=root)
    refuse_twice(out, figure)
    asked = {"images": images, "regularisation": shrinkage, "arithmetic": products, "seed": seed}
    if multi_view:
        drawn = [
            name for name, given in (("--transform", transform), ("-o", out), ("--figure", figure)) if given
        ]
        if drawn or mode != "default" or batchnorm != BatchNormName.eval:
            raise Refused(
                f"--multi-view with {', '.join(drawn) or 'another mode'}",
                "It compares stored features and makes no views",
                "leave one of them out",
            )
        with together() as batch:
            report = _multi_view(bank, model, pair, same_label, device, asked)
        if json:
            console.print_json(report)
        else:
            _print_invariances([report])
        _say_undone(batch)
        return
    if pair or same_label:
        raise Refused("--pair or --same-label", "They choose pairs", "add --multi-view")
    with together() as batch:
        results = _invariances(
            bank, model, transform or [], views, mode, batchnorm.value, weights, root, device, asked
        )
        undone = _draw_invariances(results, out, figure)
    reports = [result.report for result in results]
    if json:
        console.print_json(reports if len(reports) > 1 else reports[0])
    else:
        _print_invariances(reports)
    _say_undone(batch, undone)


def _draw_invariances(results: list[Any], out: Path | None, figure: Path | None) -> list[Exception]:
    undone: list[Exception] = []
    if out:
        from engine.report.views import views_sheet

        with _noting(undone):
            views_sheet(results, out)
    if figure:
        from engine.report.views import invariance_figure

        with _noting(undone):
            invariance_figure(results, figure)
    return undone


def _multi_view(
    bank: str, model: str, pair: str | None, same_label: bool, device: str, asked: dict[str, Any]
) -> dict[str, Any]:
    from engine.evals.common.compute import evaluation_device
    from engine.evals.invariance.multiview import MultiViewOptions, multiview_from_bank
    from engine.kernels.whitening import Regularisation

    names = tuple(pair.split(",")) if pair else None
    if names is not None and len(names) != 2:
        raise Refused(f"pair {pair!r}", "It is FIRST,SECOND", "name two values of the column view")
    asked["regularisation"] = Regularisation.parse(asked["regularisation"] or "ledoit-wolf")
    options = MultiViewOptions(pair=names, same_label=same_label, **asked)
    return multiview_from_bank(bank, model, options, device=evaluation_device(device))


def _invariances(
    bank: str,
    model: str,
    transform: list[str],
    views: int,
    mode: str,
    batchnorm: str,
    weights: Path | None,
    root: Path | None,
    device: str,
    asked: dict[str, Any],
) -> list[Any]:
    from engine.evals.invariance.evaluate import invariances_from_bank
    from engine.evals.invariance.options import InvarianceOptions
    from engine.kernels.transforms import TRANSFORMS
    from engine.kernels.whitening import Regularisation
    from engine.report import console

    every = transform == ["all"]
    text = asked["regularisation"]
    asked["regularisation"] = Regularisation.parse(text) if text else None
    options = InvarianceOptions(
        transforms=tuple(TRANSFORMS) if every else tuple(transform),
        views=views,
        mode=mode,  # type: ignore[arg-type]
        batch_norm=batchnorm,  # type: ignore[arg-type]
        **asked,
    )
    with _terminable(), console.embed_progress() as update:
        progress: Any = update
        return invariances_from_bank(
            bank,
            model,
            options,
            weights=weights,
            root=root,
            device=device,
            on_progress=progress,
            skip_undefined=every,
        )


def _print_invariances(reports: list[dict[str, Any]]) -> None:
    from engine.report import console

    columns = ["transform", "cosine", "± 95 %", "different images", "Mahalanobis", "images"]
    names = ("transform", "cosine", "ci95", "baseline", "mahalanobis", "n")
    rows = [["" if r.get(n) is None or r[n] != r[n] else r[n] for n in names] for r in reports]
    for row, r in zip(rows, reports, strict=True):
        row[1] = "undefined" if "reason" in r else row[1]
    console.print_table(columns, rows)
    first = reports[0]
    for c in first["covariance"] if isinstance(first["covariance"], list) else [first["covariance"]]:
        print(
            f"{first['model']}: covariance of {c['images']:,} images, {c['dimensions']:,} dimensions, "
            f"{c['regularisation']}, condition number {c['condition']:.3g}"
        )
    for r in reports:
        gone = {"failed": r["failed"]} if "failed" in r else r["left_out"]
        if any(gone.values()):
            named = ", ".join(f"{n:,} {why.replace('_', ' ')}" for why, n in gone.items() if n)
            print(f"{r['transform']}: left out: {named}")
        if "reason" in r:
            print(f"{r['transform']} is not defined: {r['reason']}.")
    for sentence in first.get("not_reproduced", []):
        print(f"not reproduced: {sentence}.")


# --- records ----------------------------------------------------------------------------------------


KindFilter = Annotated[
    str | None, typer.Option("--kind", help="embed, fewshot, knn, probe, invariance, ... (default: all)")
]


@records_app.command("ls")
def records_ls(
    bank: BankPath, kind: KindFilter = None, model: ModelFilter = None, json: Json = False
) -> None:
    """The records of a bank with their results, newest last. Exit 1 if one cannot be read."""
    from engine.report import console, records
    from stores.bank.record_index import read_index, select

    entries = select(bank, read_index(bank), kind, model)
    damaged = records.unreadable(entries)
    if json:
        shown = [records.to_dict(entry) for entry in entries if entry.record is not None]
        console.print_json({"bank": bank, "records": shown, "damaged": damaged})
    else:
        records.print_list(entries)
        _print_damage([(each["path"], each["reason"], each["remedy"]) for each in damaged])
    if damaged:
        raise typer.Exit(EXIT_FAILED_ROWS)


@records_app.command("show")
def records_show(
    bank: BankPath,
    record: Annotated[
        str,
        typer.Argument(metavar="RECORD", help="Its id from `records ls`, or a beginning that fits no other."),
    ],
    json: Json = False,
) -> None:
    """One record: what was asked, used and found, the seconds it took, and the versions."""
    from engine.report import console, records
    from stores.bank.record_index import record_of

    entry = record_of(bank, record)
    if json:
        console.print_json({"bank": bank, **records.full_dict(entry)})
    else:
        records.print_record(entry)


@records_app.command("export")
def records_export(
    bank: BankPath,
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write: .csv, .parquet or .json.")],
    kind: KindFilter = None,
    model: ModelFilter = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write records as a tidy table, a row for each value. Exit 1 if a record cannot be read."""
    from engine.report import console, records
    from stores.bank.record_index import read_index, select
    from stores.bank.record_table import ENDINGS, write_records

    _check_output(out, bank, "", force, kinds=ENDINGS)
    entries = select(bank, read_index(bank), kind, model)
    readable = [entry for entry in entries if entry.record is not None]
    if not readable:
        raise Refused(
            f"{bank} has no record that can be read",
            "An export takes what is there",
            "run an evaluation first",
        )
    rows = write_records(readable, out)
    damaged = records.unreadable(entries)
    if json:
        console.print_json(
            {"bank": bank, "file": out, "records": len(readable), "rows": rows, "damaged": damaged}
        )
    else:
        print(f"{out}: {rows:,} values of {len(readable):,} records")
        _print_damage([(each["path"], f"left out: {each['reason']}", each["remedy"]) for each in damaged])
    if damaged:
        raise typer.Exit(EXIT_FAILED_ROWS)


# --- catalogues -------------------------------------------------------------------------------------


@models_app.command("list")
def models_list(json: Json = False) -> None:
    """The rows of the catalogue, and the families that any NAME may come from."""
    from engine.models import catalogue
    from engine.report import console

    rows = catalogue()
    if json:
        console.print_json(rows)
    else:
        columns = ("slug", "variants", "weights", "present", "notes")
        console.print_table(columns, [[row[column] for column in columns] for row in rows])


@models_app.command("show")
def models_show(
    slug: str,
    weights: Annotated[Path | None, typer.Option(help="State dict to describe instead.")] = None,
    json: Json = False,
) -> None:
    """All that is known of a model: architecture, weights, preprocessing, feature, paper, licence."""
    from engine.models.catalog.lookup import describe
    from engine.report import console

    facts = describe(slug, weights=weights)
    if json:
        console.print_json(facts)
        return
    for field, value in facts.items():
        if not isinstance(value, dict):
            print(f"{field:16} {'' if value is None else value}")
            continue
        print(field)
        for name, inner in value.items():
            print(f"  {name:14} {inner}")


FromFile = Annotated[
    Path | None, typer.Option("--from-file", help="The published file, brought here by other means.")
]
PublishedSlug = Annotated[str, typer.Argument(metavar="SLUG", help="A slug from `embank models list`.")]


@models_app.command("fetch")
def models_fetch(slug: PublishedSlug, from_file: FromFile = None, json: Json = False) -> None:
    """Download a model's published weights, check and pin them, and convert them. Run it again to resume."""
    from engine.models.catalog.lookup import published
    from engine.models.checkpoints.checkpoint_cache import bring, convert, fitted
    from engine.report import console

    source, architecture = published(slug)
    if from_file is not None:  # a file that does not fit is not taken into the cache
        fitted(source, architecture, from_file)
    with _terminable(), console.transfer_progress(source.file) as update:
        bring(source, from_file=from_file, progress=update)
    _print_converted(convert(source, architecture), json)


@models_app.command("convert")
def models_convert(
    slug: PublishedSlug,
    from_file: FromFile = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Write here: .safetensors. (default: where `embed` looks for it)"),
    ] = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Convert a published file to safetensors again, with its provenance; nothing is downloaded."""
    from engine.models.catalog.lookup import published
    from engine.models.checkpoints.checkpoint_cache import convert
    from stores.outputs import check_file

    source, architecture = published(slug)
    if out is not None:
        for path, kind in ((out, ".safetensors"), (out.with_suffix(".json"), ".json")):
            check_file(path, (kind,), force=force, inputs=(from_file, source.source))
    _print_converted(convert(source, architecture, source=from_file, out=out), json)


def _print_converted(told: dict[str, Any], json: bool) -> None:
    from engine.report import console

    if json:
        console.print_json(told)
        return
    source = told["source"]
    print(
        f"{told['model']}: {told['tensors']} tensors in {told['file']}, SHA-256 {told['sha256'][:12]}, "
        f"from {source['file']} ({source['size']:,} bytes, SHA-256 {source['sha256'][:12]})"
    )


@datasets_app.command("list")
def datasets_list(json: Json = False) -> None:
    """The data sets that `manifest build` knows."""
    from engine import datasets
    from engine.report import console

    rows = [datasets.load(name).facts for name in datasets.available()]
    if json:
        console.print_json([asdict(facts) for facts in rows])
    else:
        console.print_table(
            ["name", "images", "classes", "modes", "title"],
            [
                [
                    f.name,
                    f.images or "yours",
                    len(f.classes.keys() - {""}) or "yours",
                    ", ".join(f.modes),
                    f.title,
                ]
                for f in rows
            ],
        )


@datasets_app.command("show")
def datasets_show(name: str, json: Json = False) -> None:
    """What to download from where, the layout, licence, counts, label rule, options and known traps."""
    from engine import datasets
    from engine.report import console

    facts = datasets.load(name).facts
    if json:
        console.print_json(asdict(facts))
    else:
        print(*datasets.page(facts).splitlines(), sep="\n")


# --- throughput -------------------------------------------------------------------------------------


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="A script of benchmarks/speed.")] = "",
) -> None:
    """Throughput, side by side with what one would use instead. Alone it lists the names.

    `bench NAME --help` lists the options of one.
    """
    import importlib

    from benchmarks import speed

    subjects = speed.subjects()
    if name in ("-h", "--help"):
        typer.echo(context.get_help())
    if name in ("", "-h", "--help"):
        from engine.report import console

        console.print_table(["NAME", "what it measures"], list(subjects.items()))
        return
    if name not in subjects:
        raise Refused(
            f"benchmark {name!r}",
            f"It is one of {', '.join(subjects)}",
            "name one of these; `embank bench` says what each measures",
        )
    sys.argv[0] = f"embank bench {name}"  # as its help calls it
    importlib.import_module(f"benchmarks.speed.{name}").main(context.args)


# --- errors, once -----------------------------------------------------------------------------------


def main(run: Callable[[], Any] = app) -> None:
    """Entry point: every error ends in its exit code, with value, rule and remedy on stderr."""
    from engine.report import process

    with process.guarded_errors():
        _run(run)


def _run(run: Callable[[], Any]) -> None:
    from engine.report import process

    try:
        with process.prepared():
            run()
    except EmbankError as error:
        from engine.report import console

        console.print_error(error)
        sys.exit(error.exit_code)
    except OSError as error:
        from engine.report import console

        console.print_error(
            MachineFault(
                f"{error.strerror or error} ({error.filename or 'no file named'})",
                "The machine must read and write its files",
                "mend it and run the same command; committed work is kept",
            )
        )
        sys.exit(MachineFault.exit_code)
    except Exception as error:  # memory and devices fail in every library, each with errors of its own
        from engine import faults
        from engine.report import console

        fault = faults.translate(error) or process.unexpected(error)
        console.print_error(fault)
        sys.exit(fault.exit_code)


if __name__ == "__main__":
    main()
