"""Scaling with the number of rows: linear time, constant memory, and immediate resumption of a finished run.

Every number is that of a complete command in a separate process: `manifest folder` and `manifest check` on
many files (hard links to a few small images), then `embed` with a small backbone on a hundredth, a quarter, a
half and all of the rows, and each `embed` again, which has nothing to do.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.images import ImageClass, manifest_of, write_images
from benchmarks.speed.common import ROOT, Spread, finish, machine, markdown_table, parser, say

ROWS, MANIFEST_ROWS = 224_316, 1_000_000
TINY = ImageClass("tiny-32", 32, 32, quality=0)
SHARES = (100, 4, 2, 1)
#: Relative departure of the seconds per row from those of the largest run, at most.
LINEAR = 0.10
#: Growth of peak memory from the smallest size to the largest, at most.
GROWTH_BYTES = 300 * 2**20
RESUME_S = 2.0
_FILES_A_FOLDER = 1000


def run(
    *,
    rows: int = ROWS,
    manifest_rows: int = MANIFEST_ROWS,
    files: int = 300,
    model: str = "random/shufflenet_v2_x0_5",
    batch_size: int = 64,
    rounds: int = 1,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Measure manifests and embeddings of several sizes.

    Args:
        rows, manifest_rows: of the largest embedding and of the largest manifest.
        files: number of different images.
        model: slug; its recipe has 32 pixels.
        batch_size: of all runs.
        rounds: number of embeddings of each size.
        folder: for images and banks; None takes a temporary one.

    Returns:
        `{embed, manifest: [{rows, ...}], departure, cpu_departure, growth_bytes, resume_seconds, targets,
        ok}`: largest departures of the seconds per row (wall clock, and processor time) of a quarter and a
        half of the rows from those of all; growth of peak memory from the smallest embedding to the largest;
        seconds of the slowest resumption.
    """
    facts = machine()
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work = Path(name)
        paths = write_images(work / "pictures", TINY, files)
        (work / "recipe.json").write_text(json.dumps({"size": TINY.width, "crop": TINY.width}))
        manifests = _manifests(work, paths, manifest_rows)
        sizes = [max(1, rows // share) for share in SHARES]
        for size in sizes:
            manifest_of(paths, work / "pictures", size).write(work / f"{size}.parquet")
        runs_of_size: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
        for turn in range(rounds):
            for size in sizes:
                runs_of_size[size].append(_embed(work, size, turn, model, batch_size))
                say(f"{size:,} rows: {runs_of_size[size][-1]}")
    embeds = [_summary(size, runs_of_size[size]) for size in sizes]
    return {"machine": facts, "model": model, "batch_size": batch_size, "rounds": rounds} | _judged(
        embeds, manifests
    )


def _judged(embeds: list[dict[str, Any]], manifests: list[dict[str, Any]]) -> dict[str, Any]:
    larger = embeds[1:] or embeds  # the start-up is a considerable part of the smallest
    departure = _departure([(e["rows"], e["seconds"].median) for e in larger])
    cpu = _departure([(e["rows"], e["cpu_seconds"].median) for e in larger])
    growth = embeds[-1]["peak_bytes"].max - embeds[0]["peak_bytes"].min
    resume = max(e["resume_seconds"].median for e in embeds)
    return {
        "embed": embeds,
        "manifest": manifests,
        "departure": departure,
        "cpu_departure": cpu,
        "growth_bytes": growth,
        "resume_seconds": resume,
        "targets": {"departure": LINEAR, "growth_bytes": GROWTH_BYTES, "resume_seconds": RESUME_S},
        "ok": departure <= LINEAR and growth <= GROWTH_BYTES and resume <= RESUME_S,
    }


def _departure(points: Sequence[tuple[int, float]]) -> float:
    """Return the largest |seconds per row / those of the last point - 1| of points (rows, seconds)."""
    rows, seconds = points[-1]
    return max(abs(s / r / (seconds / rows) - 1) for r, s in points)


def _manifests(work: Path, paths: Sequence[Path], rows: int) -> list[dict[str, Any]]:
    """Build and check manifests of a quarter of the files and of all."""
    manifests = []
    for size in (max(1, rows // 4), rows):
        root = work / f"files-{size}"
        _link(paths, root, size)
        table = work / f"files-{size}.parquet"
        build = _command("manifest", "folder", root, "-o", table, "--json")
        check = _command("manifest", "check", table, "--json")
        if json.loads(build["out"])["rows"] != size:
            raise RuntimeError(f"{size} files were listed as {build['out'][:200]}")
        manifests.append(
            {
                "rows": size,
                "build_seconds": build["seconds"],
                "build_peak_bytes": build["peak_bytes"],
                "check_seconds": check["seconds"],
                "check_peak_bytes": check["peak_bytes"],
                "file_bytes": table.stat().st_size,
            }
        )
        say(f"manifest of {size:,} rows: {manifests[-1]}")
    return manifests


def _link(paths: Sequence[Path], root: Path, rows: int) -> None:
    """Create `rows` hard links to a few files, in folders of a thousand, in three classes."""
    for start in range(0, rows, _FILES_A_FOLDER):
        folder = root / f"class{start // _FILES_A_FOLDER % 3}" / f"{start:09}"
        folder.mkdir(parents=True)
        for row in range(start, min(start + _FILES_A_FOLDER, rows)):
            source = paths[row % len(paths)]
            (folder / f"{row:09}{source.suffix}").hardlink_to(source)


def _embed(work: Path, rows: int, turn: int, model: str, batch_size: int) -> dict[str, float]:
    """Embed, and embed again; seconds are those of the pass, without starting Python."""
    bank = work / f"bank-{rows}-{turn}"
    words = [
        "embed", work / f"{rows}.parquet", "--model", model, "--recipe", work / "recipe.json", "--bank", bank,
        "--device", "cpu", "--decoder", "turbo", "--dtype", "float32", "--batch-size", batch_size, "--json",
    ]  # fmt: skip
    first, again = _command(*words), _command(*words)
    report, nothing = json.loads(first["out"]), json.loads(again["out"])
    if (report["ok"], nothing["embedded"]) != (rows, 0):
        raise RuntimeError(f"{rows} rows were asked for: {report}; again: {nothing}")
    return {
        "seconds": report["seconds"],
        # Work of both commands other than embedding cancels out.
        "cpu_seconds": first["cpu_seconds"] - again["cpu_seconds"],
        "peak_bytes": first["peak_bytes"],
        "resume_seconds": again["seconds"],
    }


#: Program that starts a command and measures it. A process inherits the peak memory of its parent, so the
#: parent must be small.
_LAUNCHER = """
import json, os, subprocess, sys, time
start = time.perf_counter()
child = subprocess.Popen(sys.argv[1:])
_, status, usage = os.wait4(child.pid, 0)
seconds = time.perf_counter() - start
cpu_seconds = usage.ru_utime + usage.ru_stime
print(json.dumps([os.waitstatus_to_exitcode(status), seconds, cpu_seconds, usage.ru_maxrss]))
"""


def _command(*words: object) -> dict[str, Any]:
    """Run the command line: `{out, seconds, cpu_seconds, peak_bytes}` of the whole process."""
    done = subprocess.run(
        [sys.executable, "-c", _LAUNCHER, sys.executable, "-m", "cli", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )
    out, _, measured = done.stdout.rstrip().rpartition("\n")
    code, seconds, cpu_seconds, peak = json.loads(measured)
    if code:
        raise RuntimeError(f"{words[0]} ended with {code}: {done.stderr[-2000:]}")
    return {"out": out, "seconds": seconds, "cpu_seconds": cpu_seconds, "peak_bytes": peak * 1024}


def _summary(rows: int, runs: list[dict[str, float]]) -> dict[str, Any]:
    return {"rows": rows} | {
        name: Spread.of([measurements[name] for measurements in runs]) for name in runs[0]
    }


def table(result: dict[str, Any]) -> str:
    """Format the result as Markdown."""
    columns = ["rows", "seconds", "s of processor time", "peak MiB", "resumed in s"]
    rows = [
        [
            f"{e['rows']:,}",
            e["seconds"].median,
            e["cpu_seconds"].median,
            e["peak_bytes"].median / 2**20,
            e["resume_seconds"].median,
        ]
        for e in result["embed"]
    ]
    lists = [
        [
            f"{m['rows']:,}",
            m["build_seconds"],
            m["build_peak_bytes"] / 2**20,
            m["check_seconds"],
            m["check_peak_bytes"] / 2**20,
        ]
        for m in result["manifest"]
    ]
    return (
        markdown_table(columns, rows)
        + f"\nSeconds a row depart from linear by at most {result['departure']:.1%} "
        f"({result['cpu_departure']:.1%} of processor time); peak memory grows by "
        f"{result['growth_bytes'] / 2**20:,.0f} MiB; a finished run is resumed in at most "
        f"{result['resume_seconds']:.2f} s: "
        f"{'within' if result['ok'] else 'beyond'} the targets.\n\n"
        + markdown_table(["manifest rows", "build s", "peak MiB", "check s", "peak MiB"], lists)
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = parser(__doc__.partition("\n")[0])
    options.add_argument("--rows", type=int, default=ROWS)
    options.add_argument("--manifest-rows", type=int, default=MANIFEST_ROWS)
    options.add_argument("--model", default="random/shufflenet_v2_x0_5")
    options.add_argument("--batch-size", type=int, default=64)
    options.add_argument("--rounds", type=int, default=1)
    options.add_argument("--folder", type=Path, help="where to work, with room for a name a manifest row")
    args = options.parse_args(arguments)
    result = run(
        rows=args.rows,
        manifest_rows=args.manifest_rows,
        model=args.model,
        batch_size=args.batch_size,
        rounds=args.rounds,
        folder=args.folder,
    )
    finish(result, table(result), args)


if __name__ == "__main__":
    main()
