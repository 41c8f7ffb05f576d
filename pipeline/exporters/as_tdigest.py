"""The t-digest of each point, in the dict form of the ``tdigest`` package."""

from __future__ import annotations

import json

from ..sketch import to_tdigest_dict
from .exporter import Exported, Exporter, ExportRequest

__all__ = ["EXPORTER"]


def _make(request: ExportRequest) -> Exported:
    """Digests by point; one without values has no centroids."""
    run, nonzero = request.run, request.run.settings.factors.nonzero
    tree = {name: to_tdigest_dict(run.digest(name, nonzero=nonzero)) for name in run.points}
    return Exported(content=json.dumps(tree, indent=1) + "\n", file_name="tdigest.json")


EXPORTER = Exporter(
    about="the t-digest of each point, as the tdigest package reads it", make=_make, takes_factors=False
)
