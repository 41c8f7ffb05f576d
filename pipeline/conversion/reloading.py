"""`try_reload_activations`: read activations from the Zarr cache or the toolbox's file, or compute them."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import FormatError, InputError
from ..folder.folder import RunFolder
from ..graph import (
    Graph,
    Node,
    input_tensor,
    match_inputs,
    model_fingerprint,
    read_graph,
    refusals_explained,
    select_points,
    traced_forward,
)
from ..settings.loading import validate_job
from ..sources import Source, as_source
from ..stages.run_cache import existing_cache
from .activations import DEFAULT_BATCH_SIZE, whole_batches
from .recording import recorded_cache

__all__ = ["CACHE_FOLDER", "try_reload_activations"]

logger = logging.getLogger(__name__)

CACHE_FOLDER = "actisketch"
"""Name of our folder beside the toolbox's own files in ``activations``."""
RELATIVE_TOLERANCE = 1e-4
"""Activations of two versions of TensorFlow differ by about 1e-6, those of two networks by much more."""


def try_reload_activations(
    layer: Any, model: Any, x_norm: Any, batch_size: int | None, activ_dir: str | Path
) -> NDArray[np.float32] | None:
    """Return the outputs of a layer, from disk if they are there and right.

    Parameters
    ----------
    layer : keras.Layer
        A layer of ``model``.
    model : keras.Model
    x_norm : array_like of shape (n_samples, ...) or None
        Memory maps, zarr and dask arrays are read batch by batch. None: use only what is stored.
    batch_size : int, or None for 10
        Samples at the end that do not fill a batch are dropped.
    activ_dir : path
        Folder of the activations.

    Returns
    -------
    ndarray of shape (n_samples in whole batches, *layer shape), float32, or None
        The same as :func:`get_activations_layer` returns: before a BatchNormalization or an activation layer that
        follows. None if ``x_norm`` is None and nothing is stored.

    Raises
    ------
    InputError
        If ``layer`` is not in ``model``, the samples do not fill one batch, or their shape is not the one that the
        network takes.
    FormatError
        If ``x_norm`` is None and the toolbox's file is damaged.

    Notes
    -----
    The first call records all layers with parameters in one pass. A cache of another network or other
    samples is recomputed with a RuntimeWarning. The toolbox's own ``{layer.name}.npz`` is
    used if there is no cache: with ``x_norm`` only if its first and its last batch are what the
    layer gives, without ``x_norm`` with a RuntimeWarning, because the file does not say what it was made from.
    """
    graph = read_graph(model)
    node = _node_of(graph, layer)
    folder, old_file = Path(activ_dir) / CACHE_FOLDER, Path(activ_dir) / f"{layer.name}.npz"
    points: str | list[str] = "parameters"
    point = graph.every_point[node.name]
    if point not in select_points(graph) or point.value != node.outputs[0]:
        # The pass records points, which end after what follows a layer. The output of this layer is recorded alone.
        points, folder = [node.name], folder.with_name(f"{CACHE_FOLDER}-{layer.name}")
        model = _up_to(model, layer) if point.value != node.outputs[0] else model
    if x_norm is None:
        return _stored(model, node.name, folder, old_file)
    size = DEFAULT_BATCH_SIZE if batch_size is None else batch_size
    source = as_source(
        x_norm, num_samples=whole_batches(as_source(x_norm).n_samples, size), fingerprint="full"
    )
    if not RunFolder(folder).cache_path.exists() and old_file.exists():
        old = _checked_npz(old_file, graph, node, source, size)
        if old is not None:
            return old
    cache = recorded_cache(model, source, batch_size=size, folder=folder, points=points)
    return np.concatenate(list(cache.chunks(node.name)))


def _node_of(graph: Graph, layer: Any) -> Node:
    for node in graph.nodes:
        if node.operation is layer:
            return node
    raise InputError(
        f"the layer {layer.name!r} is not part of the network's graph: record a layer inside another one with "
        "actisketch.pipeline.run(points='leaves')",
        layer=layer.name,
    )


def _up_to(model: Any, layer: Any) -> Any:
    """Return the part of a network that ends with ``layer``."""
    import keras

    try:
        return keras.Model(model.inputs, layer.output)
    except (AttributeError, ValueError) as error:
        raise InputError(
            f"{layer.name!r} has not exactly one output in the network, because it is called more than once or inside "
            "a nested model: call get_activations_layer with symbolic tensors",
            layer=layer.name,
        ) from error


def _stored(model: Any, name: str, folder: Path, old_file: Path) -> NDArray[np.float32] | None:
    """Return what is stored, without samples to compare it with."""
    cache = existing_cache(validate_job({"output": str(folder)}), RunFolder(folder))
    if cache is not None and not cache.missing() and name in {point.name for point in cache.spec.points}:
        if dict(cache.spec.identity["model"]) == model_fingerprint(model):
            return np.concatenate(list(cache.chunks(name)))
        warnings.warn(
            "the stored activations are of another network: they are not used", RuntimeWarning, stacklevel=3
        )
        return None
    if not old_file.exists():
        return None
    warnings.warn(
        f"{old_file.name!r} does not say which network and samples it was made from: it is used as it is",
        RuntimeWarning,
        stacklevel=3,
    )
    return read_npz(old_file)


def read_npz(path: Path) -> NDArray[np.float32]:
    """Return the activations in a file of the toolbox; raise FormatError if it is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return np.asarray(archive["arr_0"], dtype=np.float32)
    except Exception as error:  # a damaged zip may raise anything: EOFError, RuntimeError, zlib.error ...
        raise FormatError(
            f"the activations {str(path)!r} are damaged or cut off ({error}): delete the file", path=str(path)
        ) from error


def _holds(old: NDArray[np.float32], graph: Graph, value: int, source: Source, batch_size: int) -> bool:
    """Whether the first and the last batch of an array are what the network gives at ``value``."""
    if len(old) != source.n_samples:
        return False
    wanted = match_inputs(graph, source.inputs)
    forward = traced_forward(graph, [value], [(source.inputs[i].shape, dtype) for i, dtype in wanted])
    for start in (0, source.n_samples - batch_size):
        batch = source.read(start, start + batch_size)
        with refusals_explained(start, start + batch_size, graph):
            ((new,), _) = forward([input_tensor(batch.inputs[i], dtype) for i, dtype in wanted])
        part, expected = old[start : start + batch_size], np.asarray(new)
        atol = RELATIVE_TOLERANCE * float(np.abs(expected).max())
        if part.shape != expected.shape or not np.allclose(
            part, expected, rtol=RELATIVE_TOLERANCE, atol=atol
        ):
            return False
    return True


def _checked_npz(
    path: Path, graph: Graph, node: Node, source: Source, batch_size: int
) -> NDArray[np.float32] | None:
    """Return the toolbox's activations if their first and last batch are right; otherwise warn and return None."""
    try:
        old = read_npz(path)
    except FormatError as error:
        warnings.warn(f"{error}; computed again", RuntimeWarning, stacklevel=3)
        return None
    if _holds(old, graph, node.outputs[0], source, batch_size):
        logger.info("activations of %s: the toolbox's file is right and used", node.name)
        return old
    warnings.warn(
        f"{path.name!r} was made from another network or other samples: computed again",
        RuntimeWarning,
        stacklevel=3,
    )
    return None
