"""Samples in a fixed order, from files, arrays and data sets; knows no model."""

from __future__ import annotations

from .labels import labels_digest
from .opening import open_source
from .prepared import PreparedSource
from .preprocessing import KERAS_MODES, Preprocessing
from .protocol import Batch, InputSpec, Source
from .spec import DataSpec, Feature
from .wrapping import as_source

__all__ = [
    "KERAS_MODES",
    "Batch",
    "DataSpec",
    "Feature",
    "InputSpec",
    "PreparedSource",
    "Preprocessing",
    "Source",
    "as_source",
    "labels_digest",
    "open_source",
]
