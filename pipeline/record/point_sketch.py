"""The sketch of a recorded point: which channels it has, what it holds in memory.

Knows points and sketches. Does not know blocks, or where activations come from.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from ...storage import PointSpec
from ...storage.errors import InputError
from ..settings.job_settings import JobSettings
from ..sketch import PointSketch, SketchSpec
from ..sketch.forecast import SketchForecast, sketch_forecast
from ..sketch.sketch_spec import MIN_BITS

__all__ = [
    "channel_axis_of",
    "empty_sketch",
    "forecast_of",
    "n_channels_of",
    "sketch_spec",
    "with_channels",
]


def sketch_spec(settings: JobSettings) -> SketchSpec:
    """Return the resolution that a job asks for."""
    chosen = settings.sketch
    return SketchSpec(
        bits=chosen.bits,
        per_channel=chosen.per_channel,
        channel_bits=chosen.channel_bits,
        on_nonfinite=chosen.nonfinite,
    )


def empty_sketch(spec: SketchSpec, point: PointSpec) -> PointSketch:
    """Return the sketch of no samples of a point.

    Raises
    ------
    InputError
        If the point has too many channels for ``channel_bits``.
    """
    n_channels = n_channels_of(point)
    if spec.per_channel and n_channels << spec.channel_bits > 1 << 32:
        fitting = 32 - (n_channels - 1).bit_length()
        ways = [f"sketch.channel_bits = {fitting}"] if fitting >= MIN_BITS else []
        ways += [
            "leave the point out (record.points)",
            "one sketch for each point (sketch.per_channel = false)",
        ]
        raise InputError(
            f"point {point.name!r} has {n_channels} channels, at {spec.channel_bits} bits a sketch tells "
            f"{1 << (32 - spec.channel_bits)} apart: use {', or '.join(ways)}",
            point=point.name,
        )
    return PointSketch.empty(spec, n_channels=n_channels if spec.per_channel else None)


def forecast_of(point: PointSpec, spec: SketchSpec, n_samples: int) -> SketchForecast:
    """Estimate what the sketch of a point will take after ``n_samples`` samples."""
    return sketch_forecast(
        spec,
        n_samples=n_samples,
        sample_values=point.n_values,
        n_channels=n_channels_of(point),
        is_signed=point.meta.get("activation") not in ("relu", "relu6"),
    )


def channel_axis_of(point: PointSpec) -> int:
    """Return the axis of the channels, samples counted as axis 0, of what :func:`with_channels` gives."""
    return point.channel_axis if point.shape else 1


def n_channels_of(point: PointSpec) -> int:
    """Return the number of channels of a point."""
    # The channel axis counts the samples' axis too; only its size matters here.
    return int((0, *(point.shape or (1,)))[channel_axis_of(point)])


def with_channels(array: NDArray[Any]) -> NDArray[Any]:
    """Return activations with an axis of channels: a point that has one number a sample has one channel."""
    return array if array.ndim > 1 else array.reshape(-1, 1)
