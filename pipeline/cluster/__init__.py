"""Run the stages of a job on a Dask cluster: the same tasks, and the same bytes, as in one process."""

from __future__ import annotations

from .connecting import connected, dashboard_link, local_threads, reported
from .limits import Limits
from .recipes import KerasRecipe, NetworkRecipe, Recipe
from .record_blocks import record_missing_on

__all__ = [
    "KerasRecipe",
    "Limits",
    "NetworkRecipe",
    "Recipe",
    "connected",
    "dashboard_link",
    "local_threads",
    "record_missing_on",
    "reported",
]
