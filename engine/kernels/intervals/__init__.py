"""95 % intervals: over episodes, between models on the same episodes, and over patients.

Intervals of classification metrics are in `metrics_bootstrap`, which needs more than few-shot does.
"""

from engine.kernels.intervals.bootstrap import Bootstrap, bootstrap_ratio
from engine.kernels.intervals.episodes import Interval, over_episodes, paired

__all__ = [
    "Bootstrap",
    "Interval",
    "bootstrap_ratio",
    "over_episodes",
    "paired",
]
