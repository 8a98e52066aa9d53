"""Options of `embank probe` for tests beyond one split: other banks, and folds."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from engine.commands.declaring import PROTOCOL, WHAT, Options, option

if TYPE_CHECKING:
    from engine.evals.probe.external import External
    from engine.evals.probe.fold_options import Folds


class Validation(Options):
    """Options for external validation and cross-validation."""

    external: Annotated[
        list[str] | None,
        option(WHAT, "--external", metavar="BANK ...", help="Other banks to test on; all labelled images."),
    ] = None
    external_split: Annotated[
        str | None,
        option(
            WHAT,
            "--external-split",
            metavar="SPLIT",
            help="Test this split of other banks.",
            show_default="all",
        ),
    ] = None
    matrix: Annotated[
        bool, option(WHAT, "--matrix", help="Also fit on each --external bank, and test on all others.")
    ] = False
    folds: Annotated[
        int | None,
        option(
            PROTOCOL,
            "--folds",
            min=2,
            help="Cross-validate by patient, stratified by class: all labelled images, whatever their split.",
            show_default="none",
        ),
    ] = None
    repeats: Annotated[
        int, option(PROTOCOL, "--repeats", min=1, help="Cut --folds so often, each time with the next seed.")
    ] = 1


def external_of(validation: Validation) -> "External":
    """Return the other banks to test on. Raises Refused for a split without a bank."""
    from engine.errors import Refused
    from engine.evals.probe.external import External

    if validation.external_split is not None and not validation.external:
        raise Refused(
            f"--external-split {validation.external_split} without --external",
            "It is a split of the banks that are tested on",
            "name one with --external BANK, or leave it out",
        )
    return External(tuple(validation.external or ()), validation.external_split)


def folds_of(validation: Validation, out: Path | None) -> "Folds | None":
    """Return how to cross-validate; None to use the splits.

    Raises:
        Refused: repeats without folds, or a figure of them.
    """
    from engine.errors import Refused
    from engine.evals.probe.fold_options import Folds

    if validation.folds is None:
        if validation.repeats > 1:
            raise Refused(
                f"--repeats {validation.repeats} without --folds", "Folds are repeated", "add --folds 5"
            )
        return None
    if out is not None:
        raise Refused(
            f"-o {out} with --folds", "The figure is of one sweep, and each fold has its own", "leave -o out"
        )
    return Folds(validation.folds, validation.repeats)
