"""Losses of reconstructions over their updates, drawn from the record."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused
from engine.report.drawing import save_figure
from engine.report.json_parts import members
from engine.report.record_values import text
from stores.bank.records import RunRecord

#: Most curves that are named in the legend.
_NAMED = 12


@dataclass(frozen=True, eq=False)
class Curves:
    """The losses of a record.

    Attributes:
        steps: int64 [n], updates done. names: of the networks, N. losses: float64 [N, n].
    """

    steps: NDArray[np.int64]
    names: tuple[str, ...]
    losses: NDArray[np.float64]

    @classmethod
    def of(cls, record: RunRecord, name: str, remedy: str) -> "Curves":
        """Read the losses of a record.

        Args:
            name, remedy: for the error.

        Raises:
            Refused: the record has none.
        """
        curves = members(record.metrics.get("curves", {}))
        try:
            steps = np.array(curves.get("steps", []), np.int64)
            names = tuple(text(of) for of in list(curves.get("of", [])))  # type: ignore[arg-type]
            losses = np.array(curves.get("losses", []), np.float64)
        except (TypeError, ValueError):
            steps, names, losses = np.zeros(0, np.int64), (), np.zeros(0)
        if not names or losses.shape != (len(names), len(steps)):
            raise Refused(
                f"{name} has no losses", "The figure shows the losses of reconstructed images", remedy
            )
        return cls(steps, names, losses)


def loss_figure(record: RunRecord, out: Path) -> None:
    """Draw a curve for each network, both axes logarithmic.

    Args:
        record: that `Curves.of` can read.
        out: PNG, SVG or PDF by its ending, written atomically.

    Raises:
        Refused: no losses, or the folder is not writable. MachineFault: the disk is full or fails.
    """
    from matplotlib.figure import Figure

    curves = Curves.of(record, "the record", "run the reconstruction again")
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, losses in zip(curves.names, curves.losses, strict=True):
        axes.plot(curves.steps + 1, losses, linewidth=1.2, label=name)
    axes.set(xscale="log", yscale="log", xlabel="update", ylabel="mean squared error of the feature map")
    axes.set_title(f"Reconstruction from {text(record.asked.get('model'))}", fontsize=11)
    axes.grid(True, which="major", linewidth=0.4, alpha=0.5)
    if len(curves.names) <= _NAMED:
        axes.legend(fontsize=7, frameon=False)
    save_figure(figure, out, "reconstruct")
