"""A figure whose panels are correlations: figures 7 and A1-A4."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.paper.experiments import missing, provenance
from benchmarks.paper.relation_tables import points_table, statistics_table
from benchmarks.paper.relation_words import about, alone
from benchmarks.paper.relations import Relation, shown
from benchmarks.paper.scatter import draw_one, draw_panels
from benchmarks.paper.style import save
from benchmarks.paper.values import Values
from engine.report.page.blocks import DataTable


@dataclass(frozen=True)
class RelationFigure:
    """A figure of panels with a correlation each.

    Attributes:
        name: of its page, e.g. `figurea1`.
        content: sentences of its caption.
        relations: returns all its panels; those with fewer than three models are not shown.
        needs: what values it cannot be drawn without.
    """

    name: str
    content: str
    relations: Callable[[Values], Sequence[Relation]]
    needs: str

    def shown(self, values: Values) -> tuple[Relation, ...]:
        """Return the panels, with p adjusted for all of them.

        Raises:
            Refused: none has three models with both numbers.
        """
        panels = shown(self.relations(values))
        if not panels:
            raise missing(self.name, f"{self.needs}, of three models on one data set")
        return panels

    def caption(self, values: Values) -> str:
        """Return what is shown, n, and where the values are from. Raises Refused if values are lacking."""
        return self._caption(values, self.shown(values))

    def _caption(self, values: Values, panels: Sequence[Relation]) -> str:
        words = about(panels) if len(panels) > 1 else alone(panels[0])
        return f"Figure {self.name[6:].upper()}. {self.content} {words} {provenance(values)}"

    def draw(self, values: Values, out: Path) -> None:
        """Draw the figure. Raises Refused if values are lacking."""
        panels = self.shown(values)
        caption = self._caption(values, panels)
        if len(panels) == 1:
            save(lambda: draw_one(panels[0], caption), out, self.name)
        else:
            save(lambda: draw_panels(panels, caption), out, self.name)

    def table(self, values: Values) -> DataTable:
        """Return the correlations. Raises Refused if values are lacking."""
        panels = self.shown(values)
        return statistics_table(self.name, self._caption(values, panels), panels)

    def points(self, values: Values) -> DataTable:
        """Return the points. Raises Refused if values are lacking."""
        panels = self.shown(values)
        return points_table(f"{self.name}-points", self._caption(values, panels), panels)
