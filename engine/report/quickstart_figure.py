"""The figure of the quickstart: few-shot accuracy, probes, and images with their nearest neighbours.

The upper panels are drawn from records alone; the lower ones show images, and so need them and their bank.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from numpy.typing import NDArray

from engine.report.drawing import save_figure
from engine.report.probes import draw_sweeps, sweeps_of
from engine.report.record_values import number, refuse_lacking, text
from stores.bank.reader import Bank
from stores.bank.records import RunRecord

matplotlib.use("Agg")

SAME_CLASS, OTHER_CLASS, QUERY = "#0072b2", "#d55e00", "#000000"  # as on the sheets of `search`
QUERIES, NEIGHBOURS = 4, 6


class Bar(NamedTuple):
    """Few-shot accuracy of a model on a data set, as a record has it."""

    name: str
    chance: float
    accuracy: float
    ci95: float

    @classmethod
    def of(cls, data_set: str, record: RunRecord) -> "Bar":
        """Take a record of few-shot episodes. Raises Refused: it lacks a number."""
        needed = ("asked.n_way", "asked.n_shot", "metrics.accuracy", "metrics.ci95")
        refuse_lacking(record, needed, "run the quickstart again")
        asked, metrics = record.asked, record.metrics
        way, shot = number(asked["n_way"]), number(asked["n_shot"])
        name = f"{data_set}, {way:g}-way {shot:g}-shot\n{text(asked.get('model'))}"
        return cls(name, 1 / way, number(metrics["accuracy"]), number(metrics["ci95"]))


def overview(
    records: Mapping[str, Sequence[RunRecord]],
    banks: Mapping[str, Path],
    images: Path,
    model: str,
    out: Path,
) -> Path:
    """Draw few-shot accuracy beside chance, the sweeps of probes, and images with their nearest neighbours.

    Args:
        records: data set -> its records of few-shot episodes and probes; without a probe, their panel is left
            out.
        banks: data set -> bank whose manifest's files lie in `images / data set`.
        images: folder of the data sets.
        model: whose features decide which images are neighbours (by cosine).
        out: PNG, SVG or PDF by its ending.
    """
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(13, 4.0 + 2.9 * len(banks)), layout="constrained")
    parts: Any = figure.subfigures(1 + len(banks), 1, height_ratios=[1.5] + [1.25] * len(banks))
    fewshot, probes = _of_kind(records, "fewshot"), _of_kind(records, "probe")
    curves = [curve for _, record in probes for curve in sweeps_of(record)]
    panels = parts[0].subplots(1, 2 if curves else 1, squeeze=False)[0]
    _bars(panels[0], [Bar.of(name, record) for name, record in fewshot])
    if curves:
        draw_sweeps(panels[1], curves)
        panels[1].set_title(f"linear probe, {', '.join(dict(probes))}", fontsize=10)
    for part, (name, bank) in zip(parts[1:], banks.items(), strict=True):
        _neighbours(part, name, Bank.open(bank), images / name, model)
    save_figure(figure, out, "quickstart", dpi=110)
    plt.close(figure)
    return out


def _of_kind(records: Mapping[str, Sequence[RunRecord]], kind: str) -> list[tuple[str, RunRecord]]:
    """Return (data set, record) of all records of a kind."""
    return [(name, record) for name, several in records.items() for record in several if record.kind == kind]


def _bars(axes: Any, bars: Sequence[Bar]) -> None:
    place = np.arange(len(bars))[::-1]
    accuracy, ci95 = [bar.accuracy for bar in bars], [bar.ci95 for bar in bars]
    axes.barh(place, accuracy, xerr=ci95, color="#4a7ab5", height=0.6, ecolor="black")
    for y, bar in zip(place, bars, strict=True):
        axes.plot([bar.chance] * 2, [y - 0.35, y + 0.35], color="black", linestyle=":", linewidth=1.5)
        label = f"{bar.accuracy:.3f} ± {bar.ci95:.3f}"
        axes.text(bar.accuracy + bar.ci95 + 0.01, y, label, va="center", fontsize=9)
    axes.set_yticks(place, [bar.name for bar in bars], fontsize=8)
    axes.set_xlim(0, 1.2)
    axes.set_xticks(np.linspace(0, 1, 6))
    axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel("few-shot accuracy (dotted: chance)", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _neighbours(part: Any, name: str, bank: Bank, folder: Path, model: str) -> None:
    from PIL import Image

    features = bank.features(model)
    codes, vocabulary = bank.column("label")
    uris = bank.manifest().uris
    queries = _spread_queries(codes, features.ok)
    part.suptitle(
        f"{name}: left of each group a query, then its nearest neighbours by {model} (blue: same class)",
        fontsize=10,
    )
    grid = part.subplots(len(queries) // 2, 2 * (NEIGHBOURS + 1), squeeze=False)
    for i, query in enumerate(queries):
        row = grid[i // 2][(i % 2) * (NEIGHBOURS + 1) :]
        for axes, image in zip(row, [query, *_nearest(features.array, features.ok, query)], strict=False):
            axes.imshow(Image.open(folder / uris[image]).convert("RGB"))
            axes.set_xticks([])
            axes.set_yticks([])
            same_class = codes[image] == codes[query]
            colour = QUERY if image == query else SAME_CLASS if same_class else OTHER_CLASS
            axes.set_title(vocabulary[codes[image]], fontsize=8, color=colour)
            for spine in axes.spines.values():
                spine.set(color=colour, linewidth=2.5)


def _spread_queries(codes: NDArray[np.int32], ok: NDArray[np.bool_]) -> list[int]:
    """Choose one usable image from each of several classes, which are spread evenly over all classes."""
    classes = np.unique(codes[ok & (codes >= 0)])
    spread = classes[np.linspace(0, len(classes) - 1, min(QUERIES, len(classes))).astype(int)]
    return [
        int(np.flatnonzero(ok & (codes == code))[7 * i % 11])
        for i, code in enumerate(np.resize(spread, QUERIES))
    ]


def _nearest(array: NDArray[Any], ok: NDArray[np.bool_], query: int) -> NDArray[np.intp]:
    x = np.nan_to_num(array.astype(np.float32))
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    similarity = np.where(ok, x @ x[query], -np.inf)
    similarity[query] = -np.inf
    return np.argsort(-similarity)[:NEIGHBOURS]
