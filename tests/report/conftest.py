"""Points and reports made of seeded numbers, with the values that they were sketched from."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from actisketch.pipeline.report import PointReport, ReportData
from actisketch.pipeline.sketch import PointSketch, Sketch, SketchSpec

SPEC = SketchSpec()


def sketch_of(values: NDArray[Any]) -> Sketch:
    sketch = Sketch()
    sketch.update(np.asarray(values, np.float32))
    return sketch


def point_sketch_of(values: NDArray[Any]) -> PointSketch:
    sketch = PointSketch.empty(SPEC)
    sketch.update(np.asarray(values, np.float32))
    return sketch


def relu_values(seed: int = 3, *, n_samples: int = 31, scale: float = 1.0) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return np.maximum(rng.normal(0.0, scale, (n_samples, 5, 7, 3)), 0.0).astype(np.float32)


def make_point(name: str = "conv1", *, seed: int = 3, scale: float = 1.0, **changes: Any) -> PointReport:
    values = relu_values(seed, scale=scale)
    weights = np.random.default_rng(seed).normal(0.0, 0.1, (3, 3, 7, 11)).astype(np.float32)
    before = point_sketch_of(values)
    percentile = before.layer.percentile(99.9, nonzero=True)
    factor = percentile.value
    fields: dict[str, Any] = {
        "name": name,
        "layer_type": "Conv2D",
        "activation": "relu",
        "shape": (5, 7, 3),
        "before": before,
        "after": point_sketch_of(values / np.float32(factor)),
        "percentile": percentile,
        "q": 99.9,
        "factor": factor,
        "weights_before": sketch_of(weights),
        "weights_after": sketch_of(weights / np.float32(factor)),
        "residual": 3e-7,
        "rms_residual": 5e-8,
        "saturation": 0.0007,
        "n_dead": 0,
    }
    return PointReport(**{**fields, **changes})


def make_report(points: tuple[PointReport, ...], **changes: Any) -> ReportData:
    fields: dict[str, Any] = {
        "title": "Digits, normalised",
        "model_name": "digits.keras",
        "points": points,
        "n_samples": 31,
        "settings": {"factors": {"percentile": 99.9, "pin": []}, "batch_size": 17},
        "certificate": {"passed": True, "tolerance": 1e-5, "class_agreement": 1.0},
        "accuracy_before": 0.9789,
        "accuracy_after": 0.9789,
        "facts": {"blocks computed": "0 of 13"},
    }
    return ReportData(**{**fields, **changes})


@pytest.fixture
def point_of() -> Callable[..., PointReport]:
    return make_point


@pytest.fixture
def report_of() -> Callable[..., ReportData]:
    return make_report


@pytest.fixture
def small_report() -> ReportData:
    """Three points: an ordinary one, one without any activity, one with a factor per channel."""
    silent = point_sketch_of(np.zeros((31, 5)))
    return make_report(
        (
            make_point("conv1", seed=3),
            make_point(
                "dead",
                before=silent,
                after=silent,
                percentile=silent.layer.percentile(99.9, nonzero=True),
                factor=1.0,
                weights_before=None,
                weights_after=None,
            ),
            make_point("conv2", seed=5, factor=np.array([0.5, 2.0, 3.0]), after=None, weights_after=None),
        )
    )
