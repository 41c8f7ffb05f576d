"""Statistics and factors as a table of comma-separated values, a line for each point."""

from __future__ import annotations

import csv
import io

from ..settings.visible import plain_cell
from .exporter import Exported, Exporter, ExportRequest

__all__ = ["EXPORTER"]


def _make(request: ExportRequest) -> Exported:
    statistics = request.run.statistics()
    table = io.StringIO()
    names = ["n_values", "n_zeros", "minimum", "maximum", "mean", "std"]
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["point", "shape", *names, "percentile", "value", "lo", "hi", "factor", "rule"])
    factors = request.factors_of()
    for p in factors.points:
        row = statistics[p.name]
        shape = "x".join(str(n) for n in row["shape"])
        factor = " ".join(repr(f) for f in p.factor) if isinstance(p.factor, tuple) else p.factor
        measured = (p.percentile, p.value, p.lo, p.hi)
        writer.writerow(
            [plain_cell(p.name), shape, *(row[name] for name in names), *measured, factor, p.rule]
        )
    warnings = factors.lost_overrides()
    return Exported(content=table.getvalue(), warnings=warnings, file_name="export.csv")


EXPORTER = Exporter(about="the same as a table, a line for each point", make=_make)
