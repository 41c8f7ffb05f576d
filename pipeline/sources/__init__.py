"""Samples in a fixed order, from files, arrays and data sets. Knows no model."""

from __future__ import annotations

from .data_spec import DataSpec, Feature
from .labels import labels_hash
from .opening import open_source
from .prepared import HashedReads, PreparedSource
from .preprocessing import KERAS_MODES, Preprocessing
from .protocol import Batch, InputSpec, Source
from .wrapping import as_source

__all__ = [
    "KERAS_MODES",
    "Batch",
    "DataSpec",
    "Feature",
    "HashedReads",
    "InputSpec",
    "PreparedSource",
    "Preprocessing",
    "Source",
    "as_source",
    "labels_hash",
    "open_source",
]
