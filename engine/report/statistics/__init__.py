"""Statistics of named values: which models entered, which were left out, and why.

Values are mappings from a model's name to a number. A model without a number, or with NaN, is listed as left
out; n is never smaller without a word. References are in `engine.kernels.summaries`.
"""

from engine.report.statistics.boxes import Box, box
from engine.report.statistics.correlation import Correlation, Without, adjusted, correlate
from engine.report.statistics.intervals import GroupInterval, group_interval
from engine.report.statistics.lines import LineFit, fit_line
from engine.report.statistics.means import GroupMean, group_mean, means_by_domain
from engine.report.statistics.named import LeftOut, Numbers, n_of, reasons_of
from engine.report.statistics.scaling import Scaled, scale

__all__ = [
    "Box",
    "Correlation",
    "GroupInterval",
    "GroupMean",
    "LeftOut",
    "LineFit",
    "Numbers",
    "Scaled",
    "Without",
    "adjusted",
    "box",
    "correlate",
    "fit_line",
    "group_interval",
    "group_mean",
    "means_by_domain",
    "n_of",
    "reasons_of",
    "scale",
]
