"""The sketch of one point: of all its values, of its channels, of the maxima of its samples.

Knows which bytes a commit record holds for a point. Does not know where they are stored.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np

from ...storage.errors import FormatError, InputError
from ...storage.parsing import parse_json
from .arrays import channel_slabs, parse_array, place, sample_slabs
from .channels import ChannelSketch, parse_channel_axis
from .ingest import nonfinite_error
from .layer import Sketch, decode_layer
from .sketch_spec import SketchSpec
from .tally import merge_tallies
from .wire import decode_tally, seal, unseal

MAGIC = b"ASKP"
VERSION = 1
MERGED_AT_ONCE = 64
"""Sketches that `merge_sketches` holds at once: more are hardly faster and need more memory."""
_LENGTH = struct.Struct("<Q")


class PointSketch:
    """What is known of one point over some blocks.

    Parameters
    ----------
    spec : SketchSpec
    layer : Sketch
        Of all activations.
    channels : ChannelSketch or None
        Of each channel; None unless ``spec.per_channel``.
    maxima : Sketch
        Of the largest finite activation of each sample, one value a sample.
    """

    def __init__(
        self, *, spec: SketchSpec, layer: Sketch, channels: ChannelSketch | None, maxima: Sketch
    ) -> None:
        self.spec = spec
        self.layer = layer
        self.channels = channels
        self.maxima = maxima

    @classmethod
    def empty(cls, spec: SketchSpec, n_channels: int | None = None) -> PointSketch:
        """Return the sketch of no samples; ``n_channels`` is needed if ``spec.per_channel``."""
        if spec.per_channel and n_channels is None:
            raise InputError("per_channel needs the number of channels: PointSketch.empty(spec, n_channels)")
        channels = None
        if spec.per_channel and n_channels is not None:
            channels = ChannelSketch(n_channels, spec.channel_bits, on_nonfinite=spec.on_nonfinite)
        layer, maxima = (Sketch(spec.bits, on_nonfinite=spec.on_nonfinite) for _ in range(2))
        return cls(spec=spec, layer=layer, channels=channels, maxima=maxima)

    def update(
        self,
        array: Any,
        *,
        channel_axis: int = -1,
        point: str | None = None,
        block: int | None = None,
        first_sample: int = 0,
    ) -> None:
        """Add the activations of some samples.

        Parameters
        ----------
        array : array_like of shape (n_samples, ...), float32, float16 or bfloat16
            Any layout.
        channel_axis : int, default=-1
            Axis of the channels, samples counted as axis 0.
        point, block : optional
            Named in error messages.
        first_sample : int, default=0
            Where the array begins within its block, for those messages.

        Raises
        ------
        InputError
            As `Sketch.update` and `ChannelSketch.update`; the sketch is then unchanged.
        """
        array = parse_array(array, point=point, block=block)
        if not array.ndim:
            raise InputError(f"{place(point, block)}activations need an axis of samples, got a single number")
        if array.ndim == 1:  # one number a sample is one channel
            array, channel_axis = array.reshape(-1, 1), 1
        axis = 0
        if self.channels is not None:
            n_channels = self.channels.n_channels
            axis = parse_channel_axis(array, channel_axis, n_channels, point=point, block=block)
        if not array.size:
            return
        channels = None
        if self.channels is not None:
            channels = self.channels._counts.plus(channel_slabs(array, axis))
        maxima = np.empty(array.shape[0], np.float32)
        self.maxima._counts.reserve(maxima.size)
        self.layer._add(
            sample_slabs(array),
            array.size,
            lambda: nonfinite_error(array, point=point, block=block, first_sample=first_sample),
            row_size=array.size // array.shape[0],
            maxima=maxima,
        )
        # Nothing can fail any more.
        self.maxima._add_few(maxima[~np.isnan(maxima)] if self.spec.on_nonfinite == "exclude" else maxima)
        if self.channels is not None and channels is not None:
            self.channels._counts = channels

    def merge(self, other: PointSketch) -> PointSketch:
        """Return the sketch of both; neither is changed. InputError if specs or channels differ."""
        return merge_sketches([self, other])

    def to_bytes(self) -> bytes:
        """Return the sketch as bytes: equal for equal sketches."""
        spec = json.dumps(self.spec.to_dict(), sort_keys=True).encode()
        channels = self.channels.to_bytes() if self.channels is not None else b""
        parts = [spec, self.layer.to_bytes(), channels, self.maxima.to_bytes()]
        body = b"".join(_LENGTH.pack(len(part)) + part for part in parts)
        return seal(MAGIC + bytes([VERSION]) + body)

    @classmethod
    def from_bytes(cls, data: bytes | memoryview, *, is_checked: bool = False) -> PointSketch:
        """Return the sketch that `to_bytes` gave; FormatError if the bytes are damaged or newer.

        ``is_checked``: they are not damaged, so their checksums, which take half of the time, need not be compared.
        """
        view = unseal(data, magic=MAGIC, version=VERSION, what="a point sketch", is_checked=is_checked)[5:]
        parts = []
        for _ in range(4):
            length = _LENGTH.unpack_from(view)[0] if len(view) >= _LENGTH.size else 0
            if len(view) < _LENGTH.size + length:
                raise FormatError("a point sketch ends too early: the bytes are cut off")
            parts.append(view[_LENGTH.size : _LENGTH.size + length])
            view = view[_LENGTH.size + length :]
        spec = _parse_spec(bytes(parts[0]))
        layer, channels, maxima = parts[1:]
        policy = spec.on_nonfinite
        return cls(
            spec=spec,
            layer=Sketch._of(decode_layer(layer, is_checked=is_checked), policy),
            channels=ChannelSketch._of(decode_tally(channels, is_checked=is_checked), policy)
            if len(channels)
            else None,
            maxima=Sketch._of(decode_layer(maxima, is_checked=is_checked), policy),
        )

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, PointSketch)
            and self.spec == other.spec
            and self.layer == other.layer
            and self.channels == other.channels
            and self.maxima == other.maxima
        )

    __hash__ = None  # type: ignore[assignment]  # mutable: update() changes it

    def __repr__(self) -> str:
        return f"PointSketch(layer={self.layer!r}, channels={self.channels!r}, n_samples={self.maxima.n})"


def _parse_spec(text: bytes) -> SketchSpec:
    try:
        return SketchSpec.from_dict(parse_json(text))
    except (TypeError, ValueError) as problem:  # InputError is a ValueError
        raise FormatError(
            f"the settings in a point sketch are not ones that this program reads ({problem}): "
            "they are damaged, or newer; install a newer actisketch"
        ) from problem


def merge_sketches(sketches: Iterable[PointSketch]) -> PointSketch:
    """Return the sketch of all, the same for any order; a generator is consumed in bounded memory.

    Raises
    ------
    InputError
        If there are none, or they differ in spec or number of channels.
    """
    merged: PointSketch | None = None
    for batch in _batches(sketches, MERGED_AT_ONCE):
        merged = _merge_batch([*([merged] if merged else []), *batch])
    if merged is None:
        raise InputError("no sketches to merge: nothing was recorded")
    return merged


def _batches(sketches: Iterable[PointSketch], size: int) -> Iterator[list[PointSketch]]:
    source = iter(sketches)
    while batch := list(islice(source, size)):
        yield batch


def _merge_batch(sketches: Sequence[PointSketch]) -> PointSketch:
    first = sketches[0]
    for other in sketches[1:]:
        if other.spec != first.spec:
            raise InputError(f"cannot merge sketches of different settings: {first.spec} and {other.spec}")
    channels, policy = None, first.spec.on_nonfinite
    if first.channels is not None:
        parts = [sketch.channels.tally for sketch in sketches if sketch.channels is not None]
        channels = ChannelSketch._of(merge_tallies(parts), policy)
    return PointSketch(
        spec=first.spec,
        layer=Sketch._of(merge_tallies([sketch.layer.tally for sketch in sketches]), policy),
        channels=channels,
        maxima=Sketch._of(merge_tallies([sketch.maxima.tally for sketch in sketches]), policy),
    )
