"""From a recorded run to the files of other programs, one module for each target."""

from .exporter import Exported, Exporter, ExportRequest, RangeRow, RecordedRun, check_export_places
from .extra import import_extra
from .making import check_options, make_export
from .registry import exporter_names, load_exporter

__all__ = [
    "ExportRequest",
    "Exported",
    "Exporter",
    "RangeRow",
    "RecordedRun",
    "check_export_places",
    "check_options",
    "exporter_names",
    "import_extra",
    "load_exporter",
    "make_export",
]
