"""`try_reload_activations`: from the Zarr cache, from an old file of the toolbox, or computed now."""

from __future__ import annotations

import logging
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import FormatError, InputError
from ..answers import existing_cache
from ..folder import RunFolder
from ..graph import Graph, Point, model_fingerprint, read_graph
from ..settings import validate_job
from ..sources import Source, as_source
from .activations import whole_batches
from .recording import recorded_cache

__all__ = ["CACHE_FOLDER", "try_reload_activations"]

logger = logging.getLogger(__name__)

CACHE_FOLDER = "actisketch"
"""Beside the toolbox's own files in its folder ``activations``."""
RELATIVE_TOLERANCE = 1e-4
"""Activations of two TensorFlow versions differ by 1e-6 or so, of two networks by much more."""


def try_reload_activations(
    layer: Any, model: Any, x_norm: Any, batch_size: int, activ_dir: str | Path
) -> NDArray[np.float32] | None:
    """Return the activations of a layer, from disk if they are there and right.

    Parameters
    ----------
    layer : keras.Layer
        A layer of ``model``.
    model : keras.Model
    x_norm : array_like of shape (n_samples, ...) or None
        Memory maps, zarr and dask arrays are read batch by batch. None: only what is stored.
    batch_size : int
        The tail of the samples that does not fill a batch is dropped.
    activ_dir : path
        Folder of the activations.

    Returns
    -------
    ndarray of shape (n_samples in whole batches, *layer shape), float32, or None
        After the BatchNormalization and the separate activation layers that follow the layer alone. None when
        ``x_norm`` is None and nothing is stored.

    Raises
    ------
    InputError
        If ``layer`` is not in ``model``, or the samples do not fill one batch.
    FormatError
        If ``x_norm`` is None and the toolbox's file is damaged.

    Notes
    -----
    All layers with parameters are recorded in one pass at the first call. A cache of another network or other
    samples is recomputed with a RuntimeWarning. The toolbox's own ``{layer.name}.npz`` is
    used where there is no cache: with ``x_norm`` only if its first and its last batch are what the
    network gives (behind a separate ReLU or before it), without it with a RuntimeWarning, because nothing in it says
    what it was made from.
    """
    graph = read_graph(model)
    point = _point_of(graph, layer)
    folder, old_file = Path(activ_dir) / CACHE_FOLDER, Path(activ_dir) / f"{layer.name}.npz"
    if x_norm is None:
        return _stored(model, point, folder, old_file)
    source = as_source(
        x_norm, num_samples=whole_batches(as_source(x_norm).n_samples, batch_size), fingerprint="full"
    )
    if not RunFolder(folder).cache_path.exists() and old_file.exists():
        old = _checked_npz(old_file, graph, point, source, batch_size)
        if old is not None:
            return old
    points = "parameters" if point in graph.points() else [point.name]
    folder = folder if points == "parameters" else folder.with_name(f"{CACHE_FOLDER}-{layer.name}")
    cache = recorded_cache(model, source, batch_size=batch_size, folder=folder, points=points)
    return np.concatenate(list(cache.chunks(point.name)))


def _point_of(graph: Graph, layer: Any) -> Point:
    for point in graph.every_point.values():
        if graph.nodes[point.node].operation is layer:
            return point
    raise InputError(f"the layer {layer.name!r} is not part of the network", layer=layer.name)


def _stored(model: Any, point: Point, folder: Path, old_file: Path) -> NDArray[np.float32] | None:
    """Return what is stored without samples to compare it with."""
    cache = existing_cache(validate_job({"output": str(folder)}), RunFolder(folder))
    if cache is not None and not cache.missing() and point.name in {each.name for each in cache.spec.points}:
        if dict(cache.spec.identity["model"]) == model_fingerprint(model):
            return np.concatenate(list(cache.chunks(point.name)))
        warnings.warn("the stored activations are of another network: not used", RuntimeWarning, stacklevel=3)
        return None
    if not old_file.exists():
        return None
    warnings.warn(
        f"{old_file.name!r} does not say which network and samples it was made from: used as it is",
        RuntimeWarning,
        stacklevel=3,
    )
    return read_npz(old_file)


def read_npz(path: Path) -> NDArray[np.float32]:
    """Return the activations in a file of the toolbox; FormatError if it is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return np.asarray(archive["arr_0"], dtype=np.float32)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise FormatError(
            f"the activations {str(path)!r} are damaged or cut off ({error}): delete the file", path=str(path)
        ) from error


def _holds(old: NDArray[np.float32], graph: Graph, value: int, source: Source, batch_size: int) -> bool:
    """Tell whether the first and the last batch of an array are what the network gives at ``value``."""
    if len(old) != source.n_samples:
        return False
    forward = graph.forward([value])
    for start in (0, source.n_samples - batch_size):
        ((new,), _) = forward(list(source.read(start, start + batch_size).inputs))
        part, expected = old[start : start + batch_size], np.asarray(new)
        atol = RELATIVE_TOLERANCE * float(np.abs(expected).max())
        if part.shape != expected.shape or not np.allclose(
            part, expected, rtol=RELATIVE_TOLERANCE, atol=atol
        ):
            return False
    return True


def _checked_npz(
    path: Path, graph: Graph, point: Point, source: Source, batch_size: int
) -> NDArray[np.float32] | None:
    """Return the toolbox's activations if their first and last batch are right, else None with a warning."""
    try:
        old = read_npz(path)
    except FormatError as error:
        warnings.warn(f"{error}; computed again", RuntimeWarning, stacklevel=3)
        return None
    # Of a network that the toolbox has not parsed, its file holds what the layer itself gives.
    own = graph.nodes[point.node].outputs[0]
    if any(_holds(old, graph, value, source, batch_size) for value in dict.fromkeys((point.value, own))):
        logger.info("activations of %s: the toolbox's file is right and used", point.name)
        return old
    warnings.warn(
        f"{path.name!r} was made from another network or other samples: computed again",
        RuntimeWarning,
        stacklevel=3,
    )
    return None
