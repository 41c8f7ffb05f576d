"""Choose the engine of a job: this process, or a cluster. Dask is imported only for a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..storage.errors import InputError
from .events import OnEvent
from .settings.job_settings import JobSettings
from .stages.engine import Engine, LocalEngine

__all__ = ["engine_for"]


def engine_for(
    settings: JobSettings, client: Any, performance_report: str | Path | None, on_event: OnEvent
) -> Engine:
    """Return the engine that the settings ask for, or one for the caller's own cluster; this process by default."""
    if client is None and not settings.record.workers and settings.record.scheduler is None:
        if performance_report is not None:
            raise InputError("a performance report needs a cluster: set record.workers or record.scheduler")
        return LocalEngine()
    from .cluster.cluster_engine import ClusterEngine

    return ClusterEngine(settings, client=client, performance_report=performance_report, on_event=on_event)
