"""Compute, sketch and normalise the activations of Keras networks, out of core.

The calls are :func:`run`, :func:`plan` and :func:`open_run`, and for a few lines of a notebook :func:`activations` and
:func:`statistics`; each name is loaded when it is used, so that
asking an existing run never imports TensorFlow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if __name__ == "pipeline":
    raise ImportError(
        "import actisketch.pipeline, not pipeline: `pip install -e .`, then use the installed name"
    )

if TYPE_CHECKING:
    from .api import plan as plan
    from .api import run as run
    from .certifier import certify as certify
    from .factors.factors_file import Factors as Factors
    from .graph import read_graph as read_graph
    from .in_memory import activations as activations
    from .in_memory import statistics as statistics
    from .normalizer import normalize_model as normalize_model
    from .planning.plan import Plan as Plan
    from .results.compared_runs import compare as compare
    from .results.run import Run as Run
    from .results.run import open_run as open_run
    from .results.sweeping import sweep as sweep
    from .sketch import PointSketch as PointSketch
    from .sketch import Sketch as Sketch
    from .sketch import SketchSpec as SketchSpec
    from .sources import DataSpec as DataSpec
    from .sources import as_source as as_source
    from .sources import open_source as open_source

_HOMES = {
    "DataSpec": "sources",
    "Factors": "factors.factors_file",
    "Plan": "planning.plan",
    "PointSketch": "sketch",
    "Run": "results.run",
    "Sketch": "sketch",
    "SketchSpec": "sketch",
    "activations": "in_memory",
    "as_source": "sources",
    "certify": "certifier",
    "compare": "results.compared_runs",
    "normalize_model": "normalizer",
    "open_run": "results.run",
    "open_source": "sources",
    "plan": "api",
    "read_graph": "graph",
    "run": "api",
    "statistics": "in_memory",
    "sweep": "results.sweeping",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
