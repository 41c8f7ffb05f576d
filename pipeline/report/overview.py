"""Two pictures of all points: beside each other for wide screens, below each other for narrow ones.

Factors, percentiles and maxima; zeros; noise of low precision; residuals. Up to 40 points are named under the axis.
More are numbered as in the page's table, so that no labels touch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from .contents import PointReport, ReportData
from .numbers import factor_text, number_text, plain, share_text
from .picture import Line, Picture
from .point_row import percentile_head
from .scale import Scale, log_scale, round_ticks, tick_text

__all__ = ["tall_overview", "wide_overview"]

MOST_NAMED = 40
NAME_LIMIT = 26
WIDTH, LEFT, RIGHT = 1000.0, 64.0, 990.0
HEAD, GAP = 40.0, 26.0
SCALES, ZEROS, NOISE, RESIDUALS = 230.0, 80.0, 130.0, 100.0
"""Heights of the panels."""
NOISE_INKS = {"percentile": "percentile", "max": "max", "mse": "factor", "entropy": "after"}
TALL_WIDTH, ROW = 380.0, 32.0
SCALE_ENDS, ZERO_ENDS = (6.0, 290.0), (306.0, 374.0)
# About the width of a character of 10 units, which is not known before it is shown.
CHARACTER = 5.6

Place = Callable[[int], float]
"""Where the point of a number, from 0, stands."""


def wide_overview(report: ReportData) -> Picture:
    """Return the points side by side, from left to right; there is at least one."""
    points = [point.uncached() for point in report.points]
    is_named = len(points) <= MOST_NAMED
    names = [plain(point.name, limit=NAME_LIMIT) for point in points] if is_named else []
    foot = 12 + max(map(len, names)) * CHARACTER if is_named else 40.0
    noise = [NOISE + GAP] if report.noise_bits is not None and any(point.noise for point in points) else []
    residuals = [RESIDUALS + GAP] if any(point.residual is not None for point in points) else []
    height = HEAD + SCALES + GAP + ZEROS + GAP + sum(noise) + sum(residuals) - GAP + foot
    picture = Picture(WIDTH, height, label=_label(report))
    step = (RIGHT - LEFT) / len(points)

    def place(number: int) -> float:
        return LEFT + step * (number + 0.5)

    top = HEAD
    _draw_scales(picture, points, place, top=top, step=step, q_text=percentile_head(report))
    top += SCALES + GAP
    _draw_zeros(picture, points, place, top=top, step=step)
    top += ZEROS + GAP
    if noise:
        _draw_noise(picture, points, place, top=top, step=step, bits=report.noise_bits or 0)
        top += noise[0]
    if residuals:
        tolerance = (report.certificate or {}).get("tolerance")
        _draw_residuals(picture, points, place, top=top, tolerance=tolerance)
        top += residuals[0]
    _number(picture, names, place, top=top - GAP, n_points=len(points))
    for number, point in enumerate(points):
        with picture.linked(f"#layer-{number + 1}", _told(point)):
            picture.rect(place(number) - step / 2, HEAD, step, top - GAP - HEAD, ink="ink", opacity=0.0)
    return picture


def tall_overview(report: ReportData) -> Picture:
    """Return the points one below the other, each with its name, its scale and its zeros."""
    points = [point.uncached() for point in report.points]
    picture = Picture(TALL_WIDTH, HEAD + 14 + ROW * len(points), label=_label(report))
    scale = _scale_of(points, SCALE_ENDS)
    bottom = picture.height
    _legend(picture, SCALE_ENDS[0], 12, percentile_head(report))
    picture.words(ZERO_ENDS[0], 12, "zeros", size=10.5)
    for tick in scale.ticks(5):
        at = scale.at(tick)
        picture.stroke(((at, HEAD), (at, bottom)), ink="grid")
        picture.words(at, HEAD - 6, tick_text(tick), size=10, anchor="middle", ink="soft")
    for number, point in enumerate(points):
        down = HEAD + 14 + ROW * number
        with picture.linked(f"#layer-{number + 1}", _told(point)):
            picture.rect(0, down - 10, TALL_WIDTH, ROW, ink="ink", opacity=0.0)
            picture.words(SCALE_ENDS[0], down, plain(point.name, limit=46), size=10.5)
            _draw_scale(picture, point, partial(_beside, scale, down + 9.0), across=(0.0, 4.0))
            share = point.before.layer.n_zeros / max(point.before.layer.n, 1)
            left, right = ZERO_ENDS
            picture.stroke(((left, down + 13), (right, down + 13)), ink="grid")
            picture.rect(left, down + 5, (right - left) * share, 8, ink="before")
    return picture


def _label(report: ReportData) -> str:
    noise = " its signal-to-quantisation-noise ratio by method;" if report.noise_bits is not None else ""
    return (
        f"{len(report.points):,} layers in the order of the graph. For each: its maximum, percentile and factor on a "
        f"logarithmic axis; its share of zeros;{noise} its residual. The table below has the same numbers."
    )


def _told(point: PointReport) -> str:
    """Return what is said of a point where the pointer rests."""
    layer, percentile = point.before.layer, point.percentile
    noise = ", ".join(f"{method} {ratio:.1f} dB" for method, ratio in point.noise.items())
    residual = "" if point.residual is None else f", residual {number_text(point.residual, digits=2)}"
    return (
        f"{plain(point.name)}: max {number_text(layer.maximum)}, {point.label} {number_text(percentile.value)}, factor "
        f"{factor_text(point.factors)}, zeros {share_text(layer.sparsity)}{residual}{f'; {noise}' if noise else ''}"
    )


def _scale_of(points: Sequence[PointReport], ends: tuple[float, float]) -> Scale:
    values: list[float] = []
    for point in points:
        values += [point.percentile.value, point.before.layer.maximum, *point.factors]
    return log_scale(values, ends)


def _draw_scales(
    picture: Picture, points: Sequence[PointReport], place: Place, *, top: float, step: float, q_text: str
) -> None:
    y = _scale_of(points, (top + SCALES, top))
    _frame(picture, y, "activation (log)", y.ticks(6))
    _legend(picture, LEFT, 24, q_text)
    for number, point in enumerate(points):
        at = place(number)
        _draw_scale(picture, point, partial(_above, y, at), across=(min(7.0, 0.4 * step), 0.0))


def _beside(scale: Scale, down: float, value: float) -> tuple[float, float]:
    return scale.at(value), down


def _above(scale: Scale, across: float, value: float) -> tuple[float, float]:
    return across, scale.at(value)


def _draw_scale(
    picture: Picture,
    point: PointReport,
    place: Callable[[float], tuple[float, float]],
    *,
    across: tuple[float, float],
) -> None:
    """Draw one point's maximum, percentile and factor where `place` has them; a factor lies ``across`` the axis."""
    size = 1.0 + 0.35 * min(7.0, max(across))
    factors, largest, value = point.factors, point.before.layer.maximum, point.percentile.value
    dx, dy = across
    if largest > 0:
        if value > 0:
            picture.stroke((place(value), place(largest)), ink="max", width=0.8)
        x, y = place(largest)
        picture.area(((x - size, y + size), (x + size, y + size), (x, y - size)), ink="max")
    if len(factors) > 1:
        picture.stroke((place(min(factors)), place(max(factors))), ink="factor", width=3.0)
    for factor in {min(factors), max(factors)}:
        x, y = place(factor)
        picture.stroke(((x - dx, y - dy), (x + dx, y + dy)), ink="factor", width=2.0)
    if value > 0:
        if point.percentile.width > 0 and point.percentile.lo > 0:
            picture.stroke(
                (place(point.percentile.lo), place(point.percentile.hi)), ink="percentile", width=1.2
            )
        picture.area(_diamond(*place(value), size), ink="percentile")


def _diamond(x: float, y: float, size: float) -> Line:
    return ((x - size, y), (x, y - size), (x + size, y), (x, y + size))


def _legend(picture: Picture, left: float, down: float, q_text: str) -> None:
    """Write what the three marks are."""
    up = down - 3.5
    picture.area(((left, up + 4), (left + 8, up + 4), (left + 4, up - 4)), ink="max")
    picture.words(left + 13, down, "max", size=10.5)
    picture.area(_diamond(left + 54, up, 4), ink="percentile")
    picture.words(left + 63, down, f"{q_text} [lo, hi]", size=10.5)
    at = left + 63 + CHARACTER * (len(q_text) + 9) + 12
    picture.stroke(((at, up), (at + 14, up)), ink="factor", width=2.0)
    picture.words(at + 19, down, "factor", size=10.5)


def _frame(picture: Picture, y: Scale, label: str, ticks: Sequence[float]) -> None:
    for tick in ticks:
        up = y.at(tick)
        picture.stroke(((LEFT, up), (RIGHT, up)), ink="grid")
        picture.words(LEFT - 6, up + 3.5, tick_text(tick), size=10.5, anchor="end")
    picture.words(12, (y.start + y.end) / 2, label, ink="soft", size=10.5, anchor="middle", turn=-90)


def _draw_zeros(
    picture: Picture, points: Sequence[PointReport], place: Place, *, top: float, step: float
) -> None:
    y = Scale(low=0.0, high=100.0, ends=(top + ZEROS, top))
    _frame(picture, y, "zeros, %", [0.0, 50.0, 100.0])
    for number, point in enumerate(points):
        up = y.at(100 * point.before.layer.n_zeros / max(point.before.layer.n, 1))
        picture.rect(place(number) - 0.35 * step, up, 0.7 * step, y.start - up, ink="before")


def _draw_noise(
    picture: Picture, points: Sequence[PointReport], place: Place, *, top: float, step: float, bits: int
) -> None:
    """Draw the ratio of each method; infinite ones, where nothing is lost, stand on the upper edge."""
    ratios = [ratio for point in points for ratio in point.noise.values() if math.isfinite(ratio)]
    low, high = (min(*ratios, 3.0) - 3.0, max(ratios) + 6.0) if ratios else (0.0, 60.0)
    y = Scale(low=low, high=high, ends=(top + NOISE, top))
    _frame(picture, y, f"SQNR at {bits} bits, dB", round_ticks(low, high, limit=5))
    at = LEFT
    for method, ink in NOISE_INKS.items():
        picture.area(_diamond(at + 4, top - 8, 4), ink=ink)
        picture.words(at + 12, top - 4, method, size=10.5)
        at += 30 + CHARACTER * len(method)
    size = max(1.5, min(3.5, step / 6))
    for number, point in enumerate(points):
        for nth, (method, ink) in enumerate(NOISE_INKS.items()):
            if not math.isnan(ratio := point.noise.get(method, math.nan)):
                picture.area(_diamond(place(number) + 0.18 * step * (nth - 1.5), y.at(ratio), size), ink=ink)


def _draw_residuals(
    picture: Picture, points: Sequence[PointReport], place: Place, *, top: float, tolerance: float | None
) -> None:
    """Draw residuals; infinite ones are crosses on the upper edge, those of 0 stand on the lower one."""
    known = [
        (number, point, point.residual) for number, point in enumerate(points) if point.residual is not None
    ]
    values = [
        *(residual for *_, residual in known),
        *(point.allowed or 0.0 for point in points),
        tolerance or 0.0,
    ]
    y = log_scale(values, (top + RESIDUALS, top))
    _frame(picture, y, "residual (log)", y.ticks(5))
    for number, point, residual in known:
        at = place(number)
        if not math.isfinite(residual):
            cross = (((at - 3, top - 3), (at + 3, top + 3)), ((at - 3, top + 3), (at + 3, top - 3)))
            picture.stroke(*cross, ink="percentile", width=1.5)
            continue
        up = y.at(residual) if residual > 0 else y.start
        picture.stroke(((at, y.start), (at, up)), ink="grid")
        picture.area(_diamond(at, up, 2.5), ink="after")
        if point.allowed:
            up = y.at(point.allowed)
            picture.stroke(((at - 3, up), (at + 3, up)), ink="percentile", width=1.5)
    if any(point.allowed for _, point, _ in known):
        picture.stroke(((RIGHT - 62, top - 10), (RIGHT - 52, top - 10)), ink="percentile", width=1.5)
        picture.words(RIGHT, top - 6, "allowed", size=10.5, anchor="end")
    elif tolerance:
        up = y.at(tolerance)
        picture.stroke(((LEFT, up), (RIGHT, up)), ink="percentile", width=1.2, dash=(5, 2))
        picture.words(RIGHT, up - 4, f"tolerance {tick_text(tolerance)}", size=10.5, anchor="end")


def _number(picture: Picture, names: Sequence[str], place: Place, *, top: float, n_points: int) -> None:
    """Write the names of the points, or the numbers of some."""
    for number, name in enumerate(names):
        picture.words(place(number) + 3.5, top + 8, name, size=10, anchor="end", turn=-90)
    if names:
        return
    for number in _numbered(n_points):
        picture.words(place(number - 1), top + 16, str(number), size=10.5, anchor="middle")
    about = "number of the layer, as in the table"
    picture.words((LEFT + RIGHT) / 2, top + 34, about, ink="soft", size=10.5, anchor="middle")


def _numbered(n_points: int) -> Iterator[int]:
    step = next(step for step in (10, 20, 50, 100, 200, 500, 1000, 10_000, n_points) if n_points / step <= 25)
    yield 1
    yield from range(step, n_points + 1, step)
