"""Mergeable statistics of activations. Knows numbers, not models or files."""

from .channels import ChannelSketch
from .digest import Digest
from .distance import (
    ChannelDistances,
    Distance,
    Distances,
    channel_distances,
    distance_between,
    distances_between,
)
from .exchange import from_tdigest, to_tdigest, to_tdigest_dict
from .layer import Percentile, Sketch
from .point import PointSketch, merge_sketches
from .refinement import exact_channel_percentiles, exact_percentiles
from .sketch_spec import SketchSpec

__all__ = [
    "ChannelDistances",
    "ChannelSketch",
    "Digest",
    "Distance",
    "Distances",
    "Percentile",
    "PointSketch",
    "Sketch",
    "SketchSpec",
    "channel_distances",
    "distance_between",
    "distances_between",
    "exact_channel_percentiles",
    "exact_percentiles",
    "from_tdigest",
    "merge_sketches",
    "to_tdigest",
    "to_tdigest_dict",
]
