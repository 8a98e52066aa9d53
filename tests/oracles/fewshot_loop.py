"""The plain loop over episodes, in float64: what the vectorised few-shot kernels must equal."""

import numpy as np


def loop(features: np.ndarray, support: np.ndarray, query: np.ndarray, distance: str) -> np.ndarray:
    """Class of each query [E, N, Q], one query at a time within one episode at a time."""
    found = np.empty(query.shape, np.int64)
    for e in range(len(support)):
        examples = features[support[e]].astype(np.float64)  # N, K, d
        mean = examples.mean(axis=(0, 1))
        if distance == "centred":
            examples = np.array([[unit(x - mean) for x in rows] for rows in examples])
        prototypes = examples.mean(axis=1)
        for n, q in np.ndindex(*query.shape[1:]):
            x = features[query[e, n, q]].astype(np.float64)
            if distance == "cosine":
                d = [1 - unit(x) @ unit(p) for p in prototypes]
            else:
                x = unit(x - mean) if distance == "centred" else x
                d = [((x - p) ** 2).sum() for p in prototypes]
            found[e, n, q] = int(np.argmin(d))
    return found


def unit(x: np.ndarray) -> np.ndarray:
    length = np.sqrt((x * x).sum())
    return x / length if length else x
