"""95 % intervals: over episodes, between models on the same episodes, and over patients."""

from engine.kernels.intervals.bootstrap import Bootstrap, Percentiles, bootstrap_metrics, bootstrap_ratio
from engine.kernels.intervals.episodes import Interval, over_episodes, paired

__all__ = [
    "Bootstrap",
    "Interval",
    "Percentiles",
    "bootstrap_metrics",
    "bootstrap_ratio",
    "over_episodes",
    "paired",
]
