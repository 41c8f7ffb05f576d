"""From a cache and its merged sketches to the factors that the settings ask for."""

from __future__ import annotations

from collections.abc import Mapping

from ...storage import Cache
from ...storage.errors import InputError
from ..settings.job_settings import JobSettings
from ..sketch import PointSketch
from .compute import compute_factors
from .exact_source import ExactSource
from .factors_file import Factors
from .ties import Ties

__all__ = ["factors_of"]


def factors_of(
    cache: Cache,
    sketches: Mapping[str, PointSketch],
    settings: JobSettings,
    *,
    ties: Ties | None = None,
    exact: ExactSource | None = None,
) -> Factors:
    """Return the factors that the settings ask for; from sketches, or refined from the cache, by ``exact`` if given."""
    if settings.factors.exact and exact is None:
        exact = ExactSource(cache, sketches, settings.factors.accept_rounding)
    if settings.normalize.input_factor == "measured":
        raise InputError("the input factor is not measured yet: run the job again to resume")
    return compute_factors(
        cache.spec.points,
        sketches,
        settings.factors,
        input_factor=settings.normalize.input_factor,
        model=cache.spec.identity.get("model", {}),
        exact=exact,
        ties=ties,
    )
