"""Fixtures of the normaliser's tests: random weights, measured factors, a certificate in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from actisketch.pipeline.certifier import Certificate, certify
from actisketch.pipeline.graph import forward_function, read_graph, select_points
from actisketch.pipeline.normalizer import Factor, NormalizedModel, normalize_model
from actisketch.pipeline.sources import as_source

Samples = NDArray[Any] | list[NDArray[Any]]
SMALLEST = 1e-3


def _randomize(model: keras.Model, seed: int = 7) -> None:
    """Give biases and statistics values that matter: Keras starts them at 0 and 1."""
    rng = np.random.default_rng(seed)
    for layer in model._flatten_layers(include_self=False):
        for variable in layer.variables:
            kind = variable.path.rsplit("/", 1)[-1]
            shape = tuple(variable.shape)
            if kind in {"bias", "beta", "moving_mean"}:
                variable.assign(rng.normal(0, 0.3, shape))
            elif kind in {"gamma", "moving_variance"}:
                variable.assign(rng.uniform(0.5, 1.5, shape))
            elif kind == "alpha":
                variable.assign(rng.uniform(0.1, 0.4, shape))


def _peaks(
    model: keras.Model, samples: Samples, *, mode: str = "layer", points: Any = "parameters"
) -> dict[str, Factor]:
    graph = read_graph(model)
    chosen = select_points(graph, points)
    inputs = samples if isinstance(samples, list) else [samples]
    tensors, _ = forward_function(graph, chosen)(inputs)
    found: dict[str, Factor] = {}
    for point, tensor in zip(chosen, tensors, strict=True):
        array = np.abs(np.asarray(tensor, dtype=np.float64))
        axes = tuple(a for a in range(array.ndim) if a != point.channel_axis % array.ndim)
        peaks = np.maximum(array.max(axis=axes if mode == "channel" else None), SMALLEST)
        found[point.name] = peaks if mode == "channel" else float(peaks)
    return found


def _certified(
    model: keras.Model, factors: dict[str, Factor], samples: Samples, **options: Any
) -> tuple[NormalizedModel, Certificate]:
    normalized = normalize_model(model, factors, **options)
    n_samples = len(samples[0] if isinstance(samples, list) else samples)
    certificate = certify(model, normalized, as_source(samples), batch_size=max(1, n_samples // 2))
    return normalized, certificate


def outputs_of(model: keras.Model, samples: Samples) -> NDArray[Any]:
    """Return what Keras itself computes; ``predict`` gives the same and traces the network first."""
    return np.asarray(model(samples, training=False))


@pytest.fixture
def randomize() -> Callable[..., None]:
    return _randomize


@pytest.fixture
def peaks() -> Callable[..., dict[str, Factor]]:
    return _peaks


@pytest.fixture
def certified() -> Callable[..., tuple[NormalizedModel, Certificate]]:
    return _certified
