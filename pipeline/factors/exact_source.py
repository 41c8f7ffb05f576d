"""Exact percentiles from the recorded activations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage import Cache
from ...storage.errors import InputError
from ..record.point_sketch import channel_axis_of, with_channels
from ..sketch import ChannelSketch, PointSketch, Sketch, exact_channel_percentiles, exact_percentiles

__all__ = ["ExactSource", "channels_of"]


@dataclass(frozen=True, slots=True)
class ExactSource:
    """Exact percentiles from the recorded activations.

    Parameters
    ----------
    cache : Cache
        With activations.
    sketches : mapping of str to PointSketch
        Its merged sketches.
    accept_rounding : bool
        Answer from float16 storage too, where "exact" means of the rounded values.

    Raises
    ------
    InputError
        If the cache has no activations, or rounded ones that were not accepted.
    """

    cache: Cache
    sketches: Mapping[str, PointSketch]
    accept_rounding: bool = False

    def __post_init__(self) -> None:
        if not self.cache.spec.keeps_activations:
            raise InputError(
                "this cache holds sketches only, which give no exact percentiles: "
                "record again with record.activations = true, or leave --exact out"
            )
        if self.cache.spec.dtype != "float32" and not self.accept_rounding:
            raise InputError(
                f"this cache stores {self.cache.spec.dtype}, which rounds: a percentile of the rounded values "
                "is not the exact one. Accept that with --accept-rounding (factors.accept_rounding = true in a job), "
                "or record with cache.dtype = 'float32'"
            )

    def percentiles(self, point: str, qs: Sequence[float], *, nonzero: bool) -> list[float]:
        """Return the percentiles of one point, equal to ``np.percentile(..., method="linear")`` of what is stored."""
        sketch = self.sketches[point].layer
        if self._is_rounded:
            spec = self.sketches[point].spec
            sketch = Sketch(spec.bits, on_nonfinite=spec.on_nonfinite)
            for chunk in self.cache.chunks(point):
                sketch.update(chunk, point=point)
        return exact_percentiles(lambda: self.cache.chunks(point), list(qs), sketch, nonzero=nonzero)

    def channel_percentiles(self, point: str, qs: Sequence[float], *, nonzero: bool) -> NDArray[np.float64]:
        """Return the percentiles of each channel of one point, of shape (n_qs, n_channels).

        Raises
        ------
        InputError
            If channels were not sketched.
        """
        channels = channels_of(self.sketches[point], point)
        axis = channel_axis_of(self.cache.spec.point(point))
        if self._is_rounded:
            spec = self.sketches[point].spec
            channels = ChannelSketch(channels.n_channels, spec.channel_bits, on_nonfinite=spec.on_nonfinite)
            for chunk in self._with_channels(point):
                channels.update(chunk, channel_axis=axis, point=point)
        return exact_channel_percentiles(
            lambda: self._with_channels(point), list(qs), channels, nonzero=nonzero, channel_axis=axis
        )

    @property
    def _is_rounded(self) -> bool:
        """Whether the sketches saw the values before they were rounded: their ranks may differ from those stored."""
        return self.cache.spec.dtype != "float32"

    def _with_channels(self, point: str) -> Iterator[NDArray[Any]]:
        return map(with_channels, self.cache.chunks(point))


def channels_of(sketch: PointSketch, name: str) -> ChannelSketch:
    """Return the sketch of the channels of a point; InputError if none was recorded."""
    if sketch.channels is None:
        raise InputError(
            "this run has no sketch per channel: record with sketch.per_channel = true", point=name
        )
    return sketch.channels
