"""Checks that commands make before anything is computed, and inputs that several of them read."""

from pathlib import Path
from typing import TYPE_CHECKING

from stores.errors import Refused

if TYPE_CHECKING:
    from stores.manifest.manifest import Manifest
    from stores.outputs import Images


def check_output(
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


def check_curve_table(table: Path | None, bank: str, force: bool) -> None:
    """Refuse the table of a learning curve where another file is; it may replace an earlier such table."""
    if table is not None:
        from engine.report.learning_curves import is_table

        check_output(table, bank, "", force or is_table(table), kinds=(".csv",))


def read_manifest(path: Path, root: Path | None, allow_outside: bool = False) -> "Manifest":
    """Read a manifest, and print remarks about it."""
    from engine.report import console
    from stores.manifest.manifest import Manifest

    manifest = Manifest.read(path, root=root, allow_outside=allow_outside)
    for note in manifest.notes:
        console.say(note)
    return manifest


def by_model(option: str, what: str, words: list[str], slugs: list[str]) -> list[str | None]:
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
