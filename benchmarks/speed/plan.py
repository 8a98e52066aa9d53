"""Planning a study of 13 models, 11 data sets and 8 evaluations, and running a finished study again.

Each run is a process of its own, so that starting Python and importing count. The finished study has drawn
pictures and untrained networks; what is timed is the command that has nothing left to do.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.paper import names
from benchmarks.speed.common import Spread, finish, machine, markdown_table, parser, say

DATA_SETS = (
    *("bach", "chestx", "chexpert", "eyepacs", "ichallenge-amd", "ichallenge-pm", "montgomery", "shenzhen"),
    *("stoic", "cifar10", "medmnist"),
)
EVALUATIONS = ("fewshot", "knn", "probe", "finetune", "saliency", "reconstruct", "audit", "invariance")
_PLAN = """
import sys
from pathlib import Path
from engine.study.plan import plan
from engine.study.read import read_study
study = read_study(Path(sys.argv[1]))
print(sum(one.cell.kind != "compare" for one in plan(study, Path(sys.argv[2])).cells))
"""
#: Pictures of the finished study, and their side in pixels.
_PICTURES, _SIDE = 24, 32


def large_study(folder: Path) -> Path:
    """Write the file of a study of all models of the paper, eleven data sets and eight evaluations."""
    lines = ["study: large", "datasets:", *(f"  {name}: {{folder: data/{name}}}" for name in DATA_SETS)]
    lines += ["models:", *(f"  - {name}" for name in names.MODELS), "evaluations:"]
    lines += [f"  {name}: {'{transforms: rotation}' * (name == 'invariance')}" for name in EVALUATIONS]
    path = folder / "large.yaml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def small_study(folder: Path) -> Path:
    """Write pictures, and the file of a study of two untrained networks on them."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for number in range(_PICTURES):
        path = folder / "pictures" / "train" / "ab"[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        level = 60 + 90 * (number % 2)
        Image.fromarray(generator.integers(level, level + 80, (_SIDE, _SIDE, 3), np.uint8)).save(path)
    file = folder / "small.yaml"
    file.write_text(
        "study: small\n"
        "datasets: {pictures: {builtin: imagefolder, folder: pictures}}\n"
        "models: [random/shufflenet_v2_x0_5, random/squeezenet1_1]\n"
        f"embed: {{side: {_SIDE}}}\n"
        "evaluations:\n"
        "  fewshot: {n_way: 2, n_shot: 2, n_query: 2, episodes: 50}\n"
        "  knn: {leave_one_out: true, k: [3]}\n",
        encoding="utf-8",
    )
    return file


def run(repeats: int) -> dict[str, Any]:
    """Time both `repeats` times.

    Returns:
        `{cells, repeats, machine, plan, plan_cpu, again, again_cpu}`, seconds as {n, median, min, max}.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        large = (sys.executable, "-c", _PLAN, str(large_study(folder)), str(folder / "large"))
        small = [sys.executable, "-m", "cli", "study", "run", str(small_study(folder))]
        small += ["--dir", str(folder / "small")]
        say("running the small study")
        _timed(small)
        timed = [(*_timed(large)[1:], *_timed(small)[1:]) for _ in range(repeats)]
        cells = int(_timed(large)[0])
    names_ = ("plan", "plan_cpu", "again", "again_cpu")
    spreads = {name: Spread.of([one[place] for one in timed]) for place, name in enumerate(names_)}
    return {"cells": cells, "repeats": repeats, "machine": machine(), **spreads}


def _timed(words: Sequence[str]) -> tuple[str, float, float]:
    """Run a process; return its output, its seconds by the clock, and those of the processor."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, time.perf_counter() - start, busy


def _table(result: dict[str, Any]) -> str:
    titles = {"plan": f"plan {result['cells']:,} cells", "again": "run a finished study again"}
    lines = [[titles[name], str(result[name]), str(result[f"{name}_cpu"])] for name in titles]
    return markdown_table(["", "seconds", "of the processor"], lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = parser(__doc__ or "")
    options.add_argument("--repeats", type=int, default=9)
    args = options.parse_args(argv)
    result = run(args.repeats)
    finish(result, _table(result), args)


if __name__ == "__main__":
    main()
