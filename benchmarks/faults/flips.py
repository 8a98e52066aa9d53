"""Flip single bits all over a bank: `verify` must find each, and no evaluation may see one.

    python -m benchmarks.faults.flips [--runs 10000] [--json]

Half of the files are drawn by size, half evenly. With each flip in place, whatever an evaluation can read of
each feature is read: it must be refused, or be what it was. Every so often a real few-shot evaluation runs.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.faults.banks import (
    Os,
    chunk_result,
    make_bank,
    make_key,
    nothing,
    patched,
    quick_folder,
)
from benchmarks.faults.io import evaluated
from benchmarks.speed import common
from stores.bank.integrity import SETTLED_NS
from stores.bank.records import RunRecord
from stores.bank.writer import FeatureWriter, write_certificate
from stores.errors import BankError
from stores.maintenance.verify import verify

ROWS, DIM, CHUNK = 150, 24, 64
#: Flips between two real evaluations.
EVALUATE_EVERY = 25


def run(*, runs: int = 10_000, seed: int = 0, say: Callable[[str], None] = common.say) -> dict[str, Any]:
    """Flip bits.

    Args:
        runs: flips.
        seed: of files, places and bits.

    Returns:
        `{ok, flips, files, refused, harmless, evaluations, by_kind, problems}`: `refused` flips kept a
        feature from being read, `harmless` ones lie in what no evaluation reads.
    """
    with quick_folder() as folder, patched(Os(nothing)):
        trial = _Trial(folder, random.Random(seed))
        for count in range(1, runs + 1):
            trial.flip(real=count % EVALUATE_EVERY == 0)
            if count % 1000 == 0 or count == runs:
                say(f"{count} flips, {trial.refused} refused, {len(trial.problems)} problems")
        return {
            "ok": not trial.problems,
            "flips": runs,
            "files": len(trial.every),
            "refused": trial.refused,
            "harmless": trial.harmless,
            "evaluations": trial.evaluations,
            "by_kind": dict(sorted(trial.kinds.items())),
            "problems": trial.problems,
            "seed": seed,
        }


class _Trial:
    """A sealed bank of two features, and what became of the flips."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.bank, self.chance = build(folder), chance
        self.every = {
            path.relative_to(self.bank).as_posix(): path.read_bytes()
            for path in sorted(self.bank.rglob("*"))
            if path.is_file() and path.name not in ("lock", "commit.lock")
        }
        self.names = [name for name, data in self.every.items() if data]
        self.sizes = [len(self.every[name]) for name in self.names]
        self.features = sorted(path.parent.name for path in self.bank.glob("*/zarr.json"))
        self.truth = {name: evaluated(self.bank, name) for name in self.features}
        self.accuracy = self._few_shot()
        self.problems: list[str] = []
        self.kinds: Counter[str] = Counter()
        self.refused = self.harmless = self.evaluations = 0

    def flip(self, *, real: bool) -> None:
        """One bit, over and back."""
        weights = self.sizes if self.chance.random() < 0.5 else None
        name = self.chance.choices(self.names, weights)[0]
        at, bit = self.chance.randrange(len(self.every[name])), self.chance.randrange(8)
        data = bytearray(self.every[name])
        data[at] ^= 1 << bit
        (self.bank / name).write_bytes(data)
        self.kinds[_kind(name)] += 1
        self._look(f"{name}, byte {at}, bit {bit}", name)
        if real:
            self.evaluations += 1
            self._evaluate(f"{name}, byte {at}, bit {bit}")
        (self.bank / name).write_bytes(self.every[name])

    def _look(self, where: str, name: str) -> None:
        found = {each.path for each in verify(self.bank).damaged}
        if found != {name}:
            self.problems.append(f"{where}: verify blames {sorted(found)}")
        refused = False
        for feature in self.features:
            try:
                if evaluated(self.bank, feature) != self.truth[feature]:
                    self.problems.append(f"{where}: read as if it were right")
            except BankError:
                refused = True
        self.refused += refused
        self.harmless += not refused

    def _evaluate(self, where: str) -> None:
        try:
            if self._few_shot() != self.accuracy:
                self.problems.append(f"{where}: another accuracy")
        except BankError:
            pass

    def _few_shot(self) -> list[float]:
        """Accuracies of both features; the records that it leaves are taken away."""
        from engine.evals.fewshot.bank import fewshots_from_bank
        from engine.evals.fewshot.evaluate import Protocol

        before = set((self.bank / "records").iterdir())
        try:
            found = fewshots_from_bank(self.bank, self.features, Protocol(3, 2, 2, 20), threads=1)
        finally:
            for path in set((self.bank / "records").iterdir()) - before:
                path.unlink()
        return [float(str(each["accuracy"])) for each in found]


def build(folder: Path) -> Path:
    """Every kind of file that a bank can have, and stamps for them."""
    bank = make_bank(folder / "bank", ROWS, DIM, CHUNK)
    key = make_key(bank.image_digest, model="other/model", dtype="float32")
    with FeatureWriter(bank, key, 7) as writer:
        for index in writer.todo:
            writer.commit(chunk_result(index, *writer.bounds(index), 7, seed=2))
        writer.write_provenance({"device": "cpu", "weights": "file"})
        writer.seal()
    write_certificate(bank, key, {"cosine": 0.999999})
    RunRecord.now("fewshot", asked={"n": 1}, used={}, metrics={"accuracy": 0.5}, seconds={}).write(
        folder / "bank"
    )
    time.sleep(1.1 * SETTLED_NS / 1e9)
    if not verify(bank).ok:  # which leaves stamps
        raise RuntimeError("a fresh bank is damaged")
    return folder / "bank"


def _kind(name: str) -> str:
    """`embedding`, `marker`, `seal`, ..."""
    parts = name.split("/")
    if "c" in parts[:-1]:
        return parts[1]
    if parts[-1] == "zarr.json":
        return "zarr metadata"
    return {"markers": "marker", "columns": "column", "records": "record"}.get(
        parts[-2] if len(parts) > 1 else "", parts[-1]
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line; exits with 1 if a flip was missed or read."""
    parser = common.parser(__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    result = run(runs=options.runs, seed=options.seed)
    result["machine"] = common.machine()
    table = common.markdown_table(["flips in", "times"], [[kind, n] for kind, n in result["by_kind"].items()])
    verdict = "\n".join(result["problems"]) or "all found by verify, none read"
    common.finish(
        result,
        f"{table}\n{result['flips']} flips in {result['files']} files, {result['refused']} of which kept a "
        f"feature from being read, {result['evaluations']} few-shot evaluations: {verdict}",
        options,
    )
    raise SystemExit(0 if result["ok"] else 1)


if __name__ == "__main__":
    main()
