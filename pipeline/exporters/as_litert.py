"""The calibration result of ai-edge-quantizer, which its ``quantize`` takes instead of calibrating by itself."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.errors import InputError
from ..events import counted
from .exporter import Exported, Exporter, ExportRequest, RangeRow, hashes_of
from .extra import check_release, import_extra
from .matching import in_order, matched_rows
from .reopening import NETWORK_OPTIONS, exported_by_keras, names_in_export, reopened

__all__ = ["EXPORTER", "LiteRtNetwork"]

EXTRA = "litert"
FILE_NAME = "calibration.json"


class LiteRtNetwork:
    """A ``.tflite`` network with all of its tensors visible.

    Parameters
    ----------
    content : bytes
        The file.
    origin : str
        What to call it in messages.
    input_names : sequence of str
        Of the run's network, in its order.

    Raises
    ------
    InputError
        If it is none, is quantised already, or has another number of inputs.
    """

    def __init__(self, content: bytes, origin: str, input_names: Sequence[str]) -> None:
        interpreter = import_extra("ai_edge_litert.interpreter", extra=EXTRA, package="ai-edge-litert")
        flatbuffers = import_extra(
            "ai_edge_litert.tools.flatbuffer_utils", extra=EXTRA, package="ai-edge-litert"
        )
        self.origin = origin
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that all tensors stay in memory, which is wanted
                self._interpreter = interpreter.Interpreter(
                    model_content=content, experimental_preserve_all_tensors=True
                )
            (graph, *others) = flatbuffers.convert_bytearray_to_object(bytearray(content)).subgraphs
        except Exception as error:  # of flatbuffers and of the interpreter, without a common base
            raise InputError(
                f"{origin} is no network of LiteRT: {' '.join(str(error).split())[:200]}"
            ) from None
        n_signatures = len(self._interpreter.get_signature_list())
        if n_signatures > 1:
            raise InputError(
                f"{origin} has {n_signatures} signatures: export the one of the run's network alone"
            )
        self.n_inner = len(others)
        """Graphs inside loops and branches, whose tensors nobody sees."""
        self._details = {each["index"]: each for each in self._interpreter.get_tensor_details()}
        if any(len(each["quantization_parameters"]["scales"]) for each in self._details.values()):
            raise InputError(f"{origin} is quantised already: give the network of floats")
        self._inputs = self._in_signature()
        self._order = in_order([name for name, _ in self._inputs], input_names, origin)
        computed = {int(i) for operator in graph.operators for i in operator.outputs}
        shown = sorted({index for _, index in self._inputs} | computed)
        self._index = {
            self._details[i]["name"]: i
            for i in shown
            if self._details[i]["dtype"] in (np.float32, np.float16)
        }
        self.tensors: tuple[str, ...] = tuple(self._index)
        self.n_axes = {name: len(self._details[i]["shape"]) for name, i in self._index.items()}

    def _in_signature(self) -> list[tuple[str, int]]:
        """Return name and place of each input; the names are those of Keras where there is one signature."""
        if len(self._interpreter.get_signature_list()) == 1:
            details = self._interpreter.get_signature_runner().get_input_details()
            return [(name, int(each["index"])) for name, each in details.items()]
        return [(each["name"], int(each["index"])) for each in self._interpreter.get_input_details()]

    @property
    def fixed_batch(self) -> int | None:
        """The number of samples that the network was exported for; None if it takes any."""
        shapes = [self._details[i]["shape_signature"] for _, i in self._inputs]
        sizes = {int(shape[0]) for shape in shapes if len(shape)} - {-1}
        return min(sizes, default=None)

    def run(self, batch: Sequence[NDArray[Any]], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return tensors by name."""
        for (_, index), i in zip(self._inputs, self._order, strict=True):
            self._interpreter.resize_tensor_input(index, batch[i].shape, strict=True)
        self._interpreter.allocate_tensors()
        for (_, index), i in zip(self._inputs, self._order, strict=True):
            self._interpreter.set_tensor(index, batch[i])
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(self._index[name]) for name in names}


def _result_text(
    rows: Sequence[RangeRow], n_axes: Mapping[str, int], n_samples: int, beside: Mapping[str, bytes]
) -> str:
    def number(value: float, axes: int) -> Any:
        return np.full((1,) * axes, np.float32(value)).tolist()

    qsvs = {
        row.tensor: {"min": number(row.lo, n_axes[row.tensor]), "max": number(row.hi, n_axes[row.tensor])}
        for row in rows
    }
    tree = {
        "model_qsvs": qsvs,
        "metadata": {"num_samples_calibrated": n_samples},
        "written_beside": hashes_of(beside),  # read by us alone
    }
    return json.dumps(tree, indent=1) + "\n"


def _make(request: ExportRequest) -> Exported:
    import_extra("ai_edge_litert", extra=EXTRA, package="ai-edge-litert", at_least="2")
    check_release("ai-edge-quantizer", "0.10", extra=EXTRA)  # it reads the file, maybe on another machine
    given = request.options.get("tflite")
    if given is not None and not Path(given).is_file():
        raise InputError(
            f"there is no file {str(given)!r}: leave --tflite out, and the network of the run is exported"
        )
    job = reopened(request.run, request.options)
    content = exported_by_keras(job, "litert") if given is None else Path(given).read_bytes()
    origin = "the network that Keras exported" if given is None else repr(str(given))
    network = LiteRtNetwork(content, origin, names_in_export(job.graph))
    rows, warned = matched_rows(network, job, request)
    if network.n_inner:
        inner = (
            f"{origin} has {counted(network.n_inner, 'graph')} in its loops and branches, whose tensors get no range "
            "(nor does ai-edge-quantizer see them): leave the operators in there out of its recipe"
        )
        warned = (*warned, inner)
    beside = {".tflite": content} if given is None else {}
    return Exported(
        content=_result_text(rows, network.n_axes, job.source.n_samples, beside),
        rows=tuple(rows),
        warnings=warned,
        file_name=FILE_NAME,
        beside=beside,
    )


EXPORTER = Exporter(
    about="the calibration result of ai-edge-quantizer, for --tflite or the network as Keras exports it",
    make=_make,
    options=("tflite", *NETWORK_OPTIONS),
    beside={".tflite": "tflite"},
    file_name=FILE_NAME,
    takes_channels=False,
    note=(
        "AVERAGE_POOL_2D, MAX_POOL_2D, RESHAPE, TRANSPOSE and SLICE keep the scale of their input in "
        "ai-edge-quantizer, whatever range their result has here."
    ),
    opens_network=True,
)
