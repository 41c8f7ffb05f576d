"""What the results of each stage follow from, as keys: equal keys, equal results.

Asked by the stages themselves, which reload what has their key, and by those who show results, so that none is shown
as a result of settings or samples that it is not of. Needs the run's folder and its cache: no model, no data.
"""

from __future__ import annotations

import importlib.metadata

from ..factors.factors_file import Factors
from ..factors.ties import Ties
from ..folder.folder import RunFolder, content_key
from ..settings.job import JobSettings

__all__ = ["factors_key", "normalize_key", "report_key"]


def factors_key(recorded: str, settings: JobSettings, ties: Ties) -> str:
    """Return what statistics and factors follow from; ``recorded`` is its ``merged_key``."""
    return content_key(
        recorded, settings.factors.model_dump(), settings.normalize.input_factor, ties.to_dict()
    )


def normalize_key(recorded: str, factors: Factors, settings: JobSettings, *, labels: str | None) -> str:
    """Return what the normalised network and its certificate follow from.

    The network, the samples and their number are in ``recorded``; the labels are not, as no activation follows from
    them, and the accuracies do.
    """
    # Whether it is wanted changes nothing of what it is.
    chosen = settings.normalize.model_dump(exclude={"enabled"})
    return content_key(recorded, factors.to_dict(), chosen, labels)


def report_key(folder: RunFolder, normalized: str | None) -> str:
    """Return what a report follows from: the factors, the normalised network (its key, or None), the program."""
    program = importlib.metadata.version("actisketch")
    return content_key(folder.made_from("factors"), normalized, program)
