"""Event files of TensorBoard with a histogram of the activations of each point, from the sketches' buckets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..sketch import Sketch
from .exporter import Exported, Exporter, ExportRequest

__all__ = ["EXPORTER"]

MOST_BARS = 200
"""TensorBoard draws on a linear axis: more bars cannot be told apart."""
FILE_NAME = "events.out.tfevents.0.actisketch"


def _bars(sketch: Sketch) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the upper limits and the counts of at most so many bars, which are whole buckets: the counts are exact."""
    _, hi, _, counts = sketch.spans()
    places = np.floor((hi - hi[0]) / max(float(hi[-1] - hi[0]), 1e-300) * (MOST_BARS - 1))
    last = np.flatnonzero(np.append(places[1:] != places[:-1], True))
    return hi[last], np.diff(np.cumsum(counts)[last], prepend=0).astype(np.float64)


def _histogram(sketch: Sketch) -> Any:
    from tensorflow.core.framework.summary_pb2 import HistogramProto

    limits, counts = _bars(sketch)
    return HistogramProto(
        min=sketch.minimum,
        max=sketch.maximum,
        num=sketch.n,
        sum=sketch.sum,
        sum_squares=sketch.sum_squares,
        bucket_limit=limits.tolist(),
        bucket=counts.tolist(),
    )


def _make(request: ExportRequest) -> Exported:
    sketches = {name: sketch.layer for name, sketch in request.run.sketches.items()}

    def write(path: Path) -> None:
        import tensorflow as tf
        from tensorflow.core.framework.summary_pb2 import Summary
        from tensorflow.core.util.event_pb2 import Event

        values = [
            Summary.Value(tag=f"activations/{name}", histo=_histogram(sketch))
            for name, sketch in sketches.items()
            if sketch.n
        ]
        # Without the time of writing: the same run gives the same bytes.
        with tf.io.TFRecordWriter(str(path)) as file:
            file.write(Event(file_version="brain.Event:2").SerializeToString())
            file.write(Event(step=0, summary=Summary(value=values)).SerializeToString())

    return Exported(content=write, file_name=FILE_NAME)


EXPORTER = Exporter(
    about="histograms of each layer for TensorBoard",
    make=_make,
    takes_factors=False,
    opens_network=True,
    only_into_folder="TensorBoard looks for its files by their names in a folder",
)
