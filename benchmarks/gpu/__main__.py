"""Verify and measure the GPU paths.

    python -m benchmarks.gpu -o RESULTS [--minutes 10] [--resume] [--only WORD] [--work DIR]
    python -m benchmarks.gpu --plan [--minutes 10]
    python -m benchmarks.gpu --table [RESULTS/results.json]

RESULTS receives only `results.json` and `results.md`, rewritten after every check. Proofs run first, then
ceilings, then rates, each in order of value; what cannot end in the time is left out, and the plan is printed
first (--plan prints it alone). --resume goes on with the results that are there: what passed or was measured
is not repeated, what failed or was skipped is. --timings takes the seconds of an earlier run instead of the
declared ones. Images and banks are in a temporary folder, or in the folder --work, which is kept for the next
run. --table prints the documentation's table of targets. EMBANK_COMMIT gives the commit if there is no git
history. Exit status: 0, or 1 if a check failed.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.gpu import targets
from benchmarks.gpu.packing import START_S, pack
from benchmarks.gpu.results import Results
from benchmarks.gpu.suite import Check, expected_s, registered
from benchmarks.gpu.supervisor import supervise, work


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    started = time.time()
    options = _parse(arguments)
    if options.table is not None:
        print(_table(options.table))
        return 0
    checks = [check for check in registered() if options.only in check.name]
    timings = {} if options.timings is None else Results.of_file(options.timings).timings
    if options.worker:
        return work(options.out, options.work, options.deadline, checks, timings)
    if options.plan:
        print(_plan(checks, 60 * options.minutes - START_S, options, timings))
        return 0
    device = _device(options.device, options.quick)
    command = list(sys.argv[1:] if arguments is None else arguments)
    results = Results.begin(
        options.out, device, options.quick, options.minutes, command, resume=options.resume
    )
    start_s = START_S if device.startswith("cuda") else 0.0
    remaining_s = 60 * options.minutes - start_s - (time.time() - started)
    print(_plan(results.to_do(checks), remaining_s, options, timings), flush=True)
    options.out.mkdir(parents=True, exist_ok=True)
    results.write()
    deadline = started + 60 * options.minutes
    worker = [sys.executable, "-m", "benchmarks.gpu", "--worker", "-o", str(options.out.resolve())]
    worker += ["--deadline", str(deadline), "--only", options.only]
    worker += [] if options.timings is None else ["--timings", str(options.timings.resolve())]
    with _work_folder(options.work) as folder:
        supervise(options.out, deadline, checks, [*worker, "--work", str(folder)])
    print((options.out / "results.md").read_text(encoding="utf-8"))
    return 1 if Results.read(options.out).counts["failed"] else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("benchmarks.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-o", "--out", type=Path, help="folder for results alone")
    parser.add_argument("--work", type=Path, help="folder for images and banks (default: a temporary one)")
    parser.add_argument("--minutes", type=float, default=10, help="nothing is started that would overrun")
    parser.add_argument("--plan", action="store_true", help="print what would run in this time, and end")
    parser.add_argument("--timings", type=Path, help="results.json whose seconds replace the declared ones")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a test of the suite")
    parser.add_argument("--device", default="cuda", help="cuda or cuda:N; cpu is for a test of the suite")
    parser.add_argument("--only", default="", help="checks whose names contain this")
    parser.add_argument("--resume", action="store_true", help="go on with the results that are there")
    parser.add_argument(
        "--table", nargs="?", const=Path(), type=Path, help="print the table of targets of a results.json"
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--deadline", type=float, default=0.0, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.out is None and options.table is None and not options.plan:
        parser.error("the following arguments are required: -o/--out")
    return options


def _table(file: Path) -> str:
    """Return the table of targets of a results file; without one (an empty path), nothing is measured."""
    return targets.table([]) if file == Path() else Results.of_file(file).table()


def _plan(
    checks: Sequence[Check], seconds: float, options: argparse.Namespace, timings: dict[str, float]
) -> str:
    """Return what is expected to run in these seconds."""
    plan = pack(checks, seconds, lambda check: expected_s(check, options.quick, timings))
    return plan.text(options.minutes)


@contextlib.contextmanager
def _work_folder(named: Path | None) -> Iterator[Path]:
    """Yield the named folder, which is kept, or a temporary one."""
    if named is not None:
        named.mkdir(parents=True, exist_ok=True)
        yield named.resolve()
    else:
        with tempfile.TemporaryDirectory(prefix="embank-gpu-") as folder:
            yield Path(folder)


def _device(name: str, quick: bool) -> str:
    """Return a device's full name; without CUDA, --quick uses the CPU."""
    from engine.runtime import Runtime, cuda_available

    if quick and not cuda_available():
        return "cpu"
    return Runtime.resolve(name, "fp32").device


if __name__ == "__main__":
    raise SystemExit(main())
