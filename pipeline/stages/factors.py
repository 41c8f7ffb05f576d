"""The stage that merges the sketches of all blocks into statistics and factors."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from ...storage import Cache
from ..events import OnEvent, StageDone, StageStarted, counted, ignore_event
from ..factors.factors_file import Factors
from ..factors.from_cache import factors_of
from ..factors.merge import merged_sketches, statistics_by_point
from ..factors.merged_file import load_merged, save_merged
from ..factors.packed_sketches import PackedSketches
from ..factors.ties import Ties
from ..folder.folder import write_json
from ..settings.job_settings import JobSettings
from .engine import Engine, LocalEngine
from .stage import FileStage
from .stage_keys import factors_key

__all__ = ["FactorsStage"]

logger = logging.getLogger(__name__)

_N_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class FactorsStage(FileStage[Factors]):
    """Makes ``statistics.json`` and ``factors.json``, and keeps the merged sketches beside them."""

    name: ClassVar[str] = "factors"
    cache: Cache
    settings: JobSettings
    recorded: str
    """The ``merged_key`` of the cache."""
    ties: Ties = field(default_factory=Ties)
    engine: Engine = field(default_factory=LocalEngine)
    on_event: OnEvent = ignore_event

    @property
    def key(self) -> str:
        """The key of statistics and factors."""
        return factors_key(self.recorded, self.settings, self.ties)

    @property
    def files(self) -> Sequence[Path]:
        """The factors and the statistics."""
        return self.folder.factors_path, self.folder.statistics_path

    def reload(self) -> Factors:
        """Return the saved factors; if the merged sketches are missing, merge them again."""
        points = [point.name for point in self.cache.spec.points]
        is_kept = load_merged(self.folder.merged_path, self.recorded, points) is not None
        if not is_kept:
            # In this process: nothing is computed, and the cluster of the run may be gone.
            save_merged(self.folder.merged_path, self.recorded, merged_sketches(self.cache).packed)
        message = "reloaded statistics and factors" + ("" if is_kept else ", merged the sketches again")
        self.on_event(StageDone(stage="factors", message=message, reloaded=is_kept))
        return Factors.load(self.folder.factors_path)

    def compute(self) -> Factors:
        """Return the factors that the settings ask for."""
        self.on_event(StageStarted(stage="factors"))
        save_merged(self.folder.merged_path, self.recorded, self._sketches.packed)
        chosen = self.settings.factors
        exact = None
        if chosen.exact:
            exact = self.engine.exact_source(
                self.cache, self._sketches, accept_rounding=chosen.accept_rounding
            )
        return factors_of(self.cache, self._sketches, self.settings, ties=self.ties, exact=exact)

    def write(self, result: Factors) -> Sequence[Path]:
        """Write factors and statistics."""
        shapes = {point.name: point.shape for point in self.cache.spec.points}
        write_json(self.folder.statistics_path, {"points": statistics_by_point(self._sketches, shapes)})
        write_json(self.folder.factors_path, result.to_dict())
        return self.files

    def announce(self, result: Factors, written: Sequence[Path]) -> None:
        """Send events."""
        message = f"factors of {counted(len(result.points), 'point')}"
        self.on_event(StageDone(stage="factors", message=message))
        _warn_of_small(result, self.settings.factors.floor)
        for sentence in result.lost_overrides():
            logger.warning("%s", sentence)

    @cached_property
    def _sketches(self) -> PackedSketches:
        return self.engine.merge_sketches(self.cache)


def _warn_of_small(factors: Factors, floor: float) -> None:
    """Name the points that are treated as dead although they are not zero everywhere."""
    small = [
        f"{p.name!r} ({p.value:.3g})" for p in factors.points if p.rule == "dead" and p.value and p.value > 0
    ]
    if small:
        logger.warning(
            "below factors.floor = %g, so treated as dead, with the factor 1: %s; lower the floor if they are not",
            floor,
            ", ".join(small[:_N_NAMED])
            + (f" and {len(small) - _N_NAMED} more" if len(small) > _N_NAMED else ""),
        )
