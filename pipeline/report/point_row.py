"""The rows of the table of layers as text, for the page and the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from .contents import PointReport, ReportData
from .numbers import axes_text, count_text, factor_text, interval_text, number_text, plain, share_text

__all__ = ["Row", "percentile_head", "table_row", "table_rows"]

NAME_LIMIT = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The cells of one point: text that is safe to print, ``"-"`` for what is not known."""

    number: int
    """From 1, in the order of the graph."""
    name: str
    kind: str
    """Layer type and activation function."""
    shape: str
    n_values: str
    n_values_exact: str
    zeros: str
    maximum: str
    percentile: str
    interval: str
    factor: str
    pinned: str
    """``"pinned"``, ``"tied"`` or empty."""
    residual: str
    """Ends in ``" !"`` if it is larger than allowed."""
    saturation: str
    dead: str
    numbers: Mapping[str, float]
    """What the columns are sorted by; without what is not known."""

    @property
    def anchor(self) -> str:
        """The id of the point's section on the page."""
        return f"layer-{self.number}"


def table_rows(report: ReportData) -> list[Row]:
    """Return the rows of all points in order."""
    return [table_row(number, point.uncached()) for number, point in enumerate(report.points, start=1)]


def table_row(number: int, point: PointReport) -> Row:
    """Return the row of one point."""
    layer, percentile = point.before.layer, point.percentile
    zeros = layer.n_zeros / layer.n if layer.n else None
    kind = point.layer_type + (f", {point.activation}" if point.activation else "")
    return Row(
        number=number,
        name=plain(point.name, limit=NAME_LIMIT),
        kind=plain(kind, limit=NAME_LIMIT) or "-",
        shape=axes_text(point.shape),
        n_values=count_text(point.n_values),
        n_values_exact=f"{point.n_values:,}",
        zeros=share_text(zeros),
        maximum=number_text(layer.maximum) if layer.n else "-",
        # About as many digits as the interval justifies.
        percentile=""
        if math.isnan(percentile.value)
        else number_text(percentile.value, digits=8 if point.is_exact else 5),
        interval="exact" if point.is_exact else interval_text(percentile.lo, percentile.hi),
        factor=factor_text(point.factors),
        pinned="pinned" if point.is_pinned else "tied" if point.is_tied else "",
        residual=_residual_text(point),
        saturation=share_text(point.saturation),
        dead="-" if point.n_dead is None else f"{point.n_dead:,}",
        numbers=_known(
            shape=math.prod(point.shape),
            values=point.n_values,
            zeros=zeros,
            max=layer.maximum,
            percentile=percentile.value,
            factor=max(point.factors),
            residual=point.residual,
            saturation=point.saturation,
            dead=point.n_dead,
        ),
    )


def _known(**numbers: float | None) -> dict[str, float]:
    return {name: number for name, number in numbers.items() if number is not None and not math.isnan(number)}


def _residual_text(point: PointReport) -> str:
    if point.residual is None:
        return "-"
    text = number_text(point.residual, digits=2) if math.isfinite(point.residual) else "not finite"
    # The mark is visible without colours too.
    return f"{text} !" if point.allowed is not None and not point.residual <= point.allowed else text


def percentile_head(report: ReportData) -> str:
    """Return ``"p99.9"`` or ``"mse clip"``, or ``"percentile"`` if it differs between points."""
    labels = {point.label for point in report.points}
    return labels.pop() if len(labels) == 1 else "percentile"
