"""`embank perceptual`: LPIPS of images, pair by pair."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.commands.choices import Net
from engine.commands.declaring import PROTOCOL, WHAT, Options, option
from engine.commands.options import (
    AllowOutside,
    DepthRule,
    Device,
    Force,
    Json,
    MaxFailed,
    MaybeFile,
    PairsBatch,
    Threads,
)
from engine.commands.processes import terminable
from engine.commands.showing import end_with_failures, show
from stores.errors import Refused

if TYPE_CHECKING:
    from engine.evals.perceptual.options import PerceptualOptions
    from engine.evals.perceptual.result import PerceptualResult

_NETS = tuple(net.value for net in Net)

First = Annotated[Path, typer.Argument(metavar="A", help="An image, or a folder of images.")]
Second = Annotated[Path, typer.Argument(metavar="B", help="The other image, or the other folder.")]


class What(Options):
    """Options for images and networks."""

    net: Annotated[
        list[Net] | None, option(WHAT, "--net", help="Network of the distance.", show_default="all three")
    ] = None
    trunk: Annotated[
        list[str] | None,
        option(
            WHAT,
            metavar="NET=FILE ...",
            help="File of a network's ImageNet weights (torchvision's).",
            show_default="that of `embank models fetch`, or torch's cache",
        ),
    ] = None
    depth: DepthRule = None
    allow_outside: AllowOutside = False


class Protocol(Options):
    """Options for the rendering."""

    side: Annotated[
        int | None,
        option(
            PROTOCOL,
            min=1,
            help="Scale the short side of both images to N pixels and crop the centre.",
            show_default="224, as published",
        ),
    ] = None
    own_size: Annotated[
        bool,
        option(PROTOCOL, "--own-size", help="Compare at the images' own size, equal in each pair."),
    ] = False
    max_failed: MaxFailed = 0.01


class Machine(Options):
    """Options for the machine."""

    device: Device = "auto"
    batch_size: PairsBatch = 16
    threads: Threads = None


def perceptual(
    a: First,
    b: Second,
    what: What,
    protocol: Protocol,
    machine: Machine,
    out: MaybeFile = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Compute LPIPS of two images, or of two folders whose files have the same names.

    Files match by path without extension; one without a partner counts as failed. Repeat --net for several
    networks. -o takes the table of pairs: .csv, .parquet, .json or .tex.
    """
    from engine.report.perceptual_text import print_perceptual
    from stores.outputs import TABLES, check_file
    from stores.table_files import write_table

    options = _options(what, protocol, machine)
    if out is not None:
        check_file(out, TABLES, force=force, inputs=(a, b, *options.trunks.values()))
    result = _run(a, b, options, what, machine)
    if out is not None:
        write_table(result.columns(), out)
    report = result.to_dict()
    show(report, json, lambda: print_perceptual(report))
    end_with_failures(result.failed > protocol.max_failed * len(result.pairs))


def _run(a: Path, b: Path, options: "PerceptualOptions", what: What, machine: Machine) -> "PerceptualResult":
    from engine.evals.perceptual.evaluate import perceptual as compute
    from engine.report import console

    with terminable(), console.probe_progress() as named:
        update = named("LPIPS")
        return compute(
            a,
            b,
            options,
            device=machine.device,
            threads=machine.threads,
            allow_outside=what.allow_outside,
            on_progress=lambda done, todo: update("pairs", done, todo),
        )


def _options(what: What, protocol: Protocol, machine: Machine) -> "PerceptualOptions":
    from engine.evals.perceptual.options import STUDY_SIDE, PerceptualOptions
    from engine.models.perceptual import NETS

    if protocol.own_size and protocol.side is not None:
        raise Refused(
            f"--own-size and --side {protocol.side}", "Images have one size or the other", "leave one out"
        )
    return PerceptualOptions(
        nets=tuple(net.value for net in what.net) if what.net else NETS,
        side=None if protocol.own_size else protocol.side or STUDY_SIDE,
        depth=what.depth or "refuse",
        batch_size=machine.batch_size,
        trunks=_trunks(what.trunk or []),
    )


def _trunks(words: list[str]) -> dict[str, Path]:
    """Read NET=FILE words."""
    parts = [word.partition("=") for word in words]
    trunks = {net: Path(file) for net, _, file in parts if file}
    wrong = [word for word, (net, _, file) in zip(words, parts, strict=True) if not file or net not in _NETS]
    if wrong or len(trunks) < len(words):
        raise Refused(
            f"--trunk {' --trunk '.join(wrong or words)}",
            f"It is NET=FILE, once for a net; nets are {', '.join(_NETS)}",
            "write for instance --trunk alex=alexnet-owt-7be5be79.pth",
        )
    return trunks
