"""The suite's results on disk, as JSON and as Markdown; both files are rewritten after every check."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.gpu import packages, targets
from benchmarks.gpu.suite import Check, Outcome
from benchmarks.speed.common import machine, markdown_table, replace_text, write_json

SCHEMA = 2
#: Parts of names of distributions that the report lists besides those that can change a number.
_LISTED = ("cuda-", "cupy", "cuml", "cuvs", "dali", "dask", "faiss", "kvikio", "numba", "nvidia-", "triton")


@dataclass
class Results:
    """Outcomes of the suite, and of each run that they are from.

    Attributes:
        folder: of `results.json` and `results.md`.
        device, quick: options of all runs.
        runs: description of each run: machine, packages, commit, date, command line and minutes.
        outcomes: in order of time; one a check.
    """

    folder: Path
    device: str
    quick: bool
    runs: list[dict[str, Any]] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)

    @classmethod
    def begin(
        cls, folder: Path, device: str, quick: bool, minutes: float, command: Sequence[str], *, resume: bool
    ) -> "Results":
        """Return results for a new run on this machine: the first, or with `resume` the next of those there.

        Raises:
            SystemExit: what is there is of another device, or of other sizes.
        """
        results = cls(folder, device, quick)
        if resume and (folder / "results.json").exists():
            results = cls.read(folder)
            if (results.device, results.quick) != (device, quick):
                there = f"{results.device}, {'tiny' if results.quick else 'full'} sizes"
                raise SystemExit(f"{folder} has results of {there}: name another folder")
        facts = {**machine(), **packages.presence(), "packages": packages.all_versions()}
        words = ["python", "-m", "benchmarks.gpu", *command]
        results.runs.append({**facts, "command": shlex.join(words), "minutes": minutes})
        return results

    @classmethod
    def read(cls, folder: Path) -> "Results":
        """Read what an earlier process has written."""
        return cls.of_file(folder / "results.json")

    @classmethod
    def of_file(cls, file: Path) -> "Results":
        """Read a file, whatever it is called."""
        body = json.loads(file.read_text(encoding="utf-8"))
        if body.get("schema") != SCHEMA:
            raise SystemExit(f"{file} is of another version of the suite: name another folder")
        outcomes = [Outcome(**check) for check in body["checks"]]
        return cls(file.parent, body["device"], body["quick"], body["runs"], outcomes)

    @property
    def run(self) -> int:
        """Number of the current run."""
        return len(self.runs) - 1

    def add(self, outcome: Outcome) -> None:
        """Add an outcome of this run and rewrite the files.

        It takes the place of an earlier one of the same check; but a failure stays where the check was not
        tried again.
        """
        outcome = replace(outcome, run=self.run)
        for earlier in self.outcomes:
            if earlier.name == outcome.name and earlier.status == "failed" and outcome.status == "skipped":
                outcome = replace(earlier, run=self.run)
        self.outcomes = [other for other in self.outcomes if other.name != outcome.name] + [outcome]
        self.write()

    def to_do(self, checks: Sequence[Check]) -> list[Check]:
        """Return the checks without an outcome; those that failed or were skipped in an earlier run, too."""
        done = {o.name for o in self.outcomes if o.run == self.run or o.status in ("passed", "measured")}
        return [check for check in checks if check.name not in done]

    @property
    def ceilings(self) -> dict[str, float]:
        """Ceilings measured on this run's devices: name -> amounts a second."""
        here = self.runs[-1]["devices"]
        ceilings: dict[str, float] = {}
        for outcome in self.outcomes:
            if self.runs[outcome.run]["devices"] == here:
                ceilings |= outcome.ceilings
        return ceilings

    @property
    def readings(self) -> list[dict[str, Any]]:
        """Readings of all outcomes."""
        return [reading for outcome in self.outcomes for reading in outcome.readings]

    @property
    def timings(self) -> dict[str, float]:
        """Seconds of each check that ran; a failure may have ended early or have hung, and says nothing."""
        return {o.name: o.seconds for o in self.outcomes if o.status in ("passed", "measured")}

    def write(self) -> None:
        """Write both files."""
        body = {
            "schema": SCHEMA,
            "device": self.device,
            "quick": self.quick,
            "machine": self.runs[-1],
            "counts": self.counts,
            "runs": self.runs,
            "checks": [outcome.to_dict() for outcome in self.outcomes],
        }
        write_json(body, self.folder / "results.json")
        replace_text(self.folder / "results.md", self.markdown())

    @property
    def counts(self) -> dict[str, int]:
        """Number of outcomes with each status."""
        statuses = [outcome.status for outcome in self.outcomes]
        return {status: statuses.count(status) for status in ("passed", "failed", "measured", "skipped")}

    def markdown(self) -> str:
        """Return the report."""
        parts = ["# GPU suite\n", *map(self._facts, range(len(self.runs))), _summary(self)]
        parts.append("## Targets\n\n" + targets.table(self.readings))
        proofs = [o for o in self.outcomes if o.kind == "proof" and o.status in ("passed", "failed")]
        if proofs:
            rows = [[o.name, o.status, _proof(o), o.limit, o.seconds] for o in proofs]
            table = markdown_table(["proof", "result", "found", "limit", "seconds"], rows)
            parts.append("## Against the CPU\n\n" + table)
        if self.readings:
            note = "Tiny sizes of small models; the work is stated for full ones.\n\n" if self.quick else ""
            parts.append("## Rates and their floors\n\n" + note + _rates(self.readings))
        parts += [_measured(o) for o in self.outcomes if o.kind == "measurement" and o.status != "skipped"]
        skipped = [[o.name, o.reason] for o in self.outcomes if o.status == "skipped"]
        if skipped:
            parts.append("## Skipped\n\n" + markdown_table(["check", "why"], skipped))
        traces = [f"### {o.name}\n\n```text\n{o.trace}\n```\n" for o in self.outcomes if o.trace]
        return "\n".join([*parts, *(["## Tracebacks\n", *traces] if traces else [])])

    def table(self) -> str:
        """Return the documentation's table of targets, and what it was measured on."""
        if not any(reading.get("met") in ("yes", "no") for reading in self.readings):
            return targets.table([])
        facts = [_line(run) for run in self.runs]
        return targets.table(self.readings) + "\n" + "\n".join(dict.fromkeys(facts)) + "\n"

    def _facts(self, number: int) -> str:
        """Describe a run; of all but the last only what tells it from others."""
        facts = self.runs[number]
        rows = [
            ["run", f"{number + 1} of {len(self.runs)}, {facts['minutes']:g} minutes"],
            ["command", facts["command"]],
            ["date", facts["date"]],
            ["commit", facts["commit"]],
            ["device", f"{self.device}: {_devices(facts) or 'no CUDA device'}"],
            ["absent", ", ".join(facts["absent"]) or "nothing"],
        ]
        if number == self.run:
            toolkit = ", ".join(f"{name} {version}" for name, version in facts["toolkit"].items())
            rows += [
                ["driver", facts["driver"] or "none"],
                ["built for", toolkit or "the CPU"],
                ["processor", f"{_processor(facts)}, {facts['memory_bytes'] / 2**30:.0f} GiB"],
                ["versions", ", ".join(f"{name} {version}" for name, version in _listed(facts).items())],
            ]
        if self.quick:
            rows.append(["sizes", "tiny: a test of the suite, not numbers"])
        return markdown_table(["", ""], rows)


def _devices(facts: dict[str, Any]) -> str:
    return "; ".join(
        f"{d['name']}, {d['memory'] / 2**30:.0f} GiB, {d['capability']}" for d in facts["devices"]
    )


def _processor(facts: dict[str, Any]) -> str:
    return f"{facts['processor']}, {facts['cores']} cores"


def _listed(facts: dict[str, Any]) -> dict[str, str]:
    others = {n: v for n, v in facts["packages"].items() if any(part in n.lower() for part in _LISTED)}
    return {**others, **facts["versions"]}


def _line(facts: dict[str, Any]) -> str:
    toolkit = ", ".join(f"{name} {version}" for name, version in facts["toolkit"].items())
    torch = facts["versions"].get("torch", "absent")
    return (
        f"{_devices(facts)}; driver {facts['driver'] or 'unknown'}; {toolkit}; torch {torch}; "
        f"{_processor(facts)}; commit {facts['commit'][:12]}; {facts['date'][:10]}."
    )


def _summary(results: Results) -> str:
    return ", ".join(f"{count} {status}" for status, count in results.counts.items()) + ".\n"


def _proof(outcome: Outcome) -> str:
    return outcome.reason or flat(outcome.numbers)


def _rates(readings: Sequence[dict[str, Any]]) -> str:
    rows = []
    for reading in readings:
        unit, share = reading["unit"], reading["share_of_floor"]
        rows.append(
            [
                reading["name"],
                targets.shown(reading["measured"], unit),
                targets.shown(reading["floor"], unit),
                share if isinstance(share, str) else f"{100 * share:.3g} %",
                reading["bound_by"],
                reading.get("target", ""),
                reading.get("met", ""),
                "; ".join(reading["formulas"]),
            ]
        )
    return markdown_table(
        ["rate", "measured", "floor", "share of floor", "bound by", "target", "met", "work"], rows
    )


def _measured(outcome: Outcome) -> str:
    title = f"## {outcome.name}\n\n"
    if outcome.status == "failed":
        return title + f"Failed: {outcome.reason}\n"
    rows = [[name, _shown(value)] for name, value in leaves(outcome.numbers)]
    hope = f"\n{outcome.limit}\n" if outcome.limit else ""
    return title + markdown_table(["what", "value"], rows) + hope


def leaves(numbers: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Flatten nested numbers to (path, value); a spread {n, median, min, max} is one value."""
    flattened: list[tuple[str, Any]] = []
    for name, value in numbers.items():
        if isinstance(value, dict) and "median" not in value:
            flattened += leaves(value, f"{prefix}{name}, ")
        else:
            flattened.append((prefix + name, value))
    return flattened


def flat(numbers: dict[str, Any]) -> str:
    """Format nested numbers in one line."""
    return "; ".join(f"{name} {_shown(value)}" for name, value in leaves(numbers))


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['median']:.5g} ({value['min']:.5g}-{value['max']:.5g}, n = {value['n']})"
    return f"{value:.7g}" if isinstance(value, float) else str(value)
