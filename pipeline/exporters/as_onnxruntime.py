"""The calibration cache that ONNX Runtime's ``quantize_static`` reads instead of calibrating by itself."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from .exporter import Exported, Exporter, ExportRequest, RangeRow, hashes_of
from .extra import import_extra
from .matching import in_order, matched_rows
from .reopening import NETWORK_OPTIONS, exported_by_keras, names_in_export, reopened

__all__ = ["EXPORTER", "OnnxNetwork", "tensor_quant_overrides"]

EXTRA = "onnxruntime"
FILE_NAME = "calibration.json"
OLDEST = "1.32"
"""The first whose ``quantize_static`` takes ``calibration_cache_path``."""
QUANTISED = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}
# Protocol buffers end at 2 GiB, and ONNX Runtime takes a network in memory as one.
LARGEST_NBYTES = 2**31 - 2**24


class OnnxNetwork:
    """A network of ONNX with all of its tensors as outputs, run by ONNX Runtime without optimisation.

    Parameters
    ----------
    model : onnx.ModelProto
    origin : str
        What to call it in messages.
    input_names : sequence of str
        Of the run's network, in its order.

    Raises
    ------
    InputError
        If it is quantised already, too large, or has another number of inputs.
    """

    def __init__(self, model: Any, origin: str, input_names: Sequence[str]) -> None:
        onnx = import_extra("onnx", extra=EXTRA)
        self._ort = import_extra("onnxruntime", extra=EXTRA, at_least=OLDEST)
        self.origin = origin
        quantised = sorted({n.op_type for n in model.graph.node if _is_quantised(n.op_type)})
        if quantised:
            raise InputError(
                f"{origin} is quantised already ({', '.join(quantised)}): give the network of floats"
            )
        if model.ByteSize() > LARGEST_NBYTES:
            raise InputError(
                f"{origin} has {model.ByteSize():,} bytes: at most {LARGEST_NBYTES:,} can be run in memory"
            )
        self._model = onnx.shape_inference.infer_shapes(model)
        floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
        constants = {each.name for each in model.graph.initializer}
        self._inputs = [each for each in self._model.graph.input if each.name not in constants]
        self._order = in_order([each.name for each in self._inputs], input_names, origin)
        known = {each.name: each for each in (*self._model.graph.value_info, *self._model.graph.output)}
        self._outputs = {
            name: known[name]
            for node in self._model.graph.node
            for name in node.output
            if name in known and known[name].type.tensor_type.elem_type in floats
        }
        given = [each.name for each in self._inputs if each.type.tensor_type.elem_type in floats]
        self.tensors: tuple[str, ...] = (*given, *self._outputs)

    @cached_property
    def _session(self) -> Any:
        there = {each.name for each in self._model.graph.output}
        self._model.graph.output.extend(info for name, info in self._outputs.items() if name not in there)
        options = self._ort.SessionOptions()
        options.graph_optimization_level = self._ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.log_severity_level = 3
        return self._ort.InferenceSession(
            self._model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    @property
    def fixed_batch(self) -> int | None:
        """The number of samples that the network was exported for; None if it takes any."""
        shapes = [each.type.tensor_type.shape.dim for each in self._inputs]
        sizes = {dims[0].dim_value for dims in shapes if len(dims)} - {0}
        return min(sizes, default=None)

    def run(self, batch: Sequence[NDArray[Any]], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return tensors by name."""
        feed = {each.name: batch[i] for each, i in zip(self._inputs, self._order, strict=True)}
        wanted = [name for name in names if name not in feed]
        found = self._session.run(wanted, feed) if wanted else []
        return {name: feed[name] for name in names if name in feed} | dict(zip(wanted, found, strict=True))


def _is_quantised(op_type: str) -> bool:
    return op_type in QUANTISED or op_type.startswith("QLinear") or op_type.endswith("Integer")


def tensor_quant_overrides(rows: Iterable[RangeRow]) -> dict[str, list[dict[str, Any]]]:
    """Return ranges as the ``TensorQuantOverrides`` of ONNX Runtime's ``extra_options``.

    Examples
    --------
    >>> tensor_quant_overrides(run.exported("onnxruntime").rows)  # doctest: +SKIP
    {'image': [{'rmin': np.float32(0.0), 'rmax': np.float32(1.0)}], ...}
    """
    return {row.tensor: [{"rmin": np.float32(row.lo), "rmax": np.float32(row.hi)}] for row in rows}


def _cache_text(rows: Sequence[RangeRow], beside: Mapping[str, bytes]) -> str:
    def number(value: float) -> Mapping[str, Any]:
        return {"data": float(np.float32(value)), "dtype": "float32", "CLS": "numpy.array"}

    data = {
        row.tensor: {"lowest": number(row.lo), "highest": number(row.hi), "CLS": "TensorData"} for row in rows
    }
    tree = {
        "CLS": "TensorsData",
        "data": data,
        "calibration_method": {"CLS": "CalibrationMethod", "value": "CalibrationMethod.MinMax"},
        "smooth_quant": False,
        "written_beside": hashes_of(beside),  # read by us alone
    }
    return json.dumps(tree, indent=1) + "\n"


def _loaded(path: Path) -> Any:
    onnx = import_extra("onnx", extra=EXTRA)
    if not path.is_file():
        raise InputError(
            f"there is no file {str(path)!r}: leave --onnx out, and the network of the run is exported"
        )
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # of protobuf, of the checker, of the file system
        raise InputError(
            f"{str(path)!r} is no network of ONNX: {' '.join(str(error).split())[:300]}"
        ) from None
    return model


def _make(request: ExportRequest) -> Exported:
    onnx = import_extra("onnx", extra=EXTRA, at_least="1.18")
    import_extra("onnxruntime", extra=EXTRA, at_least=OLDEST)
    given = request.options.get("onnx")
    loaded = None if given is None else _loaded(Path(given))
    job = reopened(request.run, request.options)
    beside = {}
    if loaded is None:
        import_extra("tf2onnx", extra=EXTRA, at_least="1.16")
        beside[".onnx"] = exported_by_keras(job, "onnx")
        loaded = onnx.load_from_string(beside[".onnx"])
    names = names_in_export(job.graph)
    network = OnnxNetwork(loaded, f"{str(given)!r}" if given else "the network that Keras exported", names)
    rows, warnings = matched_rows(network, job, request)
    return Exported(
        content=_cache_text(rows, beside),
        rows=tuple(rows),
        warnings=warnings,
        file_name=FILE_NAME,
        beside=beside,
    )


EXPORTER = Exporter(
    about="the calibration cache of ONNX Runtime's quantize_static, for --onnx or the network as Keras exports it",
    make=_make,
    options=("onnx", *NETWORK_OPTIONS),
    beside={".onnx": "onnx"},
    file_name=FILE_NAME,
    takes_channels=False,
    note=(
        "AveragePool, MaxPool, Flatten, Reshape, Transpose and Slice keep the scale of their input in ONNX Runtime, "
        "whatever range their result has here."
    ),
    opens_network=True,
)
