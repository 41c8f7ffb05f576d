"""A certificate as a table to look at.

Knows the plain values of a certificate.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

from ..display.shown_table import ShownTable
from ..display.small_pictures import bar_svg, distribution_svg
from ..report.numbers import number_text, share_text
from ..sketch import PointSketch

__all__ = ["certificate_table"]


def certificate_table(
    values: Mapping[str, Any], summary: str, sketches: Mapping[str, PointSketch]
) -> ShownTable:
    """Return the table: the verdict, then each point with its residual and what is allowed.

    Parameters
    ----------
    values : mapping
        `Certificate.to_dict`.
    summary : str
        One sentence.
    sketches : mapping of str to PointSketch
        Of the normalised activations, where they are at hand; otherwise the pictures are of the residuals.
    """
    points = values["points"]
    lines = [summary]
    before, after = values.get("accuracy_before"), values.get("accuracy_after")
    if before is not None and after is not None:
        lines.append(f"accuracy {before:.2%} before, {after:.2%} after normalisation")
    has_sketches = bool(points) and all(p["name"] in sketches for p in points)
    return ShownTable(
        title=f"certificate of {values['model_name']}",
        lines=[*lines, *values.get("notes", ())],
        columns={
            "point": [p["name"] for p in points],
            "layer": [p["layer_type"] for p in points],
            ">factor": [_number(p["factor"]) for p in points],
            ">residual": [_number(p["max_residual"], digits=2) for p in points],
            ">allowed": [_number(p["allowed"], digits=2) for p in points],
            ">above one": [share_text(p["saturation"]) for p in points],
            ">dead channels": [f"{p['n_dead_channels']} of {p['n_channels']}" for p in points],
            "verdict": [_word(p) for p in points],
        },
        pictures=[
            distribution_svg(copy.copy(sketches[p["name"]].layer), mark=1.0) if has_sketches else _residual(p)
            for p in points
        ],
        picture_head="normalised activations" if has_sketches else "residual of what is allowed",
        more="certificate['points'] has all",
    )


def _word(point: Mapping[str, Any]) -> str:
    return ("passed" if point["passed"] else "FAILED") + (", pinned" if point["pinned"] else "")


def _number(value: float | None, *, digits: int = 4) -> str:
    return "not finite" if value is None else number_text(value, digits=digits)


def _residual(point: Mapping[str, Any]) -> str:
    found, allowed = point["max_residual"], point["allowed"]
    share = math.inf if found is None or not allowed else found / allowed
    return bar_svg(min(share, 1.0), alt=f"residual {_number(found)}, allowed {_number(allowed)}")
