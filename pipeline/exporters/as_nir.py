"""The normalised network as a graph of NIR, which spiking simulators read.

The normaliser divided every layer by its factor, so that its neurons have the threshold 1. Readers differ in what a
neuron does when it fires: the rates are those of the network where the threshold is subtracted.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...storage.errors import InputError
from ..record.model import load_network
from .exporter import Exported, Exporter, ExportRequest, RangeRow
from .extra import import_extra
from .nir_writer import EXTRA, POOLING, NirWriter

__all__ = ["EXPORTER"]


def _make(request: ExportRequest) -> Exported:
    nir = import_extra("nir", extra=EXTRA, at_least="1.0.8")
    pooling = request.options.get("pooling", POOLING[0])
    if pooling not in POOLING:
        raise InputError(f"--pooling {pooling!r} is refused: 'sum', or 'avg' for snnTorch")
    run = request.run
    if run.normalized_key() is None or not run.folder.network_path.exists():
        raise InputError(
            f"{str(run.folder.path)!r} has no normalised network that is up to date, which NIR is written from: run "
            "the job again with normalize.enabled = true"
        )
    custom = request.options.get("custom_objects")
    model = load_network(str(run.folder.network_path), custom_objects=custom, safe_mode=True)
    writer = NirWriter(model, pooling=pooling)
    graph = writer.graph()
    found = request.factors_of()
    factors = found.by_point()
    rows = [
        RangeRow(
            tensor=neurons,
            point=point,
            lo=0.0,
            hi=float(np.max(factors[point])),
            source="threshold: its factor",
        )
        for neurons, layers in writer.neurons.items()
        for point in [next((layer for layer in layers if layer in factors), None)]
        if point is not None
    ]
    left_out = tuple(f"the {each} is left out: it changes no decision" for each in writer.left_out)

    def write(path: Path) -> None:
        nir.write(path, graph)

    warnings = [*left_out, *found.lost_overrides()]
    if found.input_factor != 1.0:
        warnings.append(
            f"divide the samples by the input factor before the graph gets them: {found.input_factor}"
        )
    return Exported(content=write, rows=tuple(rows), warnings=tuple(warnings), file_name="network.nir")


EXPORTER = Exporter(
    about="the normalised network as a graph of NIR, for spiking simulators",
    make=_make,
    options=("pooling", "custom_objects"),
    takes_factors=False,
    opens_network=True,
)
