"""The stage that measures the input factor: one pass over the samples, batch by batch, without the network."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..events import OnEvent, SamplesDone, StageDone, StageStarted
from ..factors.merged_file import merged_key
from ..factors.reading_ties import job_ties
from ..folder.folder import content_key
from ..graph import match_inputs
from ..settings.factor_settings import FactorSettings
from ..settings.job_settings import InputFactor
from ..sketch import PointSketch, SketchSpec
from .prepare import Prepared
from .stage import Stage

__all__ = ["remember_input_factor", "with_measured_input"]

logger = logging.getLogger(__name__)


def with_measured_input(job: Prepared, *, on_event: OnEvent) -> Prepared:
    """Return a job with a measured input factor: a number, or a table of numbers if the network has several inputs.

    Raises
    ------
    InputError
        If a sample is not finite, or inputs that meet each other measure different numbers.
    """
    on_event(StageStarted(stage="input", n_total=job.source.n_samples, unit="samples"))
    stage = _InputFactorStage(job=job, on_event=on_event)
    found = stage.reload_or_compute()
    settings = job.settings.model_copy(
        update={"normalize": job.settings.normalize.model_copy(update={"input_factor": found})}
    )
    ties = job_ties(job.graph, job.points, settings)
    message = f"{'reloaded' if stage.is_known else 'measured'} the input factor: {found}"
    logger.info("%s", message)
    on_event(StageDone(stage="input", message=message, reloaded=stage.is_known))
    return replace(job, settings=settings, ties=ties)


def remember_input_factor(job: Prepared, recorded: str) -> None:
    """Note the measured factor in the manifest, with the ``merged_key`` of the cache (``recorded``)."""
    noted = {"key": _key(job), "factor": job.settings.normalize.input_factor, "recorded": recorded}
    job.folder.update_manifest({"measured_input": noted})


def _key(job: Prepared) -> str:
    """Return the key of a measured input factor: of the samples, the percentile and the floor."""
    chosen, source, bits = job.settings.factors, job.source, job.settings.sketch.bits
    # Earlier versions left the floor out: what was measured with the usual one keeps its key.
    floor = [] if chosen.floor == FactorSettings.model_fields["floor"].default else [chosen.floor]
    return content_key(
        source.fingerprint(), source.n_samples, chosen.percentile, chosen.nonzero, bits, *floor
    )


@dataclass(frozen=True, kw_only=True)
class _InputFactorStage(Stage[InputFactor]):
    """Its result is a number in the manifest of the run."""

    job: Prepared
    on_event: OnEvent

    @property
    def _noted(self) -> Mapping[str, Any]:
        noted: Mapping[str, Any] = self.job.folder.manifest().get("measured_input", {})
        return noted

    def is_current(self) -> bool:
        return self.is_known

    @cached_property
    def is_known(self) -> bool:
        # The key covers the first sample only. The others are covered by the cache, which they were compared with.
        cache, noted = self.job.existing, self._noted
        if cache is None or noted.get("factor") is None or noted.get("key") != _key(self.job):
            return False
        return bool(noted.get("recorded") == merged_key(cache))

    def reload(self) -> InputFactor:
        factor: InputFactor = self._noted["factor"]
        return factor

    def compute(self) -> InputFactor:
        """Return the percentile of the absolute values of each input; 1 for an input that is zero everywhere."""
        chosen, source, graph = self.job.settings.factors, self.job.source, self.job.graph
        order = [index for index, _ in match_inputs(graph, source.inputs)]
        names = [name for name, _, _ in graph.input_specs]
        sketches = [PointSketch.empty(SketchSpec(bits=self.job.settings.sketch.bits)) for _ in names]
        n_batch = self.job.settings.record.batch_size
        for start in range(0, source.n_samples, n_batch):
            batch = source.read(start, min(start + n_batch, source.n_samples))
            for name, index, sketch in zip(names, order, sketches, strict=True):
                if batch.inputs[index].dtype.kind == "O":  # texts have no size, and keep the factor 1
                    continue
                size = np.abs(np.asarray(batch.inputs[index], dtype=np.float32))
                sketch.update(size, point=name, first_sample=start)
            self.on_event(SamplesDone(n_done=start + len(batch)))
        found: dict[str, float | list[float]] = {}
        for name, sketch in zip(names, sketches, strict=True):
            layer = sketch.layer
            is_empty = layer.n == (layer.n_zeros if chosen.nonzero else 0)
            value = 0.0 if is_empty else layer.percentile(chosen.percentile, nonzero=chosen.nonzero).value
            found[name] = value if value >= chosen.floor else 1.0
        (first, *others) = found.values()
        return found if others or isinstance(first, list) else first

    def replace(self, result: InputFactor) -> None:
        """Do nothing: :func:`remember_input_factor` notes it when the samples are recorded."""
