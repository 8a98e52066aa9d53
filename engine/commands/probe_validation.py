"""Options of `embank probe` for tests beyond one split: other banks, and folds."""

from typing import TYPE_CHECKING, Annotated

from engine.commands.declaring import WHAT, Options, option

if TYPE_CHECKING:
    from engine.evals.probe.external import External


class Validation(Options):
    """Options for external validation."""

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
