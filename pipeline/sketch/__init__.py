"""Mergeable statistics of activations. Knows numbers, not models or files."""

from .channels import ChannelSketch
from .digest import Digest
from .distance import Distance, distance_between
from .exchange import from_tdigest, to_tdigest, to_tdigest_dict
from .layer import Percentile, Sketch
from .point import PointSketch, merge_sketches
from .refinement import exact_channel_percentiles, exact_percentiles
from .sketch_spec import SketchSpec

__all__ = [
    "ChannelSketch",
    "Digest",
    "Distance",
    "Percentile",
    "PointSketch",
    "Sketch",
    "SketchSpec",
    "distance_between",
    "exact_channel_percentiles",
    "exact_percentiles",
    "from_tdigest",
    "merge_sketches",
    "to_tdigest",
    "to_tdigest_dict",
]
