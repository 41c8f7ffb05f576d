"""From settings to everything that a run needs: network, samples, points, plan, identity of the cache.

Opens the model and the data; writes nothing.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ...storage import Cache, CacheSpec, PointSpec, is_url
from ...storage.codecs import DEFAULT_CODEC
from ...storage.errors import InputError, MismatchError
from ..certifier import comparison_nbytes
from ..factors.reading_ties import job_ties
from ..factors.ties import Ties
from ..folder.folder import RunFolder
from ..graph import (
    AnyPoint,
    Graph,
    built_inputs,
    check_nbytes,
    file_code_hash,
    is_subclassed,
    model_fingerprint,
    opaque_graph,
    read_graph,
)
from ..planning.memory import NetworkNeeds
from ..planning.plan import Plan
from ..planning.savings import plan_with_savings
from ..record.model import load_network, loading_nbytes, weights_nbytes
from ..record.point_sketch import sketch_spec
from ..record.producer import KerasProducer
from ..settings.job_settings import DataSettings, JobSettings
from ..sources import DataSpec, PreparedSource, Source, open_source
from ..sources.data_spec import COLOR_MODE_OF
from .job_points import check_recorded, chosen_points
from .run_cache import cache_url

__all__ = ["Prepared", "prepare"]

logger = logging.getLogger(__name__)

# Parts of a cache's description that have another name in a job file.
_NAMES = {
    "dtype": "cache.dtype",
    "keeps_activations": "record.activations",
    "n_samples": "data.num_samples",
    "identity.settings.batch_size": "record.batch_size",
    "identity.settings.custom_objects": "model.custom_objects",
    "identity.settings.sketch.on_nonfinite": "sketch.nonfinite",
}


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What a run needs: opened, and found to fit together."""

    settings: JobSettings
    folder: RunFolder
    model: Any
    graph: Graph
    points: tuple[AnyPoint, ...]
    source: Source
    producer: KerasProducer
    fingerprint: Mapping[str, Any]
    """Fingerprint of the model."""
    plan: Plan
    ties: Ties
    """Which points share a scale."""
    existing: Cache | None = None
    """The cache as it was found, open for reading; None if there is none yet."""
    random: tuple[str, ...] = ()
    """Layers that are random at inference, if that was checked."""

    @property
    def cache_url(self) -> str:
        """Where the cache is."""
        return cache_url(self.settings, self.folder)

    def open_to_write(self) -> Cache:
        """Return the cache, open for writing: the one that was found, or a new one."""
        options = self.settings.cache.storage_options
        return Cache.create_or_resume(
            self.cache_url, self.spec, storage_options=options, opened=self.existing
        )

    @cached_property
    def is_recorded(self) -> bool:
        """Whether the cache was found to hold every block of the job."""
        cache = self.existing
        return cache is not None and cache.spec.n_samples == self.plan.n_samples and not cache.missing()

    def check_budget(self) -> None:
        """Refuse the job if its memory or its cache would be over a limit; see :meth:`~..planning.plan.Plan.check`.

        A job that has nothing to record is not refused.
        """
        if self.is_recorded:
            return
        self.plan.check(
            cache_path=None if is_url(self.cache_url) else Path(self.cache_url),
            disk_limit=self.settings.record.disk_limit,
            n_done_nbytes=0 if self.existing is None else self.existing.nbytes(),
        )

    @property
    def spec(self) -> CacheSpec:
        """What the cache holds, with the identity of all that changes its values."""
        settings = self.settings
        chosen: dict[str, Any] = {
            "batch_size": settings.record.batch_size,
            "sketch": sketch_spec(settings).to_dict(),
        }
        if settings.model.custom_objects is not None:
            # The hash of a network covers the code that its layers refer to; this covers the rest of the file.
            chosen["custom_objects"] = file_code_hash(settings.model.custom_objects)
        return CacheSpec(
            points=self.producer.points,
            n_samples=self.plan.n_samples,
            batch_size=self.plan.batch_size,
            block_samples=self.plan.block_samples,
            identity={
                "model": dict(self.fingerprint),
                "data": dict(self.source.fingerprint()),
                "settings": chosen,
            },
            dtype=settings.cache.dtype,
            keeps_activations=settings.record.activations,
            names=_NAMES,
            codec=settings.cache.codec or DEFAULT_CODEC,
        )


def prepare(
    settings: JobSettings,
    *,
    model: Any = None,
    source: Source | None = None,
    existing: Cache | None = None,
    is_remote: bool = False,
) -> Prepared:
    """Open the network and the samples of a job, and plan it.

    Parameters
    ----------
    settings : JobSettings
        The job.
    model : keras.Model, optional
        The network, where it is not a file.
    source : Source, optional
        The samples, where they are not a file.
    existing : Cache, optional
        A cache that exists already: it keeps its block size, and its way to hash samples.
    is_remote : bool
        Whether a cluster of the caller's does the work; see :func:`~..planning.memory_limit.default_limit`.

    Raises
    ------
    InputError
        If the model or the data is not there, does not fit, or has nothing to record.
    """
    if model is None:
        if settings.model.path is None:
            raise InputError("no model: set model.path in the job file (or --model), or give a Keras model")
        model = load_network(
            settings.model.path,
            custom_objects=settings.model.custom_objects,
            safe_mode=settings.model.safe_mode,
        )
    own = None if is_subclassed(model) else read_graph(model)
    if own is None and settings.normalize.enabled:
        raise _no_graph(model)
    _check_weights(model)
    held = None if existing is None else existing.spec
    if source is None:
        spec = _data_spec(settings.data, model, own)
        source = open_source(replace(spec, fingerprint=_recorded_hashing(held, spec.fingerprint)))
    elif isinstance(source, PreparedSource):
        source = source.with_hashing(_recorded_hashing(held, source.hashed))
    graph = own or opaque_graph(model, source.inputs)
    points = chosen_points(graph, settings, source, held)
    # Here, a layer without a rule is refused before hours of recording.
    ties = job_ties(graph, points, settings)
    if settings.normalize.enabled:
        check_recorded(graph, points, settings)
    producer = KerasProducer(
        graph,
        points,
        source,
        batch_size=settings.record.batch_size,
        allow_random=settings.model.allow_random,
    )
    plan = _plan(settings, graph, source, producer, held, is_remote=is_remote)
    return Prepared(
        settings=settings,
        folder=RunFolder(Path(settings.output)),
        model=model,
        graph=graph,
        points=points,
        source=source,
        producer=producer,
        fingerprint=model_fingerprint(model),
        plan=plan,
        ties=ties,
        existing=existing,
    )


def _no_graph(model: Any) -> InputError:
    return InputError(
        f"the network {model.name!r} ({type(model).__name__}) is subclassed: it has no graph, without which it cannot "
        "be normalised. `actisketch run` stops at the factors with normalize.enabled = false (--no-normalize). To "
        "normalise it, rebuild it as a functional model, keras.Model(inputs, outputs), with the same layers and "
        "weights",
        model=model.name,
    )


def _check_weights(model: Any) -> None:
    """Refuse weights that are NaN or infinite: a ReLU can hide them from every recorded activation."""
    for weight in model.weights:
        # One variable is copied at a time, without a mask: NaN and infinity show in the minimum or the maximum.
        values = np.asarray(weight)
        if values.dtype.kind not in "fV" or values.size == 0:
            continue
        ends = np.array([values.min(), values.max()], np.float64)
        if not np.isfinite(ends).all():
            layer, _, name = weight.path.rpartition("/")
            n_bad = int((~np.isfinite(values.astype(np.float64))).sum())
            raise InputError(
                f"{n_bad:,} of {values.size:,} values of the weight {name!r} of layer {layer!r} are NaN or infinite: "
                "no percentile of such a network means anything; correct it, or load an earlier checkpoint",
                layer=layer,
            )


def _recorded_hashing(existing: CacheSpec | None, wanted: str) -> Any:
    """Return how an existing cache has hashed its samples, "full" or "sampled"; ``wanted`` if there is none.

    Samples are compared by these hashes. How they were made affects no value.
    """
    recorded = existing.identity.get("data", {}).get("hashed") if existing is not None else None
    if recorded not in ("full", "sampled") or recorded == wanted:
        return wanted
    logger.warning(
        "data.fingerprint = %r applies to new caches: this one was recorded with %r and is compared by that",
        wanted,
        recorded,
    )
    return recorded


def _data_spec(data: DataSettings, model: Any, graph: Graph | None) -> DataSpec:
    """Return what the source needs to know. For a folder of images, the network's input gives size and colours."""
    if data.path is None:
        raise InputError("no data: set data.path in the job file (or --data), or give arrays")
    inputs = (
        built_inputs(model)
        if graph is None
        else [(key, spec[1]) for key, spec in zip(graph.input_keys, graph.input_specs, strict=True)]
    )
    size = data.image_size
    color: str | None = data.color_mode
    if len(inputs) == 1 and len(inputs[0][1]) == 3:
        height, width, n_channels = inputs[0][1]
        if size is None and height is not None and width is not None:
            size = (height, width)
        color = color or COLOR_MODE_OF.get(n_channels or 0)
    chosen = {**data.model_dump(), "image_size": size, "color_mode": color}
    return DataSpec(**chosen, input_names=tuple(name for name, _ in inputs))


def _check_batches(existing: CacheSpec, batch_size: int) -> None:
    """Refuse a batch size of which the blocks of an existing cache are no whole number of batches."""
    if existing.block_samples % batch_size:
        raise MismatchError(
            f"the cache in this folder was begun with batch_size={existing.batch_size}, in blocks of "
            f"{existing.block_samples:,} samples, which are no whole number of batches of {batch_size:,}: go on with "
            f"batch_size={existing.batch_size} (--batch-size {existing.batch_size}), or choose another output folder"
        )


def _as_kept(settings: JobSettings, existing: CacheSpec) -> JobSettings:
    """Return settings with what an existing cache keeps whatever the job says: activations, and their compression."""
    activations = settings.record.activations or existing.keeps_activations
    return settings.model_copy(
        update={
            "record": settings.record.model_copy(update={"activations": activations}),
            "cache": settings.cache.model_copy(update={"codec": existing.codec}),
        }
    )


def _with_chunks_of(existing: CacheSpec, points: Sequence[PointSpec]) -> tuple[PointSpec, ...]:
    """Return the points with the chunks that a cache already has: an earlier version chose larger ones."""
    known = {
        (point.name, point.shape): n
        for point, n in zip(existing.points, existing.chunk_samples.values(), strict=True)
    }
    return tuple(replace(point, chunk_samples=known.get((point.name, point.shape))) for point in points)


def _plan(
    settings: JobSettings,
    graph: Graph,
    source: Source,
    producer: KerasProducer,
    existing: CacheSpec | None,
    *,
    is_remote: bool,
) -> Plan:
    points = producer.points
    if existing is not None:
        _check_batches(existing, settings.record.batch_size)
        settings = _as_kept(settings, existing)
        points = _with_chunks_of(existing, points)
    weight_nbytes = [4 * math.prod(weight.shape) for weight in graph.model.weights]
    certificate_nbytes = 0
    if settings.normalize.enabled:
        certificate_nbytes = comparison_nbytes(
            weight_nbytes=weight_nbytes,
            largest_tensor_nbytes=producer.largest_tensor_nbytes(),
            batch_size=min(settings.record.batch_size, source.n_samples),
            is_half=any("float16" in value.dtype for value in graph.values),
        )
    network = NetworkNeeds(
        points=points,
        model_nbytes=weights_nbytes(graph.model),
        loading_nbytes=loading_nbytes(graph.model) if settings.model.path is not None else 0,
        input_nbytes=producer.input_nbytes(),
        largest_tensor_nbytes=producer.largest_tensor_nbytes(),
        check_nbytes=check_nbytes(graph),
        certificate_nbytes=certificate_nbytes,
        multiplications=producer.multiplications(),
    )
    return plan_with_savings(
        settings,
        network,
        n_samples=source.n_samples,
        block_samples=existing.block_samples if existing is not None else None,
        is_remote=is_remote,
    )
