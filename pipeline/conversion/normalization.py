"""`normalize_parameters`, SNN toolbox's main function, computed out of core and certified.

Knows the toolbox's files and keywords; the rest of the package records, rescales and certifies.
"""

from __future__ import annotations

import json
import logging
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from configparser import ConfigParser
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...storage.errors import CertificateError, InputError, MismatchError
from ...storage.partial import partial_name, remove_leftovers, replacing
from ..certifier import certify
from ..factors.exact_source import ExactSource
from ..factors.merge import merged_sketches
from ..folder.folder import write_json
from ..graph import Graph, read_graph, select_points
from ..graph.kinds import is_batch_norm
from ..normalizer import Exceptions, NormalizedModel, normalize_in_place, normalize_model, propagate
from ..settings.percents import percent_text
from ..sketch import PointSketch, SketchSpec
from ..sources import Source, as_source
from .activations import whole_batches
from .configuration import ToolboxSettings, read_settings
from .dataflow import spooled
from .percentiles import get_percentile, get_scale_fac
from .plots import draw_plots
from .recording import recorded_cache
from .reloading import CACHE_FOLDER, read_npz

__all__ = ["normalize_parameters"]

logger = logging.getLogger(__name__)

NO_FACTORS = "Scale factors or normalization data set could not be loaded. Proceeding without normalization."


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredFactors:
    """Factors as the toolbox computes them, and the sketches that they were made from."""

    factors: dict[str, float]
    sketches: Mapping[str, PointSketch]


def normalize_parameters(model: Any, config: ConfigParser, **kwargs: Any) -> None:
    """Normalise the parameters of a network in place by percentiles of its activations.

    Parameters
    ----------
    model : keras.Model
        All its weights are changed, or none.
    config : ConfigParser
        SNN toolbox's settings: ``[normalization] percentile, normalization_schedule, num_samples``,
        ``[simulation] batch_size``, ``[output] plot_vars, overwrite, use_simple_labels``,
        ``[paths] log_dir_of_current_run``.
    x_norm : array_like of shape (n_samples, ...), optional
        Samples; memory maps, zarr and dask arrays are read batch by batch. Samples at the end that do not
        fill a batch are dropped.
    dataflow : iterator of batches, optional
        Instead of ``x_norm``; ``ceil(num_samples / batch_size)`` batches are taken.
    scale_facs : mapping of layer name to float, optional
        Factors of an earlier run; then no samples are needed. If only the input's is given, the others are computed
        from the samples, or without any from the toolbox's own files in ``path/activations``.
    path : path, optional
        Folder of the results; default: ``{log_dir_of_current_run}/normalization``.
    pin, treat_as_identity : iterable of str, optional
        For layers without a rule, as in :func:`~..normalizer.normalize_model`; the toolbox does not have them.

    Raises
    ------
    InputError, MismatchError
        For unusable settings, samples or factors, or a layer without a rule: the model is unchanged.
    CertificateError
        If the normalised network would not compute what the original does: the model is unchanged.

    Notes
    -----
    Writes ``{percentile}.json`` with the factors (the input's first), ``certificate.json``,
    ``activations/sparsity.npz``, the weights before (``activations/weights.npz``, an array for each layer), and the
    cache ``activations/actisketch``; with ``normalization_activations`` in
    ``plot_vars`` also three plots for each layer. Percentiles are exact and taken over the activations that are not
    zero; a layer without any gets factor 1. Softmax layers are scaled by 1, whatever the file says.

    A factor is measured where the neurons of a layer will spike: after a BatchNormalization and an activation layer
    that follow it alone. In a parsed network that is the layer's own output, which
    :func:`try_reload_activations` and :func:`get_activations_layer` return; in another network it may not be.

    Where the toolbox silently computes something wrong, this function corrects it and warns: a percentile that is not
    positive (a linear output) is replaced by that of the magnitudes, a stale cache is recomputed, layers that are not
    positively homogeneous keep factor 1, a BatchNormalization behind an activation is not folded into the weights
    before the activation.

    References
    ----------
    .. [1] Rueckauer et al., Front. Neurosci. 11:682 (2017).
    """
    unknown = sorted(kwargs.keys() - _KEYWORDS)
    if unknown:
        raise InputError(f"normalize_parameters takes {', '.join(sorted(_KEYWORDS))}, not {unknown[0]!r}")
    settings = read_settings(config, path=kwargs.get("path"))
    given = _parsed(kwargs.get("scale_facs"))
    graph = read_graph(model)
    exceptions = Exceptions(tuple(kwargs.get("pin", ())), tuple(kwargs.get("treat_as_identity", ())))
    # Refuse a layer without a rule here, before anything is recorded or written.
    propagate(graph, exceptions=exceptions, keep_structure=True)
    _warn_of_late_norms(graph)
    measures = given is None or len(given) == 1
    with _samples(kwargs, settings, measures=measures) as source:
        if given is None and source is None:
            warnings.warn(NO_FACTORS, RuntimeWarning, stacklevel=2)
            return
        settings.activations_folder.mkdir(parents=True, exist_ok=True)
        measured = None
        if measures:
            if source is None:
                given = _from_old_files(graph, settings, config, given)
                measured = MeasuredFactors(factors=given, sketches={})
            else:
                measured = _measure(model, graph, source, settings, config, given)
                given = measured.factors
        _normalize(model, graph, dict(given or {}), source, settings, measured, exceptions)


_KEYWORDS = {"x_norm", "dataflow", "scale_facs", "path", "pin", "treat_as_identity"}


def _parsed(scale_facs: Any) -> dict[str, float] | None:
    """Return the factors by name, or None if none were given.

    Raises
    ------
    InputError
        If they are not a mapping of names to numbers.
    """
    if scale_facs is None:
        return None
    if not isinstance(scale_facs, Mapping):
        raise InputError(
            f"scale_facs is a {type(scale_facs).__name__}: give a mapping of layer names to numbers, which "
            "json.load reads from the file of an earlier run"
        )
    if not scale_facs:
        raise InputError(
            "scale_facs is empty: give a number for each layer, or leave it out and give x_norm or a dataflow"
        )
    try:
        return {str(name): float(factor) for name, factor in scale_facs.items()}
    except (TypeError, ValueError):
        wrong = next(name for name, factor in scale_facs.items() if not isinstance(factor, int | float))
        raise InputError(
            f"the scale factor of {wrong!r} is {scale_facs[wrong]!r}: give a positive number",
            layer=wrong,
        ) from None


def _warn_of_late_norms(graph: Graph) -> None:
    late = [
        node.name for node in graph.nodes if is_batch_norm(node.operation) and node.index not in graph.folded
    ]
    if late:
        warnings.warn(
            f"the BatchNormalization {late[0]!r} ({len(late)} such layers) does not directly follow weights: it "
            "stays in the network, with changed statistics. SNN toolbox folds it into the weights before it, which "
            "changes the network if there is an activation in between",
            RuntimeWarning,
            stacklevel=3,
        )


@contextmanager
def _samples(
    kwargs: Mapping[str, Any], settings: ToolboxSettings, *, measures: bool
) -> Iterator[Source | None]:
    """Provide the samples of the call in whole batches; None if there are none. A dataflow only ``measures``."""
    x_norm, dataflow = kwargs.get("x_norm"), kwargs.get("dataflow")
    if x_norm is None and dataflow is not None and measures:
        settings.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(settings.folder)  # as large as the samples
        with tempfile.TemporaryDirectory(dir=settings.folder, prefix=partial_name("dataflow", "-")) as folder:
            yield _whole(spooled(dataflow, settings, Path(folder)), settings)
    else:
        yield None if x_norm is None else _whole(x_norm, settings)


def _whole(x: Any, settings: ToolboxSettings) -> Source:
    n_samples = whole_batches(as_source(x).n_samples, settings.batch_size)
    return as_source(x, num_samples=n_samples, fingerprint="full")


def _measure(
    model: Any,
    graph: Graph,
    source: Source,
    settings: ToolboxSettings,
    config: ConfigParser,
    given: Mapping[str, float] | None,
) -> MeasuredFactors:
    """Record the network and return a factor for each layer with parameters."""
    folder = settings.activations_folder / CACHE_FOLDER
    cache = recorded_cache(model, source, batch_size=settings.batch_size, folder=folder)
    sketches = merged_sketches(cache)
    exact = ExactSource(cache, sketches)
    factors: dict[str, float] = dict(given) if given else {graph.input_specs[0][0]: 1}
    for index, point in enumerate(cache.spec.points):
        percentile = get_percentile(config, index)
        factors[point.name] = _factor(exact, point.name, percentile)
        logger.info("scale factor of %s: %.2f", point.name, factors[point.name])
    layers = [sketches[point.name].layer for point in cache.spec.points]
    with replacing(settings.activations_folder / "sparsity.npz") as partial:
        np.savez_compressed(partial, sparsity=[layer.n_zeros / layer.n for layer in layers])
    return MeasuredFactors(factors=factors, sketches=sketches)


def _factor(exact: ExactSource, name: str, percentile: float) -> float:
    """Return the percentile of the activations that are not zero, or 1 if all are zero; always positive."""
    layer = exact.sketches[name].layer
    if layer.n == layer.n_zeros:
        return 1
    (value,) = exact.percentiles(name, [percentile], nonzero=True)
    if value > 0:
        return value
    (low,) = exact.percentiles(name, [100 - percentile], nonzero=True)
    warnings.warn(
        f"percentile {percent_text(percentile)} of {name!r} is {value:g}, but a factor has to be positive: "
        f"the magnitude {max(-value, -low):g} is used",
        RuntimeWarning,
        stacklevel=5,
    )
    return max(-value, -low)


def _from_old_files(
    graph: Graph, settings: ToolboxSettings, config: ConfigParser, given: Mapping[str, float] | None
) -> dict[str, float]:
    """Return a factor for each layer, from the toolbox's files of activations.

    Raises
    ------
    InputError
        If a file is missing, so that samples are needed.
    FormatError
        If one is damaged.
    """
    factors: dict[str, float] = dict(given or {graph.input_specs[0][0]: 1})
    points = select_points(graph)
    files = [settings.activations_folder / f"{point.layer_name}.npz" for point in points]
    missing = [file.name for file in files if not file.exists()]
    if missing:
        raise InputError(
            f"no samples were given and {missing[0]!r} is not in {str(settings.activations_folder)!r}: give x_norm or "
            "dataflow, or all scale_facs"
        )
    for index, (point, file) in enumerate(zip(points, files, strict=True)):
        activations = read_npz(file)
        if activations.shape[1:] != point.shape:
            raise MismatchError(
                f"{file.name!r} holds activations of shape {activations.shape[1:]}, the network gives {point.shape}: "
                "the file is of another network"
            )
        factors[point.name] = get_scale_fac(activations[activations != 0], get_percentile(config, index))
    warnings.warn(
        f"the factors come from the files in {str(settings.activations_folder)!r}, which do not say which network and "
        "samples they were made from",
        RuntimeWarning,
        stacklevel=4,
    )
    return factors


def _write_weights(model: Any, settings: ToolboxSettings) -> None:
    """Write the first array of weights of each layer, as the toolbox does before it changes them."""
    arrays: dict[str, Any] = {
        layer.name: np.asarray(layer.weights[0]) for layer in model.layers if layer.weights
    }
    with replacing(settings.activations_folder / "weights.npz") as partial:
        np.savez(partial, **arrays)


def _write_factors(factors: Mapping[str, float], settings: ToolboxSettings) -> None:
    path = settings.factors_path
    if path.exists() and not settings.overwrite:
        warnings.warn(
            f"{str(path)!r} exists and [output] overwrite is False: the file is not changed",
            RuntimeWarning,
            stacklevel=4,
        )
        return
    with replacing(path) as partial:
        partial.write_text(json.dumps(factors), encoding="utf-8")


def _normalize(
    model: Any,
    graph: Graph,
    factors: dict[str, float],
    source: Source | None,
    settings: ToolboxSettings,
    measured: MeasuredFactors | None,
    exceptions: Exceptions,
) -> None:
    all_factors = factors
    factors, input_factors = _split(factors, graph)
    twin = normalize_model(
        model,
        factors,
        keep_structure=True,
        input_factor=input_factors,
        pin=exceptions.pin,
        treat_as_identity=exceptions.identity,
    )
    _warn_of_pinned(twin, factors)
    certificate = None
    if source is not None:
        certificate = certify(
            model,
            twin,
            source,
            batch_size=settings.batch_size,
            sketch_spec=SketchSpec() if settings.plots else None,
        )
        write_json(settings.folder / "certificate.json", certificate.to_dict())
        if not certificate.passed:
            raise CertificateError(
                f"the normalised network would not compute what the original does: {certificate.summary()}; the model "
                "is unchanged"
            )
    if measured is not None:
        _write_factors(all_factors, settings)
    _write_weights(model, settings)
    if settings.plots:
        draw_plots(
            twin,
            folder=settings.folder,
            before={} if measured is None else measured.sketches,
            after={} if certificate is None else certificate.sketches,
            factors=factors,
            simple_labels=settings.simple_labels,
        )
    normalize_in_place(
        model, factors, input_factor=input_factors, pin=exceptions.pin, treat_as_identity=exceptions.identity
    )


def _split(factors: Mapping[str, float], graph: Graph) -> tuple[dict[str, float], dict[str, float]]:
    """Return the factors of the layers and those of the inputs.

    The toolbox writes the input's first, under the name of the input layer, which Keras numbers within a session.
    """
    names = [name for name, _, _ in graph.input_specs]
    first = next(iter(factors), "")
    is_foreign = first not in graph.every_point and first not in names
    if is_foreign and not _INPUT_NAME.fullmatch(first):
        raise MismatchError(
            f"scale_facs names {first!r}, which is neither a layer of this network nor an input "
            f"({', '.join(map(repr, names))}): are the factors of another network?",
            layer=first,
        )
    by_name = {names[0] if is_foreign and name == first else name: factor for name, factor in factors.items()}
    inputs = {name: by_name.pop(name) for name in names if name in by_name}
    return by_name, inputs


# The names that the toolbox and Keras give to inputs.
_INPUT_NAME = re.compile(r"(input|input_layer|keras_tensor|inputlayer)(_?\d+)?", re.IGNORECASE)


def _warn_of_pinned(twin: NormalizedModel, factors: Mapping[str, float]) -> None:
    """Warn of layers that keep factor 1, where the toolbox would have scaled and thereby changed them."""
    names = [
        point.name
        for point in twin.points
        if point.name in twin.pinned_points
        and point.activation != "softmax"
        and factors.get(point.name, 1) != 1
    ]
    if names:
        warnings.warn(
            f"{', '.join(map(repr, names[:6]))} ({len(names)} layers) keep factor 1: they end in, or lead to, a "
            "function that is not positively homogeneous",
            RuntimeWarning,
            stacklevel=4,
        )
