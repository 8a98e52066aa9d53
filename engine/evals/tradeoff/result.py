"""Results of a choice among models."""

from dataclasses import dataclass

from engine.evals.comparison.result import Comparison, Standing
from engine.evals.tradeoff.costs import ModelCosts
from engine.evals.tradeoff.words import verdict_of
from stores.json_types import JsonObject


@dataclass(frozen=True)
class Candidate:
    """One model, with evidence and costs.

    Attributes:
        standing: its value, interval and letters.
        feature: full name.
        costs: what it costs.
        member: whether it is in the Pareto set.
        replaced_by: members that are at least as cheap, and told better or not told apart and cheaper.
        reason: why a model is not judged, e.g. its value is undefined; else "".
        validity: issues of its record, as they stand there.
    """

    standing: Standing
    feature: str
    costs: ModelCosts
    member: bool
    replaced_by: tuple[str, ...]
    reason: str = ""
    validity: tuple[JsonObject, ...] = ()

    def to_dict(self) -> JsonObject:
        """Return all fields; `reason` where there is one."""
        body: JsonObject = {
            **self.standing.to_dict(),
            "feature": self.feature,
            **self.costs.to_dict(),
            "in_set": self.member,
            "replaced_by": list(self.replaced_by),
            "validity": list(self.validity),
        }
        return {**body, "reason": self.reason} if self.reason else body


@dataclass(frozen=True)
class ModelChoice:
    """Models with evidence and costs, and the Pareto set among them.

    Attributes:
        bank: that they are features of.
        label: that they are judged by.
        comparison: of their records in pairs.
        candidates: the model with the best value first.
        margin: rates that differ by no more than this share count as equal.
        notes: remarks, one sentence each.
    """

    bank: str
    label: str
    comparison: Comparison
    candidates: tuple[Candidate, ...]
    margin: float
    notes: tuple[str, ...]

    @property
    def members(self) -> tuple[str, ...]:
        """The models of the Pareto set, the one with the best value first."""
        return tuple(candidate.standing.model for candidate in self.candidates if candidate.member)

    @property
    def verdict(self) -> tuple[str, ...]:
        """The result in sentences, the most important one first."""
        return verdict_of(self.to_dict(with_verdict=False))

    def __repr__(self) -> str:
        return f"ModelChoice({' '.join(self.verdict)})"

    def to_dict(self, with_verdict: bool = True) -> JsonObject:
        """Return `{bank, label, evaluation, metric, models, set, pairs, verdict, ...}`."""
        of_pairs = self.comparison.to_dict(with_verdict=False)
        del of_pairs["models"], of_pairs["notes"]
        body: JsonObject = {
            "bank": self.bank,
            "label": self.label,
            **of_pairs,
            "margin": self.margin,
            "models": [candidate.to_dict() for candidate in self.candidates],
            "set": list(self.members),
            "notes": list(self.notes),
        }
        return {**body, "verdict": list(self.verdict)} if with_verdict else body
