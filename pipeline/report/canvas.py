"""Draw figures as compact PNG bytes, with matplotlib's objects alone.

No pyplot, no GUI, only the font that comes with matplotlib, and no influence of the user's
matplotlibrc: the same data give the same bytes.
"""

from __future__ import annotations

import functools
import io
import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from .numbers import plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "decade_ticks", "draw_png", "draw_svg", "figure_style", "legible", "tick_text"]

DPI = 130
# They differ in lightness as well as in hue (lines also in their dashes): readable without colour vision.
COLOURS = {
    "before": "#7c8aa0",
    "after": "#2f7ed8",
    "zeros": "#2b3440",
    "percentile": "#d9480f",
    "max": "#7b2d8b",
    "factor": "#0b7a4b",
    "text": "#1f2933",
    "soft": "#52606d",
    "grid": "#e3e8ee",
}
# Enough for flat colours and their anti-aliased edges; more makes the file larger. Of Pillow's methods, maximum
# coverage keeps them best (no channel off by more than 9 of 255); zlib's level 9 saves 10 % for 3 times the time.
N_PALETTE = 64

# rcParams are global to the process, so only one report at a time may change them.
_STYLE_LOCK = threading.RLock()


@contextmanager
def figure_style() -> Iterator[None]:
    """Use matplotlib's defaults and our settings while figures are made, then restore the user's."""
    import matplotlib
    from matplotlib import rcParamsDefault

    # Setting a backend would load pyplot; draw_png uses an Agg canvas directly.
    kept: dict[Any, Any] = {
        key: value for key, value in rcParamsDefault.items() if not key.startswith("backend")
    }
    ours: dict[Any, Any] = {
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "text.color": COLOURS["text"],
        "axes.labelcolor": COLOURS["text"],
        "axes.edgecolor": "#9aa5b1",
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.titlesize": 9,
        "axes.titlelocation": "left",
        "xtick.color": COLOURS["text"],
        "ytick.color": COLOURS["text"],
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "legend.handlelength": 1.5,
        "legend.borderaxespad": 0.0,
        "legend.columnspacing": 1.0,
        "legend.handletextpad": 0.5,
        "legend.labelspacing": 0.3,
        "text.parse_math": False,
    }
    with _STYLE_LOCK, matplotlib.rc_context({**kept, **ours}):
        yield


def draw_png(width_in: float, height_in: float, paint: Callable[[Figure], None]) -> bytes:
    """Return as a PNG file what `paint` draws on an empty figure; call within `figure_style`.

    Parameters
    ----------
    width_in, height_in : float
        Inches, at 130 dots each.
    paint : callable
        Called with the figure.

    Returns
    -------
    bytes
        A PNG with a palette of at most 64 colours on white.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=(width_in, height_in), dpi=DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    paint(figure)
    canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib gives it no types
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]  # as above
    image = Image.fromarray(pixels).convert("RGB")
    flat = image.quantize(N_PALETTE, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    file = io.BytesIO()
    flat.save(file, "PNG", compress_level=6)
    return file.getvalue()


def draw_svg(width_in: float, height_in: float, paint: Callable[[Figure], None]) -> bytes:
    """Return as an SVG file what `paint` draws on an empty figure; call within `figure_style`.

    Text becomes outlines, so that it looks the same everywhere and no name is read as a mark of XML.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_in, height_in), facecolor="white")
    FigureCanvasSVG(figure)
    paint(figure)
    file = io.BytesIO()
    # Ids inside the file follow from its content, as the date would not.
    with rc_context({"svg.hashsalt": "actisketch", "svg.fonttype": "path"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def legible(text: str, *, limit: int = 60) -> str:
    """Return `text` with ``?`` for characters that the font lacks, for which matplotlib would warn."""
    known = _font_characters()
    return "".join(c if ord(c) in known else "?" for c in plain(text, limit=limit))


def decade_ticks(low: float, high: float, *, limit: int = 6) -> list[float]:
    """Return at most `limit` round numbers between two positive ones, for a logarithmic axis.

    Examples
    --------
    >>> decade_ticks(0.02, 300.0)
    [0.1, 1.0, 10.0, 100.0]
    """
    exponents = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
    if len(exponents) >= 3:
        step = math.ceil(len(exponents) / limit)
        return [float(f"1e{exponent}") for exponent in exponents[::step]]
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for digits in ("1", "13", "125", "123468", "123456789"):
        places = [float(f"{digit}e{exponent}") for exponent in range(first, last + 1) for digit in digits]
        fitting = [place for place in places if low <= place <= high]
        if len(fitting) >= 3:
            break
    return fitting[:: math.ceil(len(fitting) / limit)] if fitting else [low]


def tick_text(value: float, _position: float = 0) -> str:
    """Return a tick label: ``"0"``, ``"0.01"``, ``"1e-5"``, ``"2.5e6"``."""
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:.4g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


@functools.cache
def _font_characters() -> frozenset[int]:
    import matplotlib
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf").get_charmap())
