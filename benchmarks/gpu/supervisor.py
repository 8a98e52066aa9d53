"""A supervisor of the worker process that runs the checks.

A check that ends its process (a crash in a library, a lost device) or hangs does not affect other checks: the
supervisor records the failure and starts a new worker, which continues with the next check.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.gpu.results import Results
from benchmarks.gpu.suite import Check, Context, Outcome, attempt, device_works
from benchmarks.speed.common import ROOT, say, write_json

#: Exit status of a worker whose process has lost the device, so that a new one should continue.
LOST_DEVICE = 75
#: Seconds beyond the deadline after which a running check is killed.
GRACE_S = 20.0
_POLL_S = 0.1


def work(
    folder: Path,
    work_folder: Path,
    deadline: float,
    checks: Sequence[Check],
    timings: Mapping[str, float] | None = None,
) -> int:
    """Run the checks that are still to do, in this process.

    Args:
        folder: of the results, existing.
        work_folder: for images and banks, existing.
        deadline: `time.time()` at which the suite ends.
        checks: in the order in which they run.
        timings: name of a check -> seconds that it took before.

    Returns:
        0, or `LOST_DEVICE` if a new process should continue.
    """
    results = Results.read(folder)
    context = Context(results.device, results.quick, work_folder, deadline, timings=timings or {})
    for check in results.to_do(checks):
        write_json({"name": check.name, "since": time.time()}, folder / "current.json")
        outcome = attempt(check, replace(context, ceilings=results.ceilings))
        results.add(outcome)
        say(f"{outcome.status:8} {outcome.seconds:7.1f} s  {check.name}  {outcome.reason}")
        if outcome.status == "failed" and not device_works(results.device):
            return LOST_DEVICE
    (folder / "current.json").unlink(missing_ok=True)
    return 0


def supervise(folder: Path, deadline: float, checks: Sequence[Check], command: Sequence[str]) -> None:
    """Start workers until every check has an outcome.

    Args:
        folder, deadline, checks: as in `work`.
        command: starts a worker, which calls `work` with the same arguments.
    """
    while unfinished := Results.read(folder).to_do(checks):
        status, reason = _one_worker(folder, deadline, checks, command)
        if status not in (0, LOST_DEVICE):
            _blame(folder, checks, reason)
        if len(Results.read(folder).to_do(checks)) == len(unfinished):
            raise SystemExit(f"the suite's worker does not get going: {reason}")


def _one_worker(
    folder: Path, deadline: float, checks: Sequence[Check], command: Sequence[str]
) -> tuple[int, str]:
    """Run a worker; return its exit status, and the failure reason of its current check if that is not 0."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    (folder / "current.json").unlink(missing_ok=True)
    # A new process group, so that processes it has started end with it.
    worker = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, start_new_session=True)
    limits = {check.name: check.limit_s for check in checks}
    try:
        while worker.poll() is None:
            time.sleep(_POLL_S)
            if late := _overdue(folder, deadline, limits):
                os.killpg(worker.pid, signal.SIGKILL)
                worker.wait()
                return -signal.SIGKILL, late
    except BaseException:
        os.killpg(worker.pid, signal.SIGKILL)
        raise
    return worker.returncode, f"its process ended with status {worker.returncode}"


def _overdue(folder: Path, deadline: float, limits: dict[str, float]) -> str:
    """Return why the running check must be stopped; "" if it need not."""
    current = _current(folder)
    if current is None:
        return ""
    name, since = current
    if time.time() - since > limits[name]:
        return f"stopped after {limits[name]:.0f} s: it hangs"
    return "cut off: the time is up" if time.time() > deadline + GRACE_S else ""


def _current(folder: Path) -> tuple[str, float] | None:
    try:
        body = json.loads((folder / "current.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return body["name"], body["since"]


def _blame(folder: Path, checks: Sequence[Check], reason: str) -> None:
    """Record the failure of a check whose process could not."""
    current = _current(folder)
    results = Results.read(folder)
    if current is None:
        return
    name, since = current
    for check in results.to_do(checks):
        if check.name == name:
            results.add(Outcome(name, check.kind, "failed", round(time.time() - since, 1), reason=reason))
