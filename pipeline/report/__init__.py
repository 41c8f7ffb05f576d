"""The plots and the page of a run, drawn from sketches in constant memory."""

from .contents import PointReport, ReportData, WorkRow, certified
from .table import layer_table
from .weights import weight_sketch
from .write import write_report

__all__ = [
    "PointReport",
    "ReportData",
    "WorkRow",
    "certified",
    "layer_table",
    "weight_sketch",
    "write_report",
]
