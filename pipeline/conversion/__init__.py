"""The seven functions of ``snntoolbox.conversion.utils`` with the same names and signatures, computed out of core.

>>> from actisketch.pipeline.conversion import normalize_parameters  # doctest: +SKIP
"""

from .activations import get_activations_batch, get_activations_layer
from .normalization import normalize_parameters
from .percentiles import apply_normalization_schedule, get_percentile, get_scale_fac
from .reloading import try_reload_activations

__all__ = [
    "apply_normalization_schedule",
    "get_activations_batch",
    "get_activations_layer",
    "get_percentile",
    "get_scale_fac",
    "normalize_parameters",
    "try_reload_activations",
]
