"""Checks, their context, and running them one after another.

A check is a function of a `Context`, registered by `proof` (it passes or fails) or `measurement` (it
reports). Checks are isolated: an error in one is its failure, and the others continue. Results are written
after every check, because the machine may disappear at any moment.
"""

import gc
import importlib
import importlib.util
import pkgutil
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.images import ImageClass, manifest_of, write_images

if TYPE_CHECKING:
    from engine.models.catalog.lookup import ModelSpec
    from engine.recipes import Recipe
    from engine.runtime import Precision, Runtime
    from stores.manifest.manifest import Manifest

Status = Literal["passed", "failed", "measured", "skipped"]


class Skip(Exception):
    """Raised by a check that does not apply; the message is the reason."""


@dataclass(frozen=True)
class Verdict:
    """The result of a check.

    Attributes:
        numbers: JSON values, nested by subject; units are in the names.
        ok: whether a proof has passed; None for a measurement.
        limit: condition of a proof, or target of a measurement.
    """

    numbers: dict[str, Any]
    ok: bool | None = None
    limit: str = ""


@dataclass(frozen=True)
class Check:
    """A registered check.

    Attributes:
        name: unique; `subject: what`.
        kind: `proof` or `measurement`.
        run: the function.
        seconds: expected duration on a GPU; the check is not started with less time left.
        rank: lower ranks run first; proofs are below 50, checks that compile for long come last.
    """

    name: str
    kind: Literal["proof", "measurement"]
    run: "Callable[[Context], Verdict]"
    seconds: float
    rank: int

    @property
    def limit_s(self) -> float:
        """Seconds after which the check counts as hanging."""
        return 60 + 5 * self.seconds


@dataclass(frozen=True)
class Outcome:
    """The outcome of a check, as stored in the results."""

    name: str
    kind: str
    status: Status
    seconds: float
    reason: str = ""
    limit: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)
    trace: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return all fields for JSON."""
        return asdict(self)


_CHECKS: dict[str, Check] = {}


def proof(name: str, *, seconds: float, rank: int = 50) -> Callable[[Any], Any]:
    """Register a function of a Context that checks whether the device computes the same as the CPU."""
    return lambda function: _register(Check(name, "proof", function, seconds, rank))


def measurement(name: str, *, seconds: float, rank: int = 50) -> Callable[[Any], Any]:
    """Register a function of a Context that measures."""
    return lambda function: _register(Check(name, "measurement", function, seconds, rank))


def _register(check: Check) -> Any:
    if check.name in _CHECKS and _CHECKS[check.name].run.__module__ != check.run.__module__:
        raise ValueError(f"two checks are called {check.name!r}")
    _CHECKS[check.name] = check
    return check.run


def registered() -> list[Check]:
    """Return all checks of `benchmarks.gpu.checks`, in order of rank."""
    from benchmarks.gpu import checks

    for name in sorted(m.name for m in pkgutil.iter_modules(checks.__path__)):
        _import(f"{checks.__name__}.{name}")
    return sorted(_CHECKS.values(), key=lambda check: check.rank)


def _import(module: str) -> None:
    """Import a file of checks; a file that needs an absent package becomes a single skipped check."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        reason = f"{error.name} is not installed"

        def skipped(_: Context) -> Verdict:
            raise Skip(reason)

        subject = module.rpartition(".")[2]
        _CHECKS[subject] = Check(f"{subject}: all of it", "proof", skipped, 0, 0)


@dataclass
class Context:
    """The context of a check.

    Attributes:
        device: `cuda:N`, or `cpu` for the part that needs no GPU.
        quick: use tiny sizes, to test the suite itself.
        work: folder for images and banks; images are kept between checks and runs.
        deadline: `time.time()` at which the suite ends.
    """

    device: str
    quick: bool
    work: Path
    deadline: float

    @property
    def on_cuda(self) -> bool:
        """True for a CUDA device."""
        return self.device.startswith("cuda")

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

    def need(self, module: str, what: str) -> None:
        """Skip the check if a package is not installed."""
        try:
            present = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:
            present = False
        if not present:
            raise Skip(f"{what} is not installed")


def attempt(check: Check, context: Context) -> Outcome:
    """Run one check; no error of it propagates except KeyboardInterrupt."""
    start = time.perf_counter()

    def outcome(status: Status, **fields: Any) -> Outcome:
        return Outcome(check.name, check.kind, status, round(time.perf_counter() - start, 2), **fields)

    remaining_s = context.deadline - time.time()
    if remaining_s < check.seconds:
        return outcome("skipped", reason=f"{max(remaining_s, 0):.0f} s left, {check.seconds:.0f} s needed")
    try:
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
    if check.kind == "measurement":
        return outcome("measured", numbers=verdict.numbers, limit=verdict.limit)
    status: Status = "passed" if verdict.ok else "failed"
    return outcome(status, numbers=verdict.numbers, limit=verdict.limit)


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


def remaining(checks: Iterable[Check], outcomes: Iterable[Outcome]) -> list[Check]:
    """Return the checks that have no outcome yet."""
    done = {outcome.name for outcome in outcomes}
    return [check for check in checks if check.name not in done]
