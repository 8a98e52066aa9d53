"""The evaluations of a study file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.errors import Refused
from engine.study import schema
from engine.study.kinds import KINDS_BY_NAME, TRANSFORMS, Kind
from engine.study.options import options_of
from engine.study.study import Evaluation
from engine.study.values import Value, suggestion
from stores.json_types import Json
from stores.limits import check_seed

MODES = ("default", "as-published")


@dataclass(frozen=True)
class Defaults:
    """What the study says for all of its evaluations.

    Attributes:
        datasets, models: names that there are.
        modes, seeds, controls, compare: as `engine.study.study.Evaluation`.
    """

    datasets: tuple[str, ...]
    models: tuple[str, ...]
    modes: tuple[str, ...] = ("default",)
    seeds: tuple[int, ...] = (0,)
    controls: bool = True
    compare: bool = True

    @classmethod
    def of(cls, values: Mapping[str, Value], datasets: Sequence[str], models: Sequence[str]) -> "Defaults":
        """Read them from the study's own keys."""
        return cls(
            tuple(datasets),
            tuple(models),
            _modes(values["modes"]) if "modes" in values else ("default",),
            _seeds(values["seeds"]) if "seeds" in values else (0,),
            values["controls"].switch() if "controls" in values else True,
            values["comparisons"].switch() if "comparisons" in values else True,
        )


def read_evaluation(name: str, value: Value, defaults: Defaults) -> Evaluation:
    """Read one evaluation, and make its options once.

    Raises:
        Refused: unknown keys, names or words; options that the evaluation refuses in all of its modes.
    """
    kind = _kind(name, value)
    own = schema.names(schema.EVALUATION)
    values = value.members([*own, *(option.name for option in kind.options)])
    _refuse_what_kind_lacks(kind, values)
    evaluation = Evaluation(
        name=name,
        kind=kind.name,
        options=_options(kind, value, {key: given for key, given in values.items() if key not in own}),
        datasets=_names(values.get("datasets"), defaults.datasets),
        models=_names(values.get("models"), defaults.models),
        modes=_modes(values["modes"]) if "modes" in values else defaults.modes if kind.modes else MODES[:1],
        seeds=_seeds(values["seeds"]) if "seeds" in values else defaults.seeds if kind.seeds else (0,),
        controls=kind.controls
        and (values["controls"].switch() if "controls" in values else defaults.controls),
        compare=bool(kind.metrics)
        and (values["compare"].switch() if "compare" in values else defaults.compare),
        metric=values["metric"].word(kind.metrics) if "metric" in values else None,
        line=value.line,
    )
    check_options(evaluation, value)
    return evaluation


def _kind(name: str, value: Value) -> Kind:
    members = {member.key: member for member in value.node.members}
    if "kind" in members:
        member = members["kind"]
        return KINDS_BY_NAME[
            Value(value.file, f"{value.path}.kind", member.node, member.line).word(tuple(KINDS_BY_NAME))
        ]
    if name not in KINDS_BY_NAME:
        hint = suggestion(name, KINDS_BY_NAME)
        raise value.refused(
            f"It is called after its kind ({', '.join(KINDS_BY_NAME)}), or has one",
            f"{hint}, or add kind: KIND" if hint else "add kind: KIND",
            "",
        )
    return KINDS_BY_NAME[name]


def _refuse_what_kind_lacks(kind: Kind, values: Mapping[str, Value]) -> None:
    for key, has, what in (
        ("modes", kind.modes, "one mode"),
        ("seeds", kind.seeds, "no seed"),
        ("controls", kind.controls, "no controls"),
        ("compare", bool(kind.metrics), "no comparisons"),
        ("metric", bool(kind.metrics), "no comparisons"),
    ):
        if key in values and not has:
            raise values[key].refused(f"{kind.name} has {what}", f"remove {key}")


def _names(value: Value | None, known: tuple[str, ...]) -> tuple[str, ...]:
    return known if value is None else value.unique(lambda item: item.word(known))


def _modes(value: Value) -> tuple[str, ...]:
    return value.unique(lambda item: item.word(MODES))


def _seeds(value: Value) -> tuple[int, ...]:
    def seed(item: Value) -> int:
        number = item.integer()
        try:
            check_seed(number)
        except Refused as error:
            raise item.refused(error.rule, error.remedy) from error
        return number

    return value.unique(seed)


def _options(kind: Kind, value: Value, values: Mapping[str, Value]) -> dict[str, Json]:
    options: dict[str, Json] = {}
    for name, given in values.items():
        option = kind.option(name)
        assert option is not None
        options[name] = given.option(option)
    if kind.name == "invariance":
        options["transforms"] = _transforms(value, values.get("transforms"))
    return options


def _transforms(value: Value, given: Value | None) -> list[Json]:
    if given is None:
        raise value.refused("It names its transforms", "add transforms: [rotation, h_flip], or all", "")
    if [item.node.text for item in given.items()] == ["all"]:
        return [*TRANSFORMS]
    return [*given.unique(lambda item: item.word(TRANSFORMS))]


def check_options(evaluation: Evaluation, place: Value) -> None:
    """Make the options of an evaluation in each of its modes.

    Args:
        evaluation: with its options, or those of a data set in place of some.
        place: of options in the file, whose lines an error names.

    Raises:
        Refused: all modes refuse them; that some do is no error here.
    """
    errors = []
    for mode in evaluation.modes:
        error = _refusal(evaluation.kind, evaluation.options, mode)
        if error is None:
            return
        errors.append((mode, error))
    mode, error = errors[0]
    written = KINDS_BY_NAME[evaluation.kind].as_in_file
    rule, remedy = written(error.rule), written(error.remedy)
    for name, value in place.members().items():  # the one without which the others are accepted is named
        others = {key: given for key, given in evaluation.options.items() if key != name.replace("-", "_")}
        if len(others) < len(evaluation.options) and _refusal(evaluation.kind, others, mode) is None:
            raise value.refused(rule, remedy) from error
    raise place.refused(f"{written(error.found)}: {rule}", remedy) from error


def _refusal(kind: str, options: Mapping[str, Json], mode: str) -> Refused | None:
    try:
        options_of(kind, options, mode)
    except Refused as error:
        return error
    return None
