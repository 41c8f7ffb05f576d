"""Statistics and factors as JSON."""

from __future__ import annotations

import json

from .exporter import Exported, Exporter, ExportRequest

__all__ = ["EXPORTER"]


def _make(request: ExportRequest) -> Exported:
    factors = request.factors_of()
    tree = {"statistics": request.run.statistics(), "factors": factors.to_dict()}
    warnings = factors.lost_overrides()
    return Exported(content=json.dumps(tree, indent=1) + "\n", warnings=warnings, file_name="export.json")


EXPORTER = Exporter(about="statistics and factors with intervals", make=_make)
