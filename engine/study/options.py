"""Options of a cell as the dataclass of its evaluation, which refuses nonsense when it is made."""

from collections.abc import Callable, Mapping
from typing import Any

from engine.errors import Refused
from stores.json_types import Json

_Values = Mapping[str, Any]
#: Options that belong to the cell and not to the dataclass.
_APART = ("controls", "label", "strata")


def options_of(kind: str, options: Mapping[str, Json], mode: str = "default", seed: int = 0) -> Any:
    """Make the options of an evaluation.

    Args:
        kind: one of `engine.study.study.KINDS`.
        options: as those of a cell (`engine.study.study.Cell.options`).
        mode: `default` or `as-published`; of no effect on kinds without modes.
        seed: of no effect on kinds without one.

    Returns:
        `engine.evals.fewshot.options.Options`, `engine.evals.neighbours.options.ClassifyOptions` or
        `AuditOptions`, `engine.evals.probe.options.Options`, `FinetuneOptions`, `InvarianceOptions`,
        `MultiViewOptions`, `SaliencyOptions` or `ReconstructionOptions`.

    Raises:
        Refused: what the dataclass refuses.
    """
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in options.items()}
    return _MAKERS[kind](values, mode, seed)


def _own(values: _Values, *names: str) -> dict[str, Any]:
    """Return the values without those that have other places."""
    return {name: value for name, value in values.items() if name not in (*_APART, *names)}


def _fewshot(values: _Values, mode: str, seed: int) -> Any:
    from engine.evals.fewshot.options import Options

    return Options(**_own(values), mode=mode, seed=seed)


def _knn(values: _Values, mode: str, seed: int) -> Any:
    from engine.evals.neighbours.options import ClassifyOptions

    return ClassifyOptions(**_own(values))


def _audit(values: _Values, mode: str, seed: int) -> Any:
    from engine.evals.neighbours.options import AuditOptions

    return AuditOptions(**_own(values))


_SPLITS = {
    "train_split": "train",
    "val_split": "val",
    "test_split": "test",
    "val_fraction": "fraction",
    "holdout": "holdout",
}
_TARGETS = ("multi_label", "uncertain", "blank")


def _learning(values: _Values, mode: str, seed: int) -> dict[str, Any]:
    """Return the options that probes and finetuning share: findings, policies and splits."""
    from engine.evals.probe.options import Policies, SplitOptions

    multi_label, uncertain, blank = (values.get(name) for name in _TARGETS)
    given = {field: values[name] for name, field in _SPLITS.items() if name in values}
    return {
        "findings": tuple(values.get("label", ("label",))) if multi_label else (),
        "policies": Policies.of(mode, uncertain, blank) if multi_label or uncertain or blank else None,
        "splits": SplitOptions(**given, seed=seed, mode=mode),
    }


def _probe(values: _Values, mode: str, seed: int) -> Any:
    from engine.evals.probe.fold_options import Folds
    from engine.evals.probe.options import LowShot, Options
    from engine.evals.probe.selection import C_MAX, C_MIN, VALUES, grid
    from engine.evals.probe.stratify import Stratify

    low_shot, folds = values.get("low_shot"), values.get("folds")
    draws, repeats = values.get("low_shot_draws", 5), values.get("repeats", 1)
    for name, needed, other in (("low_shot_draws", low_shot, "low_shot"), ("repeats", folds, "folds")):
        if name in values and needed is None:
            raise Refused(f"{name} without {other}", f"They are of {other}", f"add {other}, or drop {name}")
    C = grid(values.get("c_min", C_MIN), values.get("c_max", C_MAX), values.get("values", VALUES))
    grid_names, curves = ("c_min", "c_max", "values"), ("low_shot", "low_shot_draws", "folds", "repeats")
    return Options(
        C=C,
        **_own(values, *_SPLITS, *_TARGETS, *grid_names, *curves),
        mode=mode,
        seed=seed,
        low_shot=LowShot(low_shot, draws, seed) if low_shot is not None else None,
        strata=tuple(map(Stratify.parse, values.get("strata", ()))),
        folds=Folds(folds, repeats) if folds is not None else None,
        **_learning(values, mode, seed),
    )


def _finetune(values: _Values, mode: str, seed: int) -> Any:
    from engine.evals.finetune.options import FinetuneOptions

    own = _own(values, *_SPLITS, *_TARGETS)
    return FinetuneOptions(**own, mode=mode, seed=seed, **_learning(values, mode, seed))


def _regularised(values: _Values) -> dict[str, Any]:
    from engine.kernels.whitening import Regularisation

    text = values.get("regularisation")
    return {} if text is None else {"regularisation": Regularisation.parse(text)}


def _invariance(values: _Values, mode: str, seed: int) -> Any:
    from engine.evals.invariance.options import InvarianceOptions

    own = {"transforms": (), **_own(values, "regularisation")}
    _check_arithmetic(own)
    return InvarianceOptions(**own, **_regularised(values), mode=mode, seed=seed)  # type: ignore[arg-type]


def _multiview(values: _Values, mode: str, seed: int) -> Any:
    from engine.evals.invariance.options import MultiViewOptions
    from stores.limits import check_whole

    own = _own(values, "regularisation")
    _check_arithmetic(own)
    if own.get("images") is not None:
        check_whole("images", own["images"], 1, 100_000_000)
    return MultiViewOptions(**own, **_regularised(values), seed=seed)


def _check_arithmetic(own: _Values) -> None:
    if own.get("arithmetic", "float64") not in ("float64", "float32"):
        raise Refused(f"arithmetic {own['arithmetic']!r}", "It is float64 or float32", "choose one")


def _saliency(values: _Values, mode: str, seed: int) -> Any:
    from engine.evals.saliency.options import SaliencyOptions

    return SaliencyOptions(**_own(values), mode=mode, seed=seed)


def _reconstruct(values: _Values, mode: str, seed: int) -> Any:
    from engine.evals.reconstruction.options import ReconstructionOptions

    own = _own(values, "networks")
    return ReconstructionOptions(**own, seeds=values.get("networks"), mode=mode, seed=seed)


_MAKERS: dict[str, Callable[[_Values, str, int], Any]] = {
    "fewshot": _fewshot,
    "knn": _knn,
    "probe": _probe,
    "finetune": _finetune,
    "invariance": _invariance,
    "multiview": _multiview,
    "saliency": _saliency,
    "reconstruct": _reconstruct,
    "audit": _audit,
}
