"""The key of each stage: a hash of all that its results follow from. Equal keys, equal results.

Stages reload what has their key; whoever shows results compares keys, and so shows none of other settings or samples.
A key needs the run's folder and its cache, no model and no data.
"""

from __future__ import annotations

import importlib.metadata

from ..factors.factors_file import Factors
from ..factors.ties import Ties
from ..folder.folder import RunFolder, content_key
from ..settings.job_settings import JobSettings

__all__ = ["factors_key", "normalize_key", "report_key"]


def factors_key(recorded: str, settings: JobSettings, ties: Ties) -> str:
    """Return the key of statistics and factors; ``recorded`` is the ``merged_key`` of the cache."""
    # Exact factors of earlier versions took percentiles of channels, and of negative values, from the sketches: they
    # are made again.
    changed = ["every percentile is exact"] if settings.factors.exact else []
    # The first pattern that fits wins, and the hash of a table is the same in any order. Earlier versions left the
    # order out, so that what they made with several patterns may be that of another order.
    patterns = list(settings.factors.overrides)
    order = [patterns] if len(patterns) > 1 else []
    chosen = settings.factors.that_count()
    return content_key(recorded, chosen, settings.normalize.input_factor, ties.to_dict(), *changed, *order)


def normalize_key(recorded: str, factors: Factors, settings: JobSettings, *, labels: str | None) -> str:
    """Return the key of the normalised network and its certificate.

    ``recorded`` covers the network, the samples and their number, but not the labels, which affect accuracies only.
    """
    # Whether normalisation is wanted does not affect its result.
    chosen = settings.normalize.model_dump(exclude={"enabled"})
    return content_key(recorded, factors.to_dict(), chosen, labels)


def report_key(folder: RunFolder, normalized: str | None) -> str:
    """Return the key of a report: of the factors, the normalised network (its key, or None), settings and program."""
    program = importlib.metadata.version("actisketch")
    # The page shows all settings, and the noise of some that the factors do not follow from. Where the folder is, it
    # does not say: it may be moved.
    settings = {**folder.manifest().get("settings", {}), "output": None}
    return content_key(folder.made_from("factors"), settings, normalized, program)
