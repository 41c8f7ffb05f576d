"""Render pictures as PDF and PNG, with matplotlib's objects alone.

No pyplot, no GUI, only fonts that every reader has or that come with matplotlib, and no influence of the user's
matplotlibrc: the same picture gives the same bytes.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from .picture import INKS, Area, Picture, Stroke, Words

if TYPE_CHECKING:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

__all__ = ["render_pdf", "render_png", "rendering"]

DPI = 130
# Enough for flat colours and their anti-aliased edges; more makes the file larger. Of Pillow's methods, maximum
# coverage keeps them best (no channel off by more than 9 of 255); zlib's level 9 saves 10 % for 3 times the time.
N_PALETTE = 64
HORIZONTAL = {"start": "left", "middle": "center", "end": "right"}

# rcParams are global to the process, so only one thread at a time may change them.
_STYLE_LOCK = threading.RLock()


@contextmanager
def rendering() -> Iterator[None]:
    """Use matplotlib's defaults and our settings while files are rendered, then restore the user's."""
    import matplotlib
    from matplotlib import rcParamsDefault

    # Setting a backend would load pyplot.
    kept: dict[Any, Any] = {
        key: value for key, value in rcParamsDefault.items() if not key.startswith("backend")
    }
    ours: dict[Any, Any] = {
        "text.parse_math": False,
        # Helvetica, which every reader of PDF has: a font in each file would be ten times as large as the picture.
        "pdf.use14corefonts": True,
    }
    with _STYLE_LOCK, matplotlib.rc_context({**kept, **ours}):
        yield


def render_pdf(pictures: Iterable[Picture]) -> bytes:
    """Return pictures on white as one PDF, each on a page of its size; call within `rendering`."""
    from matplotlib.backends.backend_pdf import PdfPages

    file = io.BytesIO()
    # The date would differ each time.
    with PdfPages(file, metadata={"CreationDate": None, "Creator": None, "Producer": None}) as pages:
        for picture in pictures:
            pages.savefig(_figure(picture, font="Helvetica"))
    return file.getvalue()


def render_png(picture: Picture) -> bytes:
    """Return a picture on white as a PNG; call within `rendering`."""
    from PIL import Image

    figure = _figure(picture, font="DejaVu Sans")
    canvas = cast("FigureCanvasAgg", figure.canvas)
    canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib gives it no types
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]  # as above
    image = Image.fromarray(pixels).convert("RGB")
    flat = image.quantize(N_PALETTE, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
    file = io.BytesIO()
    flat.save(file, "PNG", compress_level=6)
    return file.getvalue()


def _figure(picture: Picture, *, font: str) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path
    from matplotlib.transforms import Affine2D

    figure = Figure(figsize=(picture.width / 72, picture.height / 72), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    place = Affine2D().scale(1 / 72, -1 / 72).translate(0, picture.height / 72) + figure.dpi_scale_trans
    for item in picture.items:
        if isinstance(item, Words):
            figure.text(
                item.x / picture.width,
                1 - item.y / picture.height,
                _known(item.text),
                color=INKS[item.ink],
                family=font,
                fontsize=item.size,
                # Helvetica has no weight of that name.
                fontweight="bold" if item.is_bold else "medium" if font == "Helvetica" else "normal",
                ha=HORIZONTAL[item.anchor],
                va="baseline",
                rotation=-item.turn,
                rotation_mode="anchor",
            )
        elif isinstance(item, Area | Stroke):
            path = Path.make_compound_path(*(Path(line, closed=False) for line in item.lines))
            look: dict[str, Any] = (
                {"facecolor": INKS[item.ink], "linewidth": 0, "alpha": item.opacity}
                if isinstance(item, Area)
                else {
                    "facecolor": "none",
                    "edgecolor": INKS[item.ink],
                    "linewidth": item.width,
                    "linestyle": (0, [each / item.width for each in item.dash]) if item.dash else "solid",
                    "capstyle": "butt",
                }
            )
            figure.add_artist(PathPatch(path, transform=place, **look))
    return figure


def _known(text: str) -> str:
    """Return `text` with ``?`` for characters that Helvetica lacks, for which matplotlib would warn."""
    return text.encode("cp1252", "replace").decode("cp1252")
