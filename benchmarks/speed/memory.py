"""Peak memory of embedding many images against few: it must not grow but for some bytes a row.

Each run is a fresh process on small generated pictures and a small backbone; the peak is the kernel's own
(VmHWM of /proc).
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.images import ImageClass, manifest_of, write_images
from benchmarks.speed.common import ROOT, Spread, finish, machine, markdown_table, parser, say

MANY, FEW = 224_316, 2_243
TARGET_BYTES = 300 * 2**20
TINY = ImageClass("tiny-32", 32, 32, quality=0)


def run(
    *,
    many: int = MANY,
    few: int = FEW,
    files: int = 300,
    model: str = "random/shufflenet_v2_x0_5",
    batch_size: int = 64,
    rounds: int = 1,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Embed `few` and `many` rows, each in a process of its own, and compare the peaks.

    Args:
        many, few: rows.
        files: different pictures; the rows go round and round them.
        model: slug; its recipe is 32 pixels.
        batch_size: of both.
        rounds: times that the pair is run.
        folder: for images and banks; None takes a temporary one.

    Returns:
        `{few, many: {rows, peak_bytes, seconds}, growth_bytes, bytes_per_row, target_bytes, ok}`, with
        peaks and growth as {n, median, min, max}.
    """
    facts = machine()
    peaks: dict[int, list[dict[str, float]]] = {few: [], many: []}
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        paths = write_images(work, TINY, files)
        for rows in (few, many):
            manifest_of(paths, work, rows).write(work / f"{rows}.parquet")
        for turn in range(rounds):
            for rows in (few, many):
                peaks[rows].append(_child(work, rows, turn, model, batch_size))
                say(f"{rows:,} rows: {peaks[rows][-1]['peak_bytes'] / 2**20:,.0f} MiB")
    growth = [b["peak_bytes"] - a["peak_bytes"] for a, b in zip(peaks[few], peaks[many], strict=True)]
    return {
        "machine": facts,
        "model": model,
        "batch_size": batch_size,
        "few": _of(few, peaks[few]),
        "many": _of(many, peaks[many]),
        "growth_bytes": Spread.of(growth),
        "bytes_per_row": Spread.of([g / (many - few) for g in growth]),
        "target_bytes": TARGET_BYTES,
        "ok": max(growth) <= TARGET_BYTES,
    }


def _of(rows: int, runs: list[dict[str, float]]) -> dict[str, Any]:
    return {
        "rows": rows,
        "peak_bytes": Spread.of([one["peak_bytes"] for one in runs]),
        "seconds": Spread.of([one["seconds"] for one in runs]),
    }


def _child(work: Path, rows: int, turn: int, model: str, batch_size: int) -> dict[str, float]:
    bank = work / f"bank-{rows}-{turn}"
    words = ["--child", str(work / f"{rows}.parquet"), "--bank", str(bank), "--model", model]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed.memory", *words, "--batch-size", str(batch_size)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )
    if done.returncode:
        raise RuntimeError(f"embedding {rows} rows ended with {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    if found["rows"] != rows or found["ok"] != rows:
        raise RuntimeError(f"{rows} rows were asked for: {found}")
    return {**found, "seconds": time.perf_counter() - start}


def _embed_and_report(manifest: Path, bank: Path, model: str, batch_size: int) -> None:
    from engine.extract import EmbedOptions, embed
    from engine.models import resolve
    from engine.recipes import Recipe
    from engine.runtime import Runtime
    from stores.manifest import Manifest

    spec = resolve(model, recipe=Recipe(size=TINY.width, crop=TINY.width))
    report = embed(
        Manifest.read(manifest),
        [spec],
        bank,
        runtime=Runtime.resolve("cpu"),
        # Untrained features may be too small for float16.
        options=EmbedOptions(decoder="turbo", dtype="float32", batch_size=batch_size),
    )[0]
    print(json.dumps({"rows": report.rows, "ok": report.ok, "peak_bytes": peak_bytes()}))


def peak_bytes() -> int:
    """Largest resident size this process has had, in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def table(result: dict[str, Any]) -> str:
    """The result as Markdown."""
    rows = [
        [f"{one['rows']:,}", one["peak_bytes"].median / 2**20, one["seconds"].median]
        for one in (result["few"], result["many"])
    ]
    growth = result["growth_bytes"].median / 2**20
    verdict = "within" if result["ok"] else "beyond"
    return markdown_table(["rows", "peak MiB", "seconds"], rows) + (
        f"\nGrowth {growth:,.0f} MiB, {result['bytes_per_row'].median:,.0f} bytes a row, {verdict} "
        f"{TARGET_BYTES / 2**20:.0f} MiB (n = {result['growth_bytes'].n}).\n"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    options = parser(__doc__.partition("\n")[0])
    options.add_argument("--many", type=int, default=MANY)
    options.add_argument("--few", type=int, default=FEW)
    options.add_argument("--model", default="random/shufflenet_v2_x0_5")
    options.add_argument("--batch-size", type=int, default=64)
    options.add_argument("--rounds", type=int, default=1)
    options.add_argument("--child", type=Path, metavar="MANIFEST", help="embed this, print the peak, end")
    options.add_argument("--bank", type=Path, help="with --child")
    asked = options.parse_args(arguments)
    if asked.child:
        _embed_and_report(asked.child, asked.bank, asked.model, asked.batch_size)
        return
    result = run(
        many=asked.many,
        few=asked.few,
        model=asked.model,
        batch_size=asked.batch_size,
        rounds=asked.rounds,
    )
    finish(result, table(result), asked)


if __name__ == "__main__":
    main()
