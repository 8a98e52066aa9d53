"""Pictures of results, drawn with matplotlib without a display."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from engine.report.drawing import save_figure
from engine.report.probes import sweeps
from stores.bank.reader import Bank

matplotlib.use("Agg")

RIGHT, WRONG, QUERY = "#0072b2", "#d55e00", "#000000"  # as on the sheets of `search`
QUERIES, NEIGHBOURS = 4, 6


def overview(
    rows: Sequence[tuple[Any, ...]],
    probes: Sequence[Mapping[str, Any]],
    banks: Mapping[str, Path],
    images: Path,
    model: str,
    out: Path,
) -> Path:
    """Few-shot accuracy beside chance, the sweeps of probes, and images with their nearest neighbours.

    Args:
        rows: (data set, model, images, way, shot, chance, accuracy, ci95) as the quickstart's table.
        probes: as `probes_from_bank` gives them, with the data set's name as `set`; none leaves their panel
            out.
        banks: data set -> bank whose manifest's files lie in `images / data set`.
        model: whose features decide what is near (cosine).
    """
    import matplotlib.pyplot as plt

    figure = plt.figure(figsize=(13, 4.0 + 2.9 * len(banks)), layout="constrained")
    parts: Any = figure.subfigures(1 + len(banks), 1, height_ratios=[1.5] + [1.25] * len(banks))
    panels = parts[0].subplots(1, 2 if probes else 1, squeeze=False)[0]
    _bars(panels[0], rows)
    if probes:
        sweeps(panels[1], probes)
        panels[1].set_title(
            f"linear probe, {', '.join(dict.fromkeys(p['set'] for p in probes))}", fontsize=10
        )
    for part, (name, bank) in zip(parts[1:], banks.items(), strict=True):
        _neighbours(part, name, Bank.open(bank), images / name, model)
    save_figure(figure, out, "quickstart", dpi=110)
    plt.close(figure)
    return out


def _bars(axes: Any, rows: Sequence[tuple[Any, ...]]) -> None:
    names = [f"{row[0]}, {row[3]}-way {row[4]}-shot\n{row[1]}" for row in rows]
    place = np.arange(len(rows))[::-1]
    axes.barh(
        place, [r[6] for r in rows], xerr=[r[7] for r in rows], color="#4a7ab5", height=0.6, ecolor="black"
    )
    for y, row in zip(place, rows, strict=True):
        axes.plot([row[5]] * 2, [y - 0.35, y + 0.35], color="black", linestyle=":", linewidth=1.5)
        axes.text(row[6] + row[7] + 0.01, y, f"{row[6]:.3f} ± {row[7]:.3f}", va="center", fontsize=9)
    axes.set_yticks(place, names, fontsize=8)
    axes.set_xlim(0, 1.15)
    axes.set_xlabel("few-shot accuracy (dotted: chance)", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def _neighbours(part: Any, name: str, bank: Bank, folder: Path, model: str) -> None:
    from PIL import Image

    features = bank.features(model)
    codes, vocabulary = bank.column("label")
    uris = bank.manifest().uris
    queries = _spread(codes, features.ok)
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
            same = QUERY if image == query else RIGHT if codes[image] == codes[query] else WRONG
            axes.set_title(vocabulary[codes[image]], fontsize=8, color=same)
            for spine in axes.spines.values():
                spine.set(color=same, linewidth=2.5)


def _spread(codes: NDArray[np.int32], ok: NDArray[np.bool_]) -> list[int]:
    """One usable image of each of several classes, evenly spread over the classes."""
    classes = np.unique(codes[ok & (codes >= 0)])
    chosen = np.resize(
        classes[np.linspace(0, len(classes) - 1, min(QUERIES, len(classes))).astype(int)], QUERIES
    )
    return [int(np.flatnonzero(ok & (codes == c))[7 * i % 11]) for i, c in enumerate(chosen)]


def _nearest(array: NDArray[Any], ok: NDArray[np.bool_], query: int) -> NDArray[np.intp]:
    x = np.nan_to_num(array.astype(np.float32))
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    similarity = np.where(ok, x @ x[query], -np.inf)
    similarity[query] = -np.inf
    return np.argsort(-similarity)[:NEIGHBOURS]
