"""Verify and measure the GPU paths.

    python -m benchmarks.gpu -o RESULTS [--minutes 10] [--quick] [--device cuda] [--only WORD] [--work DIR]

RESULTS receives only `results.json` and `results.md`, rewritten after every check; with --resume, the checks
they contain are not repeated. Images and banks are in a temporary folder, or in the folder --work, which is
kept for the next run. EMBANK_COMMIT gives the commit if there is no git history. Exit status: 0, or 1 if a
check failed.
"""

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.gpu.results import Results
from benchmarks.gpu.suite import registered
from benchmarks.gpu.supervisor import supervise, work


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    started = time.time()
    options = _parse(arguments)
    checks = [check for check in registered() if options.only in check.name]
    if options.worker:
        return work(options.out, options.work, options.deadline, checks)
    options.out.mkdir(parents=True, exist_ok=True)
    device = _device(options.device, options.quick)
    if not (options.resume and (options.out / "results.json").exists()):
        Results.new(options.out, device, options.quick).write()
    deadline = started + 60 * options.minutes
    command = [sys.executable, "-m", "benchmarks.gpu", "--worker", "-o", str(options.out.resolve())]
    command += ["--deadline", str(deadline), "--only", options.only]
    with _work_folder(options.work) as folder:
        supervise(options.out, deadline, checks, [*command, "--work", str(folder)])
    print((options.out / "results.md").read_text(encoding="utf-8"))
    return 1 if Results.read(options.out).counts["failed"] else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("benchmarks.gpu", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder for results alone")
    parser.add_argument("--work", type=Path, help="folder for images and banks (default: a temporary one)")
    parser.add_argument("--minutes", type=float, default=10, help="nothing is started that would overrun")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a test of the suite")
    parser.add_argument("--device", default="cuda", help="cuda or cuda:N; cpu is for a test of the suite")
    parser.add_argument("--only", default="", help="checks whose names contain this")
    parser.add_argument("--resume", action="store_true", help="go on with the results that are there")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--deadline", type=float, default=0.0, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


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
