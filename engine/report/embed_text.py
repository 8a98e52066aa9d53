"""What `embank embed` prints."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from engine.report import console
from engine.report.console import write as print

if TYPE_CHECKING:
    from engine.embed.report import Certificate, EmbedReportJson


def print_embed(results: "Sequence[EmbedReportJson]") -> None:
    busy = [r for r in results if r["embedded"]]
    if busy:
        counts = ("rows", "ok", "failed", "pending", "embedded now", "img/s")
        console.print_table(["model", *counts, "decoder", "precision", "key"], [_row(r) for r in busy])
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


def _row(r: "EmbedReportJson") -> list[str | int | float]:
    counts = (r["rows"], r["ok"], r["failed"], r["pending"], r["embedded"], r["img_per_s"])
    return [r["title"], *counts, r["decoder"], r["precision"], r["key"][:12]]


def _nothing_to_do(r: "EmbedReportJson") -> str:
    """Describe features for which a run had nothing to compute."""
    done = f"{r['title']}: nothing {'could be embedded' if r['pending'] else 'to do'}"
    if r["failed"] or r["pending"]:
        done += f": {r['ok']:,} of {r['rows']:,} images were embedded before"
    else:
        done += f": all {r['rows']:,} images were embedded before"
    if r["failed"]:
        done += f"; {r['failed']:,} failed then, and --retry-failed tries them again"
    return f"{done} (key {r['key'][:12]})"


def _certificate(parity: "Certificate") -> str:
    if parity["n"] == parity["undefined"] == 0:
        return "no certificate, since no image of the sample could be read"
    undefined = f"{parity['undefined']} images have no cosine: an embedding is NaN, infinite or all zero"
    if parity["n"] == 0:
        return undefined
    return (f"{undefined}; " if parity["undefined"] else "") + (
        f"pixels {parity['pixels']['mean']:.4f}/255 from Pillow on average; cosine to Pillow's embeddings "
        f"in fp32 at least {parity['embedding']['min_cosine']:.6f} (n = {parity['n']})"
        f"{_independence(parity['deep'])}"
    )


def _independence(deep: Mapping[str, Any]) -> str:
    """Describe how many deep images of the certificate another reader has read."""
    if not deep["images"]:
        return ""
    missing = deep["images"] - deep["independent"]
    readers = f" by {', '.join(deep['readers'])}" if deep["readers"] else ""
    return f"; of {deep['images']} deep images {deep['independent']} were read independently{readers}" + (
        f", {missing} by embank's own code (install imagecodecs, tifffile and SimpleITK)" if missing else ""
    )
