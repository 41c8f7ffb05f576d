"""The stage that reduces the sketches of all blocks to statistics and factors."""

from __future__ import annotations

import logging

from ...storage import Cache
from ..events import OnEvent, StageDone, StageStarted, counted, ignore_event
from ..factors.factors import Factors
from ..factors.from_cache import factors_of
from ..factors.merge import merged_sketches, statistics
from ..factors.merged_file import load_merged, save_merged
from ..factors.ties import Ties
from ..folder.folder import RunFolder, write_json
from ..settings.job import JobSettings
from .engine import Engine, LocalEngine
from .keys import factors_key

__all__ = ["make_factors"]

logger = logging.getLogger(__name__)


def make_factors(
    folder: RunFolder,
    cache: Cache,
    settings: JobSettings,
    *,
    recorded: str,
    ties: Ties | None = None,
    engine: Engine | None = None,
    on_event: OnEvent = ignore_event,
) -> Factors:
    """Reduce the sketches, write ``statistics.json`` and ``factors.json``; reload them where nothing changed.

    ``recorded`` names what is in the cache: its ``merged_key``.
    """
    key = factors_key(recorded, settings, ties or Ties())
    if folder.is_made_from("factors", key, folder.factors_path, folder.statistics_path):
        is_kept = load_merged(folder.merged_path, recorded, [p.name for p in cache.spec.points]) is not None
        if not is_kept:
            save_merged(folder.merged_path, recorded, merged_sketches(cache))
        message = "reloaded statistics and factors" + ("" if is_kept else ", merged the sketches again")
        on_event(StageDone(stage="factors", message=message, reloaded=is_kept))
        return Factors.load(folder.factors_path)
    on_event(StageStarted(stage="factors"))
    engine = engine or LocalEngine()
    sketches = engine.merged_sketches(cache)
    save_merged(folder.merged_path, recorded, sketches)
    shapes = {point.name: point.shape for point in cache.spec.points}
    chosen = settings.factors
    exact = engine.exact(cache, sketches, accept_rounding=chosen.accept_rounding) if chosen.exact else None
    factors = factors_of(cache, sketches, settings, ties=ties, exact=exact)
    folder.forget("factors")
    write_json(folder.statistics_path, {"points": statistics(sketches, shapes)})
    write_json(folder.factors_path, factors.to_dict())
    folder.mark_made("factors", key, folder.factors_path, folder.statistics_path)
    on_event(StageDone(stage="factors", message=f"factors of {counted(len(factors.points), 'point')}"))
    _warn_of_small(factors, settings.factors.floor)
    return factors


def _warn_of_small(factors: Factors, floor: float) -> None:
    """Say which points are taken for dead although they are not zero everywhere."""
    small = [
        f"{p.name!r} ({p.value:.3g})" for p in factors.points if p.rule == "dead" and p.value and p.value > 0
    ]
    if small:
        logger.warning(
            "below factors.floor = %g, so taken for dead and left at the factor 1: %s; lower the floor if they are not",
            floor,
            ", ".join(small),
        )
