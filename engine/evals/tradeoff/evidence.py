"""The records that models are judged by: those of the bank as it is today, and new probes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

from engine.errors import BankError, MachineFault, Refused
from engine.evals.comparison.choose import Choice, Chosen, question_of
from engine.evals.probe.bank import BankProbe, probes_from_bank
from engine.evals.probe.evaluate import ProbeOptions, Progress
from engine.evals.probe.options import SplitOptions
from engine.evals.tradeoff.options import Options
from stores.bank.feature_info import FeatureInfo
from stores.bank.reader import Bank
from stores.bank.record_index import RecordEntry, read_index
from stores.bank.records import together
from stores.json_types import JsonObject


@dataclass(frozen=True, eq=False)
class Evidence:
    """The records of a choice.

    Attributes:
        choice: a record for each model that is judged.
        features: of these models, in the same order.
        notes: on models that are not judged, a sentence each.
    """

    choice: Choice
    features: tuple[FeatureInfo, ...]
    notes: tuple[str, ...]


def evidence_of(
    bank: Bank,
    features: Sequence[FeatureInfo],
    options: Options,
    fitting: ProbeOptions,
    on_progress: Callable[[str], Progress] | None = None,
) -> Evidence:
    """Return a record of each feature, all with the settings of the newest one.

    Records of other labels, of other images, or from before the labels were changed do not count. Features
    without a record are probed where the newest record has the default settings, or there is none; other
    evaluations, and other settings, are the user's to repeat.

    Args:
        features: sealed ones of the bank.
        fitting: how probes are fitted, and where.
        on_progress: as for `probes_from_bank`.

    Raises:
        Refused: no record, and none that could be made; the remedy has the command.
        BankError: damage.
    """
    entries = _current(bank, features, options)
    lacking = _lacking(features, entries)
    if lacking and options.evaluation == "probe" and _is_usual(entries, options):
        _probe(bank, lacking, options, fitting, on_progress)
        entries = _current(bank, features, options)
        lacking = _lacking(features, entries)
    judged = tuple(info for info in features if info not in lacking)
    if not judged:
        raise Refused(
            f"{bank.path} has no record of {options.evaluation} of label {options.label!r}"
            + (" in the mode as-published" if options.mode == "as-published" else ""),
            "Models are chosen by their records",
            f"run {_command(bank, [], options)} first",
        )
    notes = [
        f"{info.title} is not judged: it has no record of {options.evaluation} with the settings of the "
        f"newest; run {_command(bank, [info.title], options)} with these settings"
        for info in lacking
    ]
    records = tuple(Chosen(bank, entries[info.name]) for info in judged)
    choice = Choice(options.evaluation, records, tuple(info.title for info in judged), ())
    return Evidence(choice, judged, tuple(notes))


def _current(bank: Bank, features: Sequence[FeatureInfo], options: Options) -> dict[str, RecordEntry]:
    """Return feature -> its latest record, among those with the settings of the newest."""
    keys = {info.name: info.key.digest for info in features}
    entries = [entry for entry in read_index(bank.path) if _counts(entry, bank, keys, options)]
    newest = _question(entries[-1]) if entries else {}
    return {entry.feature: entry for entry in entries if _question(entry) == newest}


def _counts(entry: RecordEntry, bank: Bank, keys: Mapping[str, str], options: Options) -> bool:
    """Return whether a record is of the evaluation and label, and of the bank as it is today."""
    record = entry.record
    return (
        record is not None
        and record.kind == options.evaluation
        and entry.feature in keys
        and record.used.get("key") == keys[entry.feature]
        and record.used.get("manifest_digest") == bank.manifest_digest
        and record.used.get("label") == options.label
        and not record.asked.get("multi_label")
        and record.asked.get("mode", "default") == options.mode
        and bool(record.predictions)
    )


def _question(entry: RecordEntry) -> JsonObject:
    assert entry.record is not None
    return question_of(entry.record)


def _lacking(features: Sequence[FeatureInfo], entries: Mapping[str, RecordEntry]) -> list[FeatureInfo]:
    return [info for info in features if info.name not in entries]


def _is_usual(entries: Mapping[str, RecordEntry], options: Options) -> bool:
    """Return whether the records are those that probing now would add to."""
    usual = {
        "label": options.label,
        "multi_label": False,
        "policies": None,
        "splits": asdict(SplitOptions(mode=options.mode)),
        "mode": options.mode,
        "cross_validation": None,
    }
    return all(_question(entry) == usual for entry in entries.values())


def _probe(
    bank: Bank,
    features: Sequence[FeatureInfo],
    options: Options,
    fitting: ProbeOptions,
    on_progress: Callable[[str], Progress] | None,
) -> None:
    """Probe features and keep the records; a refusal says how to probe otherwise."""
    bank.manifest().column(options.label)  # other options of the probe would not mend an unknown column
    wanted = BankProbe((options.label,), splits=SplitOptions(mode=options.mode))
    try:
        with together() as batch:
            probes_from_bank(
                str(bank.path), [info.name for info in features], wanted, fitting, on_progress=on_progress
            )
    except (BankError, MachineFault):
        raise
    except Refused as error:
        raise Refused(
            error.found,
            error.rule,
            f"probe the models with options that suit this bank, by {_command(bank, [], options)}; these "
            "records are then taken",
        ) from error
    if batch.lost:
        raise batch.lost[0]


def _command(bank: Bank, models: Sequence[str], options: Options) -> str:
    """Return the command that evaluates models, all of the bank if none is named."""
    label = f" --label {options.label}" if options.evaluation == "probe" and options.label != "label" else ""
    mode = f" --mode {options.mode}" if options.mode != "default" and options.evaluation != "knn" else ""
    words = "".join(f" --model {model}" for model in models or ["all"])
    return f"`embank {options.evaluation} {bank.path}{words}{label}{mode}`"
