"""Prototype few-shot classification from stored features.

N-way K-shot episodes as in equation 1 of Anton et al., J. Imaging 2022, 8, 320 (doi 10.3390/jimaging8120320),
after Snell et al. 2017: a class's prototype is the mean of its K support features, a query takes the class
of the nearest prototype in squared Euclidean distance.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Refused


@dataclass(frozen=True)
class Protocol:
    """An N-way K-shot protocol: classes an episode, support and query images a class, episodes, seed."""

    n_way: int = 5
    n_shot: int = 20
    n_query: int = 15
    episodes: int = 600
    seed: int = 0

    def __post_init__(self) -> None:
        low = {"n_way": 2, "n_shot": 1, "n_query": 1, "episodes": 2, "seed": 0}
        for name, least in low.items():
            if getattr(self, name) < least:
                raise Refused(f"{name} = {getattr(self, name)}", f"It is at least {least}", "raise it")


@dataclass(frozen=True)
class FewShotResult:
    """Accuracy as a fraction, its 95 % interval (half width, 1.96 s / sqrt(episodes)), and each episode's."""

    protocol: Protocol
    accuracy: float
    ci95: float
    per_episode: NDArray[np.float64]
    used: int
    masked: int

    def to_dict(self) -> dict[str, Any]:
        return {
            **self.protocol.__dict__,
            "accuracy": self.accuracy,
            "ci95": self.ci95,
            "images": self.used,
            "masked": self.masked,
        }


def fewshot(
    features: NDArray[Any], labels: Sequence[int] | NDArray[Any], protocol: Protocol, *, data_set: str = ""
) -> FewShotResult:
    """Run the protocol on features.

    Args:
        features: [N, d], any float type; rows with a NaN are masked.
        labels: [N] integer codes; negative means no label and masks the row.
        data_set: name or digest that, with the protocol, decides which episodes are drawn; the model does
            not, so that models are compared on the same episodes.

    Raises:
        Refused: fewer than N classes with K + Q usable images each.
    """
    codes = np.asarray(labels)
    usable = (codes >= 0) & np.isfinite(features[:, 0])
    rows = [np.flatnonzero(usable & (codes == c)) for c in np.unique(codes[usable])]
    need = protocol.n_shot + protocol.n_query
    large = [r for r in rows if len(r) >= need]
    if len(large) < protocol.n_way:
        sizes = sorted((len(r) for r in rows), reverse=True)[:10]
        raise Refused(
            f"{len(large)} of {len(rows)} classes have {need} usable images "
            f"(sizes {sizes}, {int((~usable).sum())} rows masked)",
            f"{protocol.n_way} classes with n_shot + n_query = {need} images each are needed",
            "lower --n-way, --n-shot or --n-query, or add images",
        )
    generator = np.random.default_rng(_entropy(protocol, data_set))
    scores = np.array([_episode(features, large, protocol, generator) for _ in range(protocol.episodes)])
    ci95 = 1.96 * scores.std(ddof=1) / np.sqrt(len(scores))
    return FewShotResult(
        protocol, float(scores.mean()), float(ci95), scores, int(usable.sum()), int((~usable).sum())
    )


def _entropy(protocol: Protocol, data_set: str) -> list[int]:
    numbers = [protocol.seed, protocol.n_way, protocol.n_shot, protocol.n_query]
    return numbers + list(data_set.encode())


def _episode(
    features: NDArray[Any], rows: Sequence[NDArray[Any]], protocol: Protocol, generator: np.random.Generator
) -> float:
    """Accuracy of one episode."""
    k, n = protocol.n_shot, protocol.n_way
    classes = generator.choice(len(rows), n, replace=False)
    drawn = np.stack([generator.choice(rows[c], k + protocol.n_query, replace=False) for c in classes])
    x = features[drawn].astype(np.float32)
    prototypes = x[:, :k].mean(axis=1)
    queries = x[:, k:].reshape(-1, x.shape[-1])
    # |q - p|^2 without the term |q|^2, which is the same for every prototype
    distance = (prototypes**2).sum(axis=1) - 2.0 * queries @ prototypes.T
    truth = np.repeat(np.arange(n), protocol.n_query)
    return float((distance.argmin(axis=1) == truth).mean())
