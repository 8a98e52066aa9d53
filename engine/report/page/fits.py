"""The single fits of probe records: one, or one for each finding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.report.json_parts import objects
from engine.report.page.groups import Group, Member
from engine.report.record_values import at, text
from stores.json_types import Json


@dataclass(frozen=True)
class Fit:
    """One fit.

    Attributes:
        member: with the record.
        finding: name of the finding; "" where the record has one fit only.
        body: its metrics.
    """

    member: Member
    finding: str
    body: Mapping[str, Json]

    @property
    def title(self) -> str:
        """Model, and the finding where there is one."""
        return f"{self.member.model}, {self.finding}" if self.finding else self.member.model


def fits_of(group: Group, path: str) -> list[Fit]:
    """Return the fits of a group that have something at a dotted path of their metrics."""
    return [fit for member in group.members for fit in _fits(member) if at(fit.body, path) is not None]


def _fits(member: Member) -> list[Fit]:
    metrics = member.record.metrics
    if metrics.get("findings") is None:
        return [Fit(member, "", metrics)]
    return [Fit(member, text(body.get("label")), body) for body in objects(metrics["findings"])]


def lacking(groups: Sequence[Group], path: str, remedy: str) -> tuple[str, ...]:
    """Return a note for each group whose records have nothing at a dotted path of their metrics.

    Cross-validations are no lack: they have several fits for each model, which no record has one by one.
    """
    notes = []
    for group in groups:
        models = [
            member.model
            for member in group.members
            if not member.record.asked.get("cross_validation")
            and not any(at(fit.body, path) is not None for fit in _fits(member))
        ]
        if models:
            names = ", ".join(models)
            notes.append(f"{group.title}: not drawn of {names}: no metrics.{path} in the record. {remedy}.")
    return tuple(notes)
