"""Mergeable statistics of activations; knows numbers, not models or files."""

from .channels import ChannelSketch
from .digest import Digest
from .exact import ExactRequest, exact_channel_percentiles, exact_many, exact_percentiles
from .layer import Percentile, Sketch
from .point import PointSketch, merge_sketches
from .spec import SketchSpec

__all__ = [
    "ChannelSketch",
    "Digest",
    "ExactRequest",
    "Percentile",
    "PointSketch",
    "Sketch",
    "SketchSpec",
    "exact_channel_percentiles",
    "exact_many",
    "exact_percentiles",
    "merge_sketches",
]
