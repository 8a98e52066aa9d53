"""Summaries of few numbers, such as one of each model: means, scalings, correlations, straight lines.

All in float64. A result states how many numbers entered; what is undefined is NaN, with a reason.
"""

from engine.kernels.summaries.correlation import LeaveOneOut, Pearson, leave_one_out, pearson
from engine.kernels.summaries.lines import Line, least_squares, weighted_least_squares
from engine.kernels.summaries.means import Mean, MeanInterval, bootstrap_interval, mean_sd, normal_interval
from engine.kernels.summaries.order import FiveNumbers, five_numbers
from engine.kernels.summaries.scaling import MinMax, min_max

__all__ = [
    "FiveNumbers",
    "LeaveOneOut",
    "Line",
    "Mean",
    "MeanInterval",
    "MinMax",
    "Pearson",
    "bootstrap_interval",
    "five_numbers",
    "least_squares",
    "leave_one_out",
    "mean_sd",
    "min_max",
    "normal_interval",
    "pearson",
    "weighted_least_squares",
]
