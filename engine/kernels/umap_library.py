"""The only import of umap-learn, an optional dependency (`embank[umap]`), made when it is first needed.

UMAP: McInnes, Healy, Melville, arXiv 1802.03426.
"""

import importlib
import importlib.util
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused

#: Neighbours of each row in the graph that is laid out, umap-learn's default.
NEIGHBOURS = 15


def import_umap() -> Any:
    """Import umap-learn.

    Raises:
        Refused: it is not installed, or its import fails.
    """
    reason = ""
    if importlib.util.find_spec("umap") is None:
        reason = "umap-learn is not installed here"
    else:
        try:
            return importlib.import_module("umap")
        except Exception as error:  # numba refuses versions of numpy with errors of several kinds
            text = " ".join(str(error).split())[:300]
            reason = f"umap-learn cannot be imported here ({type(error).__name__}: {text})"
    raise Refused("method 'umap'", reason, "pip install 'embank[umap]', or use --method pca")


def umap_coordinates(rows: NDArray[Any], seed: int) -> NDArray[np.float64]:
    """Lay rows out in the plane by UMAP with its default settings, on one thread, so that a seed decides.

    Args:
        rows: [n, d] of any float type, finite, n at least 3.

    Returns:
        float64 [n, 2]; distances between far groups mean little.

    Raises:
        Refused: umap-learn cannot be imported.
    """
    umap = import_umap()
    neighbours = min(NEIGHBOURS, len(rows) - 1)
    # A seed of embank may be larger than the 32 bits that numpy's earlier generator takes.
    generator = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few rows, and of a layout that starts at random for want of them
        reducer = umap.UMAP(n_components=2, n_neighbors=neighbours, random_state=generator, n_jobs=1)
        return np.asarray(reducer.fit_transform(np.asarray(rows, np.float32)), np.float64)
