"""How large the samples themselves are: the input factor of a job that asks for a measured one.

One streamed pass over the data, a batch at a time, without the network.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from ..events import OnEvent, SamplesDone, StageDone, StageStarted
from ..factors.ties import job_ties
from ..folder.folder import content_key
from ..graph import match_inputs
from ..settings.job import InputFactor, JobSettings
from ..sketch import PointSketch, SketchSpec
from ..sources import Source
from .prepare import Prepared

__all__ = ["measured_key", "with_measured_input"]

logger = logging.getLogger(__name__)


def measured_key(settings: JobSettings, source: Source) -> str:
    """Return what a measured input factor follows from, as a short name: the samples and the percentile."""
    chosen = settings.factors
    return content_key(
        source.fingerprint(), source.n_samples, chosen.percentile, chosen.nonzero, settings.sketch.bits
    )


def with_measured_input(job: Prepared, known: InputFactor | None, *, on_event: OnEvent) -> Prepared:
    """Return a job whose input factor is a number, or a table of numbers where the network has several inputs.

    Parameters
    ----------
    job : Prepared
        With ``normalize.input_factor = "measured"``.
    known : number or mapping, optional
        What an earlier run measured on the same samples.
    on_event : callable
        Told about progress.

    Raises
    ------
    InputError
        If a sample is not finite, or inputs that meet each other measure different numbers.
    """
    on_event(StageStarted(stage="input", n_total=job.source.n_samples, unit="samples"))
    found = _measure(job, on_event) if known is None else known
    settings = job.settings.model_copy(
        update={"normalize": job.settings.normalize.model_copy(update={"input_factor": found})}
    )
    ties = job_ties(job.graph, job.points, settings)
    message = f"{'measured' if known is None else 'reloaded'} the input factor: {found}"
    logger.info("%s", message)
    on_event(StageDone(stage="input", message=message, reloaded=known is not None))
    return replace(job, settings=settings, ties=ties)


def _measure(job: Prepared, on_event: OnEvent) -> InputFactor:
    """Return the percentile of the size of each input; 1 for one that is zero everywhere."""
    chosen, source = job.settings.factors, job.source
    order = [index for index, _ in match_inputs(job.graph, source.inputs)]
    names = [name for name, _, _ in job.graph.input_specs]
    sketches = [PointSketch.empty(SketchSpec(bits=job.settings.sketch.bits)) for _ in names]
    n_batch = job.settings.record.batch_size
    for start in range(0, source.n_samples, n_batch):
        batch = source.read(start, min(start + n_batch, source.n_samples))
        for name, index, sketch in zip(names, order, sketches, strict=True):
            if batch.inputs[index].dtype.kind == "O":  # texts have no size, and keep the factor 1
                continue
            size = np.abs(np.asarray(batch.inputs[index], dtype=np.float32))
            sketch.update(size, point=name, first_sample=start)
        on_event(SamplesDone(n_done=start + len(batch)))
    found: dict[str, float | list[float]] = {}
    for name, sketch in zip(names, sketches, strict=True):
        layer = sketch.layer
        is_empty = layer.n == (layer.n_zeros if chosen.nonzero else 0)
        value = 0.0 if is_empty else layer.percentile(chosen.percentile, nonzero=chosen.nonzero).value
        found[name] = value if value >= chosen.floor else 1.0
    (first, *others) = found.values()
    return found if others or isinstance(first, list) else first
