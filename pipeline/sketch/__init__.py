"""Mergeable statistics of activations; knows numbers, not models or files."""

from .channels import ChannelSketch
from .digest import Digest
from .exact import exact_percentiles
from .layer import Percentile, Sketch
from .point import PointSketch, merge_sketches
from .spec import SketchSpec

__all__ = [
    "ChannelSketch",
    "Digest",
    "Percentile",
    "PointSketch",
    "Sketch",
    "SketchSpec",
    "exact_percentiles",
    "merge_sketches",
]
