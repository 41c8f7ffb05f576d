"""Open the network and the samples of a finished run again, for targets that need both."""

from __future__ import annotations

import inspect
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage import is_url
from ...storage.errors import InputError, MismatchError
from ..graph import Graph, match_inputs, model_arguments, model_fingerprint, read_graph, reason_of
from ..record.model import load_network
from ..settings.loading import validate_job
from ..sources import as_source
from ..stages.prepare import Prepared, prepare
from ..stages.same_data import check_data, data_state
from ..stages.trust import trusted_by_caller
from .exporter import RecordedRun

__all__ = [
    "NETWORK_OPTIONS",
    "exported_by_keras",
    "inputs_of",
    "names_in_export",
    "opened_graph",
    "point_values",
    "reopened",
]

_IN_MEMORY = (
    "the run was recorded with {what} in memory: give --{table} (in Python: options={{'{table}': ...}})"
)

NETWORK_OPTIONS = ("model", "data", "custom_objects", "unsafe_model")
"""Options of every exporter that opens network and samples: where they are now, and what they may do."""


def reopened(run: RecordedRun, options: Mapping[str, Any]) -> Prepared:
    """Return the network and the samples that the run was recorded with.

    Parameters
    ----------
    run : RecordedRun
    options : mapping
        ``model`` and ``data``: a path, or from Python the network and the samples themselves; default: where they were.
        ``custom_objects`` and ``unsafe_model``: as in a job; the run's folder never grants them.

    Raises
    ------
    InputError
        If network or samples are not at hand.
    MismatchError
        If they are not those that were recorded.
    """
    model, data = options.get("model"), options.get("data")
    tree = run.settings.model_dump()
    tree["model"] |= _trusted(run, options)
    # Whether the network can be normalised does not matter here, and no samples beyond those of the cache do.
    tree["normalize"]["enabled"], tree["data"]["num_samples"] = False, run.cache.spec.n_samples
    for table, given in (("model", model), ("data", data)):
        if isinstance(given, str | Path):
            is_path = not is_url(str(given))
            tree[table]["path"] = str(Path(given).expanduser().absolute() if is_path else given)
    in_memory = model is not None and not isinstance(model, str | Path)
    source = None if data is None or isinstance(data, str | Path) else as_source(data)
    for table, is_there in (("model", in_memory), ("data", source is not None)):
        if tree[table]["path"] is None and not is_there:
            what = "a network" if table == "model" else "samples"
            raise InputError(_IN_MEMORY.format(what=what, table=table), setting=f"{table}.path")
    job = prepare(validate_job(tree), model=model if in_memory else None, source=source, existing=run.cache)
    _check_same(job.fingerprint, run)
    check_data(run.cache, job.source, folder=run.folder, state=data_state(job.source))
    return job


def opened_graph(run: RecordedRun, options: Mapping[str, Any]) -> Graph:
    """Return the graph of the network that the run was recorded with, without its samples; see `reopened`."""
    given = options.get("model")
    asked = _trusted(run, options)
    path = given if given is not None else run.settings.model.path
    if path is None:
        raise InputError(_IN_MEMORY.format(what="a network", table="model"), setting="model.path")
    is_file = isinstance(path, str | Path)
    model = load_network(str(path), **asked) if is_file else path
    _check_same(model_fingerprint(model), run)
    return read_graph(model)


def _trusted(run: RecordedRun, options: Mapping[str, Any]) -> dict[str, Any]:
    return trusted_by_caller(
        run.asked_model,
        run.folder.manifest_path,
        custom_objects=options.get("custom_objects"),
        safe_mode=not options.get("unsafe_model", False),
    )


def _check_same(fingerprint: Mapping[str, Any], run: RecordedRun) -> None:
    if dict(fingerprint) != dict(run.cache.spec.identity.get("model", {})):
        raise MismatchError(
            "the network is not the one that the run was recorded with: give that one with --model"
        )


def inputs_of(job: Prepared, start: int, stop: int) -> list[NDArray[Any]]:
    """Return the samples start..stop-1 as the network takes them, an array for each of its inputs, in its order."""
    given = job.source.read(start, stop).inputs
    return [np.asarray(given[i], dtype=dtype) for i, dtype in match_inputs(job.graph, job.source.inputs)]


class _Kept:
    """Keeps the values of every point, of a few samples."""

    def __init__(self, points: tuple[str, ...]) -> None:
        self.parts: dict[str, list[NDArray[np.float32]]] = {name: [] for name in points}

    def take(self, point: str, values: NDArray[np.float32]) -> None:
        self.parts[point].append(values)

    def end_batch(self, n_samples: int) -> None:
        """Do nothing: whole batches are not needed."""


def point_values(run: RecordedRun, job: Prepared, n_samples: int) -> dict[str, NDArray[np.float32]]:
    """Return the activations of the first samples at each point, as the network computes them."""
    kept = _Kept(run.points)
    job.producer.hand_over(0, n_samples, kept)
    return {name: np.concatenate(parts) for name, parts in kept.parts.items()}


def exported_by_keras(job: Prepared, kind: str) -> bytes:
    """Return the network as Keras exports it, in the format "onnx" or "litert".

    Its inputs are called as `names_in_export` says.

    Raises
    ------
    InputError
        If Keras or the converter cannot do it.
    """
    with tempfile.TemporaryDirectory(prefix="actisketch-") as folder:
        path = Path(folder) / ("network.onnx" if kind == "onnx" else "network.tflite")
        given = {} if not job.graph.is_opaque else {"input_signature": _signature(job.graph, kind)}
        try:
            args, kwargs = model_arguments(job.graph, inputs_of(job, 0, 1))
            job.model(*args, **kwargs)  # Keras exports only what was called once
            job.model.export(str(path), format=kind, verbose=False, **given)
        except InputError:
            raise
        except Exception as error:  # of the network and of the converters, which have no common base
            raise _no_export(kind, reason_of(error)) from error
        return path.read_bytes()


def names_in_export(graph: Graph) -> list[str]:
    """Return the name of each input in what `exported_by_keras` gives."""
    names = [name for name, _, _ in graph.input_specs]
    if not graph.is_opaque:
        return names
    # They may come from the data, and TensorFlow takes only letters, digits and "_".
    plain = [re.sub(r"[^A-Za-z0-9_]", "_", name) for name in names]
    return [name if plain.count(name) == 1 else f"{name}_{i}" for i, name in enumerate(plain)]


def _signature(graph: Graph, kind: str) -> list[Any]:
    """Return what a subclassed model takes, an entry for each argument: Keras knows no types of it, only shapes."""
    import tensorflow as tf

    specs = [
        tf.TensorSpec((None, *shape), dtype, name=name)
        for name, (_, shape, dtype) in zip(names_in_export(graph), graph.input_specs, strict=True)
    ]
    args, kwargs = model_arguments(graph, specs)
    if not kwargs:
        return list(args)
    first = [
        each.name
        for each in inspect.signature(graph.model.call).parameters.values()
        if each.kind == each.POSITIONAL_OR_KEYWORD
    ][: len(kwargs)]
    if set(first) != set(kwargs):
        raise _no_export(
            kind, f"of the arguments of its call(), the data has {', '.join(map(repr, kwargs))} only"
        )
    return [kwargs[name] for name in first]


def _no_export(kind: str, reason: str) -> InputError:
    return InputError(
        f"Keras cannot export this network as {kind} ({reason}): give a file that was exported in another way"
    )
