"""Checks, what they are given, and running them one after another.

A check is a function of a `Context`, registered by `proof` (it passes or fails) or `measurement` (it
reports). Each is isolated: whatever one raises is its own failure and the rest goes on. Results are on disk
after every check, because the machine may be taken away at any moment.
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
    """Raised by a check that has nothing to do here; the text says why."""


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Attributes:
        numbers: JSON values, nested by what they are of; units in the names.
        ok: of a proof; None for a measurement.
        limit: what a proof holds the numbers to, or what a measurement hopes for.
    """

    numbers: dict[str, Any]
    ok: bool | None = None
    limit: str = ""


@dataclass(frozen=True)
class Check:
    """One registered check.

    Attributes:
        name: unique; `subject: what`.
        kind: `proof` or `measurement`.
        seconds: that it should take on a GPU; it is not started with less time left.
        rank: lower ones run first; proofs below 50, what takes long to compile last.
    """

    name: str
    kind: Literal["proof", "measurement"]
    run: "Callable[[Context], Verdict]"
    seconds: float
    rank: int

    @property
    def limit_s(self) -> float:
        """Longer than this is a hang."""
        return 60 + 5 * self.seconds


@dataclass(frozen=True)
class Outcome:
    """What became of a check, as it is kept in the results."""

    name: str
    kind: str
    status: Status
    seconds: float
    reason: str = ""
    limit: str = ""
    numbers: dict[str, Any] = field(default_factory=dict)
    trace: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


_CHECKS: dict[str, Check] = {}


def proof(name: str, *, seconds: float, rank: int = 50) -> Callable[[Any], Any]:
    """Register a function of a Context that says whether the device computes what the CPU does."""
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
    """All checks of `benchmarks.gpu.checks`, in the order they run."""
    from benchmarks.gpu import checks

    for name in sorted(m.name for m in pkgutil.iter_modules(checks.__path__)):
        _import(f"{checks.__name__}.{name}")
    return sorted(_CHECKS.values(), key=lambda check: check.rank)


def _import(module: str) -> None:
    """Import a file of checks; one that needs an absent package becomes a single, skipped check."""
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
    """What a check is given.

    Attributes:
        device: `cuda:0`, or `cpu` for the half that needs no GPU.
        quick: sizes for a test of the suite, not for numbers.
        work: folder for images and banks; images are kept between checks and runs.
        deadline: `time.time()` at which the suite ends.
    """

    device: str
    quick: bool
    work: Path
    deadline: float

    @property
    def on_cuda(self) -> bool:
        return self.device.startswith("cuda")

    @property
    def side(self) -> int:
        """Of the square that models see, in pixels."""
        return 32 if self.quick else 224

    @property
    def recipe(self) -> "Recipe":
        from engine.recipes import Recipe

        return Recipe(size=self.side, crop=self.side)

    def pick(self, full: Any, quick: Any) -> Any:
        """One of two sizes."""
        return quick if self.quick else full

    def runtime(self, precision: "Precision" = "fp32", *, compile: bool = False) -> "Runtime":
        """The device under test."""
        from engine.runtime import Runtime

        return Runtime.resolve(self.device, precision, compile=compile)

    @property
    def cpu(self) -> "Runtime":
        """The reference: float32 on the CPU."""
        from engine.runtime import Runtime

        return Runtime.resolve("cpu", "fp32")

    @property
    def precisions(self) -> "tuple[Precision, ...]":
        """Those that the device computes in; the CPU refuses fp16."""
        return ("fp32", "bf16", "fp16") if self.on_cuda else ("fp32", "bf16")

    def spec(self, slug: str) -> "ModelSpec":
        from engine.models import resolve

        return resolve(slug, recipe=self.recipe)

    def images(self, kind: ImageClass, count: int) -> list[Path]:
        """Generated files, the same in every run."""
        return write_images(self.work, kind, count)

    def manifest(self, kinds: Sequence[ImageClass], count: int, rows: int | None = None) -> "Manifest":
        """`count` files of each kind, gone round until there are `rows` rows."""
        paths = [path for kind in kinds for path in self.images(kind, count)]
        return manifest_of(paths, self.work, rows)

    def need(self, module: str, what: str) -> None:
        """Skip the check where a package is not installed."""
        try:
            found = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:
            found = False
        if not found:
            raise Skip(f"{what} is not installed")


def attempt(check: Check, context: Context) -> Outcome:
    """Run one check; nothing it raises gets out, but KeyboardInterrupt."""
    start = time.perf_counter()

    def outcome(status: Status, **more: Any) -> Outcome:
        return Outcome(check.name, check.kind, status, round(time.perf_counter() - start, 2), **more)

    left = context.deadline - time.time()
    if left < check.seconds:
        return outcome("skipped", reason=f"{max(left, 0):.0f} s left, {check.seconds:.0f} s needed")
    try:
        verdict = check.run(context)
    except Skip as reason:
        return outcome("skipped", reason=str(reason))
    except Exception as error:  # a report over all checks is wanted, whatever one raises
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
    except Exception:  # a device that is lost; `device_works` says so next
        return


def device_works(device: str) -> bool:
    """Whether the device still computes; after some faults a process has lost it for good."""
    import torch

    try:
        return float((torch.ones(8, device=device) * 2).sum().item()) == 16.0
    except Exception:  # any error is the answer
        return False


def remaining(checks: Iterable[Check], outcomes: Iterable[Outcome]) -> list[Check]:
    """Checks without an outcome yet."""
    done = {outcome.name for outcome in outcomes}
    return [check for check in checks if check.name not in done]
