"""A small, deterministic writer of charts as SVG: no script, no inline style, all texts escaped.

Geometry is written as presentation attributes, rounded to hundredths of a unit. Colours, dashes and type come
from the classes of `engine/report/page/templates/charts.css`, so that charts follow the page's colour scheme.
"""
