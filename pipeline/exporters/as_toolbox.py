"""SNN toolbox's ``{percentile}.json`` for the network as it is: a factor for the input and for each layer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import get_args

from ...storage.errors import InputError
from ..factors.factors_file import Factors
from ..settings.factor_settings import RangeMethod
from .exporter import Exported, Exporter, ExportRequest, RangeRow

__all__ = ["EXPORTER", "ONLY_INTO_FOLDER", "toolbox_export", "toolbox_factors"]

ONLY_INTO_FOLDER = "SNN toolbox looks for {percentile}.json"
ABOUT_ONE = 0.02
"""The factors of a normalised network, measured on other samples of the same kind, are at most this far from 1."""
ALREADY_NORMALISED = (
    "all factors are about 1: was this network normalised before? SNN toolbox overwrites its parsed network with the "
    "normalised one: parse with [tools] normalize = False, and record that network"
)


def toolbox_factors(factors: Factors, *, input_name: str = "input") -> dict[str, float]:
    """Return a number for the input, first, and for each layer by its name in Keras.

    Points of several scales (Concatenate) are left out: the toolbox asks for layers with parameters only.

    Raises
    ------
    InputError
        For factors of channels, or of several inputs.
    """
    if isinstance(factors.input_factor, dict):
        raise InputError(
            "SNN toolbox reads one factor for one input, normalize.input_factor is a table: set a number, or "
            "export as json or csv"
        )
    found = {input_name: factors.input_factor}
    for p in factors.points:
        if p.name == input_name:
            continue  # recorded too: what it is divided by is the input factor
        if isinstance(p.factor, tuple):
            if p.rule == "joined" and not factors.per_channel:
                continue
            raise InputError(
                f"SNN toolbox reads one number for each layer, but {p.name!r} has one for each of its "
                f"{len(p.factor)} channels: set factors.per_channel = false in the job and run it again, which "
                "reloads what is recorded; or export as json or csv",
                point=p.name,
            )
        found[p.name] = p.factor
    return found


def toolbox_export(
    found: Mapping[str, float], points: Mapping[str, str], factors: Factors, request: ExportRequest
) -> Exported:
    """Return the export of the numbers ``found``; ``points`` has the point of each of their names."""
    rules: dict[str | None, str] = {p.name: p.rule for p in factors.points}
    rows = [
        RangeRow(tensor=name, point=point, lo=0.0, hi=factor, source=rules.get(point, "input factor"))
        for name, factor in found.items()
        for point in [points.get(name)]
    ]
    method = request.settings.method
    # The toolbox names the file by the percentile as its settings write it: 100, 99.9, 99.99999.
    name = str(100.0 if method == "max" else request.settings.percentile).removesuffix(".0")
    warnings = [
        *([ALREADY_NORMALISED] if _is_normalised(request.factors_of()) else []),
        *factors.lost_overrides(),
    ]
    if method not in ("percentile", "max"):
        warnings.append(
            f"SNN toolbox knows percentiles only, and finds the factors by {method} in {name}.json where its settings "
            f"have percentile = {name}"
        )
    return Exported(
        content=json.dumps(found, indent=1) + "\n",
        rows=tuple(rows),
        warnings=tuple(warnings),
        file_name=f"{name}.json",
    )


def _is_normalised(factors: Factors) -> bool:
    """Return whether all factors are about 1, as for a network that was normalised before."""
    methods = get_args(RangeMethod)
    found = [p.factor for p in factors.points if p.rule in methods and isinstance(p.factor, float)]
    return bool(found) and all(abs(factor - 1) <= ABOUT_ONE for factor in found)


def _make(request: ExportRequest) -> Exported:
    factors = request.factors_of()
    names = request.run.folder.manifest().get("toolbox", {})
    found = toolbox_factors(factors, input_name=names.get("input", "input"))
    points = {p.name: p.name for p in factors.points}
    return toolbox_export(found, points, factors, request)


EXPORTER = Exporter(about="SNN toolbox's {percentile}.json", make=_make, only_into_folder=ONLY_INTO_FOLDER)
