"""Pictures of the size of a word, as SVG in the colour of the text around them.

Knows sketches and numbers. Each is at most about a kilobyte.
"""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..report.histogram import histogram
from ..report.numbers import number_text, share_text
from ..sketch import Sketch

__all__ = ["bar_svg", "bars_svg", "distribution_svg", "factor_svg"]

WIDTH, HEIGHT = 120, 20
N_BARS = 40


def distribution_svg(sketch: Sketch, *, mark: float | None = None) -> str:
    """Return the distribution of the values that are not zero.

    Parameters
    ----------
    sketch : Sketch
    mark : float, optional
        A value to draw a line at, such as a percentile.

    Notes
    -----
    The axis is linear or logarithmic as in the report's figures. Heights are logarithms of counts: after a ReLU, small
    values are so many that others would not be seen.
    """
    if not sketch.n_nonzero:
        return _svg("", "no values" if not sketch.n else "all values are zero")
    bars = histogram(sketch, n_bars=N_BARS)
    alt = (
        f"{share_text(sketch.n_zeros / sketch.n)} zeros; the other values from {number_text(float(bars.edges[0]))} to "
        f"{number_text(float(bars.edges[-1]))}, {bars.scale} axis, heights logarithmic"
    )
    return bars_svg(bars.counts, alt=alt, mark=None if mark is None else _place(mark, bars.edges))


def bars_svg(counts: NDArray[np.float64], *, alt: str, mark: float | None = None) -> str:
    """Return bars side by side, with logarithmic heights; ``mark`` is a place from 0, the left end, to 1."""
    heights = np.log1p(np.maximum(counts, 0.0))
    heights = heights / max(float(heights.max(initial=0.0)), 1e-12) * (HEIGHT - 1)
    # A bar with few values beside one with millions is still seen.
    heights = np.where(counts > 0, np.maximum(heights, 1.0), 0.0)
    step = WIDTH / len(heights)
    outline = "".join(
        f"V{round(HEIGHT - height, 1):g}H{round(step * (i + 1), 1):g}"
        for i, height in enumerate(heights.tolist())
    )
    body = f'<path d="M0 {HEIGHT}{outline}V{HEIGHT}Z" fill="currentColor" opacity=".45"/>'
    if mark is not None and math.isfinite(mark):
        at = min(max(mark, 0.0), 1.0) * WIDTH
        body += f'<path d="M{at:.1f} 0V{HEIGHT}" stroke="currentColor" stroke-width="1.5"/>'
    return _svg(body, alt)


def bar_svg(share: float, *, alt: str) -> str:
    """Return a bar of which a share from 0 to 1 is filled."""
    filled = min(max(share, 0.0), 1.0) * WIDTH if math.isfinite(share) else 0.0
    frame = f'<path d="M0 14.5H{WIDTH}" stroke="currentColor" opacity=".3"/>'
    return _svg(f'{frame}<path d="M0 6H{filled:.1f}V14H0Z" fill="currentColor" opacity=".55"/>', alt)


def factor_svg(factors: Sequence[float], ends: tuple[float, float]) -> str:
    """Return the place of a positive factor between two ends, or the distribution of several; logarithmic."""
    if len(factors) > 1:
        counts, _ = np.histogram(np.log10(factors), bins=N_BARS // 2)
        return bars_svg(counts.astype(np.float64), alt=f"factors of {len(factors)} channels")
    low, high = ends
    span = math.log(high / low)
    # The smallest is a short bar, not none.
    share = 1.0 if span == 0 else 0.05 + 0.95 * math.log(factors[0] / low) / span
    return bar_svg(share, alt=f"factor {number_text(factors[0])}")


def _place(value: float, edges: Sequence[float] | NDArray[np.float64]) -> float:
    """Return where a value lies among edges that are drawn at equal distances, from 0 to 1."""
    return float(np.interp(value, edges, np.linspace(0.0, 1.0, len(edges))))


def _svg(body: str, alt: str) -> str:
    size = f'width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}"'
    return f'<svg {size} role="img"><title>{html.escape(alt)}</title>{body}</svg>'
