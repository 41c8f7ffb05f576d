"""SNN toolbox's ``{percentile}.json`` by the names that its parser gives to layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...storage.errors import InputError
from ..factors.compute import asked_of_points
from ..factors.exact_source import ExactSource
from ..factors.factors_file import Factors, PointFactor, Rule
from ..settings.job_settings import FactorSettings
from .as_toolbox import ONLY_INTO_FOLDER, toolbox_export, toolbox_factors
from .exporter import Exported, Exporter, ExportRequest

__all__ = ["EXPORTER"]


def _parsed_names(names: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the point of each layer with weights of the network that the toolbox parsed.

    ``names`` is what :func:`~..graph.toolbox_names` returned when the network was recorded.
    """
    parsed: Mapping[str, str | None] = names.get("parsed") or {}
    if not parsed:
        raise InputError(
            "this run does not know the names that SNN toolbox's parser gives, because an earlier program recorded it "
            "or the network has no layer that the parser keeps: run the job again, which reloads what is recorded"
        )
    if names["unparsed"]:
        raise InputError(
            f"SNN toolbox's parser leaves out {', '.join(map(repr, names['unparsed']))}: its network would compute "
            "something else; export as toolbox for a network that is not parsed"
        )
    missing = [name for name, point in parsed.items() if point is None]
    if missing:
        raise InputError(
            f"SNN toolbox asks for a factor of {', '.join(map(repr, missing))}, which the run did not record: record "
            "with --points neurons"
        )
    return {name: str(point) for name, point in parsed.items()}


def _untied(factors: Factors, request: ExportRequest) -> Factors:
    # The toolbox turns an Add into a convolution: its inputs are no longer tied, and keep their own factors.
    asked = asked_of_points([p.name for p in factors.points], request.settings)
    points = (
        _own(p, given, factors.nonzero, request) if p.rule == "tied" else p
        for p, given in zip(factors.points, asked, strict=True)
    )
    return replace(factors, points=tuple(points))


def _own(p: PointFactor, given: FactorSettings | float, nonzero: bool, request: ExportRequest) -> PointFactor:
    """Return a tied point with the factor that it has without ties."""
    if p.sketch is None:  # fixed by the user
        return replace(p, factor=given, rule="override") if isinstance(given, float) else p
    rule: Rule = "percentile"
    value = p.value or 0.0  # None: nothing but zeros
    if p.value is not None and p.value <= 0 and p.percentile is not None:
        run, q = request.run, 100 - p.percentile
        if p.exact:
            source = ExactSource(run.cache, run.sketches, request.settings.accept_rounding)
            (lower,) = source.percentiles(p.name, [q], nonzero=nonzero)
        else:
            lower = run.sketches[p.name].layer.percentile(q, nonzero=nonzero).value
        value, rule = max(-value, -lower), "magnitude"
    if value < request.settings.floor:
        value, rule = 1.0, "dead"
    return replace(p, factor=value, rule=rule)


def _make(request: ExportRequest) -> Exported:
    names = request.run.folder.manifest().get("toolbox", {})
    parsed, factors = _parsed_names(names), _untied(request.factors_of(), request)
    known = toolbox_factors(factors, input_name=names["input"])
    found = {names["input"]: known[names["input"]]} | {name: known[point] for name, point in parsed.items()}
    return toolbox_export(found, parsed, factors, request)


EXPORTER = Exporter(
    about="the same for the network that its parser makes", make=_make, only_into_folder=ONLY_INTO_FOLDER
)
