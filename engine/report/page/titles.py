"""What records were asked, in a few words: the one place where the page's names of evaluations are made."""

from engine.report.record_values import at, text
from stores.bank.records import RunRecord

#: Kind -> its name, of kinds whose settings are not named.
_NAMES = {"saliency": "saliency", "reconstruct": "reconstruction", "embed": "embedding"}
#: Kind that learns labels -> its name.
_LEARNED = {"probe": "linear probe", "finetune": "finetuning"}
#: Findings that a title names; more are counted.
_FINDINGS = 3


def title_of(record: RunRecord) -> str:
    """Return what a record was asked, e.g. `5-way 20-shot` or `linear probe: edema`."""
    asked = record.asked
    if record.kind == "fewshot":
        return f"{asked.get('n_way')}-way {asked.get('n_shot')}-shot"
    if record.kind == "knn":
        alone = ", leave one out" if asked.get("leave_one_out") else ""
        return f"{record.metrics.get('k')}-NN{alone}"
    if record.kind in _LEARNED:
        folds = ", cross-validated" if asked.get("cross_validation") else ""
        return f"{_LEARNED[record.kind]}{folds}{_label(record)}"
    if record.kind in ("invariance", "multiview"):
        return f"invariance: {asked.get('transform', 'views')}"
    if record.kind == "compare":
        return f"comparison of models: {text(asked.get('evaluation')) or text(asked.get('kind'))}"
    return _NAMES.get(record.kind, record.kind)


def _label(record: RunRecord) -> str:
    """Return the columns that were learned; "" for the column `label`."""
    label = text(record.asked.get("label"))
    if label in ("", "label"):
        return ""
    targets = record.used.get("targets") or record.metrics.get("findings")
    count = len(targets) if isinstance(targets, list) and record.asked.get("multi_label") else 1
    return f" of {count} findings" if count > _FINDINGS else f": {label}"


def task_of(comparison: RunRecord) -> str:
    """Return what the records of a comparison were asked, as far as the comparison itself says."""
    task, kind = text(comparison.metrics.get("task")), text(comparison.metrics.get("evaluation"))
    kind = kind or text(comparison.asked.get("kind"))
    if kind == "fewshot":
        return task
    if kind == "knn":
        return f"{task.rpartition(' ')[2]}-NN"
    word = _LEARNED.get(kind, kind)
    if task in ("", "label"):
        return word
    findings = at(comparison.metrics, "findings")
    count = len(findings) if isinstance(findings, list) else 0
    return f"{word} of {count} findings" if count > _FINDINGS and ", " in task else f"{word}: {task}"
