"""What `embank bank` prints, except its audit."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.report import console
from engine.report.console import write as print

if TYPE_CHECKING:
    from engine.embed.relabel import RelabelReport
    from engine.embed.repair import RepairReport
    from stores.bank.caches import PruneReport


def print_damage(damaged: Sequence[Mapping[str, Any]]) -> None:
    """Print paths with the reason of their damage, then each remedy once.

    Args:
        damaged: `{path, reason, remedy}` each.
    """
    for file in damaged:
        print(f"{file['path']}: {file['reason']}")
    for remedy in dict.fromkeys(file["remedy"] for file in damaged):
        print(f"  remedy: {remedy}.")


def print_repair(bank: str, r: "RepairReport") -> None:
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


def print_relabel(r: "RelabelReport") -> None:
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


def print_features(infos: list[Any]) -> None:
    """Print the features of a bank (`stores.bank.reader.FeatureInfo`)."""
    columns = ["name", "feature", "rows", "dim", "dtype", "ok", "failed", "pending", "MiB", "finished"]
    names = ("title", "name", "rows", "dim", "dtype", "ok", "failed", "pending")
    console.print_table(
        columns,
        [
            [*(getattr(i, name) for name in names), i.bytes / 2**20, "yes" if i.sealed else "no"]
            for i in infos
        ],
    )


def print_descriptions(bank: str, rows: int, chunk_rows: int, shown: Sequence[Mapping[str, Any]]) -> None:
    """Print what made the features, and the failed rows if these were requested."""
    print(f"{bank}: {rows:,} rows in chunks of {chunk_rows:,}")
    for feature in shown:
        print()
        print(feature["name"] + f" ({feature['title']})" * (feature["title"] != feature["name"]))
        for section in ("key", "counts", "provenance", "certificate"):
            for field, value in (feature.get(section) or {}).items():
                print(f"  {section}.{field}: {value}")
        for failure in feature.get("failures", ()):
            print(f"  row {failure['row']}: {failure['code']}: {failure['detail']}")


def print_verified(bank: str, chunks: int, damaged: Sequence[Mapping[str, Any]]) -> None:
    """Print what a verification found."""
    if not damaged:
        print(f"{bank}: {chunks:,} chunks verified, no damage")
        return
    print_damage(damaged)
    print(f"{len(damaged)} damaged files; `embank bank repair {bank}` repairs what it can")


def print_removed(bank: str, title: str, feature: str, size: str) -> None:
    """Print which feature is gone."""
    print(f"{bank}: removed {title} ({feature}), {size}")


def print_renamed(feature: str, before: str, title: str) -> None:
    """Print a feature's new name and the one before."""
    print(f"{feature}: {title}, before {before}")


def print_pruned(r: "PruneReport") -> None:
    """Print which caches are gone."""
    console.print_table(
        ["cache", "removed", "MiB"],
        [[kind, of["files"], of["bytes"] / 2**20] for kind, of in r["removed"].items()],
    )
    print(
        f"{r['removed_bytes'] / 2**20:,.1f} MiB removed, {r['kept_bytes'] / 2**20:,.1f} MiB kept"
        + (f"; copies from buckets of all banks lie in {r['cache']}" if r["cache"] else "")
    )
