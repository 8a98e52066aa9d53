"""Checks, their context, and running them one after another.

A check is a function of a `Context`, registered by `proof` (it passes or fails) or `measurement` (it
reports). Checks are isolated: an error in one is its failure, and the others continue. Results are written
after every check, because the machine may disappear at any moment. `packing` chooses the checks.
"""

import gc
import importlib
import pkgutil
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.gpu import floors, packing
from benchmarks.gpu.packages import OPTIONAL, Skip, absent_optional, is_installed, require
from benchmarks.gpu.targets import judged
from benchmarks.images import ImageClass, manifest_of, write_images

if TYPE_CHECKING:
    from engine.models.catalog.lookup import ModelSpec
    from engine.recipes import Recipe
    from engine.runtime import Precision, Runtime
    from stores.manifest.manifest import Manifest

__all__ = ["Check", "Context", "Outcome", "Skip", "Verdict", "attempt", "measurement", "proof", "registered"]

Status = Literal["passed", "failed", "measured", "skipped"]
#: Most seconds that a proof may declare.
PROOF_S = 30.0


@dataclass(frozen=True)
class Verdict:
    """The result of a check.

    Attributes:
        numbers: JSON values, nested by subject; units are in the names.
        ok: whether a proof has passed; None for a measurement.
        limit: condition of a proof, or a remark on a measurement.
        readings: rates with their floors, from `Context.reading`.
        ceilings: of the machine, name -> bytes, flop or images a second (`floors`).
    """

    numbers: dict[str, Any]
    ok: bool | None = None
    limit: str = ""
    readings: tuple[floors.Reading, ...] = ()
    ceilings: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Check:
    """A registered check.

    Attributes:
        name: unique; `subject: what`.
        kind: `proof` or `measurement`.
        run: the function.
        seconds: expected duration on a GPU; the check is not started with less time left.
        rank: order of value among proofs and among measurements; ceilings are in the fifties.
        needs: import names of optional packages without which it is skipped (`packages.OPTIONAL`).
    """

    name: str
    kind: Literal["proof", "measurement"]
    run: "Callable[[Context], Verdict]"
    seconds: float
    rank: int
    needs: tuple[str, ...] = ()

    @property
    def limit_s(self) -> float:
        """Seconds after which the check counts as hanging."""
        return 30 + 3 * self.seconds


@dataclass(frozen=True)
class Outcome:
    """The outcome of a check, as stored in the results.

    Attributes:
        readings: with `target` and `met` where there is a target.
        run: number of the run that it is from, in `Results.runs`.
    """

    name: str
    kind: str
    status: Status
    seconds: float
    reason: str = ""
    limit: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)
    trace: str = ""
    readings: list[dict[str, Any]] = field(default_factory=list)
    ceilings: dict[str, float] = field(default_factory=dict)
    run: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return all fields for JSON."""
        return asdict(self)


_CHECKS: dict[str, Check] = {}


def proof(name: str, *, seconds: float, rank: int = 50, needs: tuple[str, ...] = ()) -> Callable[[Any], Any]:
    """Register a function of a Context that checks whether the device computes the same as the CPU.

    Raises:
        ValueError: it declares more seconds than a proof may take.
    """
    if seconds > PROOF_S:
        raise ValueError(f"the proof {name!r} takes {seconds:g} s: at most {PROOF_S:g}; cut or split it")
    return lambda function: _register(Check(name, "proof", function, seconds, rank, needs))


def measurement(
    name: str, *, seconds: float, rank: int = 60, needs: tuple[str, ...] = ()
) -> Callable[[Any], Any]:
    """Register a function of a Context that measures."""
    return lambda function: _register(Check(name, "measurement", function, seconds, rank, needs))


def _register(check: Check) -> Any:
    if check.name in _CHECKS and _CHECKS[check.name].run.__module__ != check.run.__module__:
        raise ValueError(f"two checks are called {check.name!r}")
    _CHECKS[check.name] = check
    return check.run


def registered() -> list[Check]:
    """Return all checks of `benchmarks.gpu.checks`, in order of value."""
    from benchmarks.gpu import checks

    for name in sorted(m.name for m in pkgutil.iter_modules(checks.__path__)):
        _import(f"{checks.__name__}.{name}")
    return packing.in_order(_CHECKS.values())


def _import(module: str) -> None:
    """Import a file of checks.

    A file that needs an absent optional package becomes a single skipped check; one whose import fails in any
    other way, a single failed one.
    """
    subject = module.rpartition(".")[2]
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever an import raises
        failure = Skip(f"{name} is not installed") if (name := absent_optional(error)) else error
        _CHECKS[subject] = Check(f"{subject}: all of it", "proof", _raising(failure), 0, 0)


def _raising(error: Exception) -> "Callable[[Context], Verdict]":
    def run(_: Context) -> Verdict:
        raise error

    return run


@dataclass
class Context:
    """The context of a check.

    Attributes:
        device: `cuda:N`, or `cpu` for the part that needs no GPU.
        quick: use tiny sizes, to test the suite itself.
        work: folder for images and banks; images are kept between checks and runs.
        deadline: `time.time()` at which the suite ends.
        ceilings: of the machine, measured by earlier checks: name -> amounts a second.
        timings: name of a check -> seconds that it took before, which replace the declared ones.
    """

    device: str
    quick: bool
    work: Path
    deadline: float
    ceilings: Mapping[str, float] = field(default_factory=dict)
    timings: Mapping[str, float] = field(default_factory=dict)

    @property
    def on_cuda(self) -> bool:
        """True for a CUDA device."""
        return self.device.startswith("cuda")

    @property
    def counts(self) -> bool:
        """True where a measurement is one of the GPU: full sizes on a CUDA device."""
        return self.on_cuda and not self.quick

    def reading(self, name: str, measured: float, unit: str, *bounds: floors.Bound) -> floors.Reading:
        """Put a measurement beside its floor; arguments as for `floors.reading`."""
        return floors.reading(name, measured, unit, bounds, self.ceilings)

    def expected_s(self, check: Check) -> float:
        """Return the seconds that a check is expected to take."""
        return expected_s(check, self.quick, self.timings)

    @property
    def side(self) -> int:
        """Side of the models' square input, in pixels."""
        return 32 if self.quick else 224

    @property
    def recipe(self) -> "Recipe":
        """The recipe of all checks."""
        from engine.recipes import Recipe

        return Recipe(size=self.side, crop=self.side)

    def pick(self, full: Any, quick: Any) -> Any:
        """Return one of two sizes."""
        return quick if self.quick else full

    def runtime(self, precision: "Precision" = "fp32", *, compile: bool = False) -> "Runtime":
        """Return the runtime of the device under test."""
        from engine.runtime import Runtime

        return Runtime.resolve(self.device, precision, compile=compile)

    @property
    def cpu(self) -> "Runtime":
        """The reference runtime: float32 on the CPU."""
        from engine.runtime import Runtime

        return Runtime.resolve("cpu", "fp32")

    @property
    def precisions(self) -> "tuple[Precision, ...]":
        """Precisions of the device; the CPU refuses fp16."""
        return ("fp32", "bf16", "fp16") if self.on_cuda else ("fp32", "bf16")

    def spec(self, slug: str) -> "ModelSpec":
        """Return a model with this context's recipe."""
        from engine.models import resolve

        return resolve(slug, recipe=self.recipe)

    def images(self, kind: ImageClass, count: int) -> list[Path]:
        """Return generated files, the same in every run."""
        return write_images(self.work, kind, count)

    def manifest(self, kinds: Sequence[ImageClass], count: int, rows: int | None = None) -> "Manifest":
        """Return a manifest of `count` files of each kind, repeated until there are `rows` rows."""
        paths = [path for kind in kinds for path in self.images(kind, count)]
        return manifest_of(paths, self.work, rows)


def expected_s(check: Check, quick: bool, timings: Mapping[str, float]) -> float:
    """Return the seconds that a check is expected to take; 0 without the packages that it needs.

    Args:
        quick: at tiny sizes.
        timings: name of a check -> seconds that it took before.
    """
    if not all(map(is_installed, check.needs)):
        return 0.0
    if check.name in timings:
        return 1 + 1.2 * timings[check.name]
    return min(check.seconds, packing.QUICK_S) if quick else check.seconds


def attempt(check: Check, context: Context) -> Outcome:
    """Run one check; no error of it propagates except KeyboardInterrupt."""
    start = time.perf_counter()

    def outcome(status: Status, **fields: Any) -> Outcome:
        return Outcome(check.name, check.kind, status, round(time.perf_counter() - start, 2), **fields)

    remaining_s = context.deadline - time.time()
    if 0 < (needed := context.expected_s(check)) > remaining_s or (not check.needs and remaining_s < 0):
        return outcome("skipped", reason=f"{max(remaining_s, 0):.0f} s left, {needed:.0f} s needed")
    try:
        for module in check.needs:
            require(module, OPTIONAL[module])
        verdict = check.run(context)
    except Skip as reason:
        return outcome("skipped", reason=str(reason))
    except Exception as error:  # the report covers all checks, whatever one raises
        text = " ".join(str(error).split())[:500]
        return outcome(
            "failed", reason=f"{type(error).__name__}: {text}", trace=traceback.format_exc()[-4000:]
        )
    finally:
        _tidy(context.device)
    status: Status = "passed" if verdict.ok else "failed"
    return outcome(
        "measured" if check.kind == "measurement" else status,
        numbers=verdict.numbers,
        limit=verdict.limit,
        readings=[judged(reading.to_dict(), counts=context.counts) for reading in verdict.readings],
        ceilings=dict(verdict.ceilings),
    )


def _tidy(device: str) -> None:
    from engine.runtime import release_cached

    gc.collect()
    try:
        release_cached(device)
    except Exception:  # the device is lost, which `device_works` detects next
        return


def device_works(device: str) -> bool:
    """Return True if the device still computes; after some faults a process can no longer use it."""
    import torch

    try:
        return float((torch.ones(8, device=device) * 2).sum().item()) == 16.0
    except Exception:  # any error means that it does not
        return False
