"""A picture made of lines, areas and texts, and its SVG.

Colours have names. In the page they follow the reader's light or dark scheme (`INKS`, and `page.css` for the dark one);
a file of its own brings them along. Knows places in a picture. Does not know values, points or files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape

from ..settings.visible import visible

__all__ = ["INKS", "Area", "Picture", "Stroke", "Words"]

INKS = {
    "before": "#7c8aa0",
    "after": "#2f7ed8",
    "percentile": "#d9480f",
    "max": "#8a3a9c",
    "factor": "#0b7a4b",
    "ink": "#1f2933",
    "soft": "#52606d",
    "grid": "#dfe4ea",
}
"""They differ in lightness as well as in hue: readable without colour vision. On white; ``ink`` is that of the text."""

FONT = "system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"

Line = Sequence[tuple[float, float]]
"""The corners of a line, or of an area."""


@dataclass(frozen=True, slots=True)
class Area:
    """Filled polygons."""

    lines: tuple[Line, ...]
    ink: str
    opacity: float = 1.0


@dataclass(frozen=True, slots=True)
class Stroke:
    """Lines."""

    lines: tuple[Line, ...]
    ink: str
    width: float
    dash: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Words:
    """One line of text."""

    x: float
    y: float
    """Of the base line."""
    text: str
    ink: str
    size: float
    anchor: str
    """``"start"``, ``"middle"`` or ``"end"``."""
    is_bold: bool
    turn: float
    """Degrees, clockwise."""


@dataclass(frozen=True, slots=True)
class _Link:
    href: str
    title: str


class Picture:
    """Things on paper, in the order in which they were drawn.

    Parameters
    ----------
    width, height : float
        In units of a point, from the upper left corner.
    label : str
        What it shows, with numbers, for those who cannot see it.
    """

    def __init__(self, width: float, height: float, *, label: str) -> None:
        self.width, self.height, self.label = width, height, label
        self.items: list[Area | Stroke | Words | _Link | None] = []

    def area(self, *lines: Line, ink: str, opacity: float = 1.0) -> None:
        """Fill polygons."""
        self.items.append(Area(lines, ink, opacity))

    def rect(
        self, x: float, y: float, width: float, height: float, *, ink: str, opacity: float = 1.0
    ) -> None:
        """Fill a rectangle."""
        self.area(
            ((x, y), (x + width, y), (x + width, y + height), (x, y + height)), ink=ink, opacity=opacity
        )

    def stroke(self, *lines: Line, ink: str, width: float = 1.0, dash: tuple[float, ...] = ()) -> None:
        """Draw lines."""
        if lines:
            self.items.append(Stroke(lines, ink, width, dash))

    def words(
        self,
        x: float,
        y: float,
        text: str,
        *,
        ink: str = "ink",
        size: float = 11.0,
        anchor: str = "start",
        is_bold: bool = False,
        turn: float = 0.0,
    ) -> None:
        """Write a line of text."""
        self.items.append(Words(x, y, visible(text), ink, size, anchor, is_bold, turn))

    @contextmanager
    def linked(self, href: str, title: str) -> Iterator[None]:
        """Lead from what is drawn meanwhile to a place of the page, and tell ``title`` where the pointer rests."""
        self.items.append(_Link(href, visible(title)))
        yield
        self.items.append(None)

    def svg(self) -> str:
        """Return the picture as an element of a page, whose style gives the inks, as classes, their colours."""
        return self._svg('class="picture"', is_file=False)

    def svg_file(self) -> bytes:
        """Return the picture as a file, on white. It has no style, which some readers do not understand."""
        width, height = _n(self.width), _n(self.height)
        head = f'xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="{FONT}"'
        white = f'<path fill="#fff" d="M0 0H{width}V{height}H0z"/>'
        return self._svg(head, first=white, is_file=True).encode()

    def _svg(self, head: str, *, first: str = "", is_file: bool) -> str:
        label = escape(visible(self.label))
        parts = "".join(_svg_of(item, is_file) for item in self.items)
        box = f"0 0 {_n(self.width)} {_n(self.height)}"
        return f'<svg {head} viewBox="{box}" role="img" aria-label="{label}">{first}{parts}</svg>'


def _svg_of(item: Area | Stroke | Words | _Link | None, is_file: bool) -> str:
    tag = "g" if is_file else "a"
    if item is None:
        return f"</{tag}>"
    if isinstance(item, _Link):
        # The table and the contents have the same links: nobody need pass them with the keyboard once more.
        link = "" if is_file else f' href="{escape(item.href)}" tabindex="-1"'
        return f"<{tag}{link}><title>{escape(item.title)}</title>"
    ink = f'fill="{INKS[item.ink]}"' if is_file else f'class="{item.ink}"'
    if isinstance(item, Area):
        faint = f' opacity="{item.opacity:g}"' if item.opacity != 1 else ""
        return f'<path {ink}{faint} d="{_d(item.lines, "z")}"/>'
    if isinstance(item, Stroke):
        ink = f'fill="none" stroke="{INKS[item.ink]}"' if is_file else f'class="l {item.ink}"'
        dash = f' stroke-dasharray="{" ".join(map(_n, item.dash))}"' if item.dash else ""
        return f'<path {ink} stroke-width="{_n(item.width)}"{dash} d="{_d(item.lines)}"/>'
    anchor = f' text-anchor="{item.anchor}"' if item.anchor != "start" else ""
    bold = ' font-weight="bold"' if item.is_bold else ""
    place = f'x="{_n(item.x)}" y="{_n(item.y)}"'
    if item.turn:
        place = f'transform="translate({_n(item.x)} {_n(item.y)})rotate({_n(item.turn)})"'
    return f'<text {ink} {place} font-size="{_n(item.size)}"{anchor}{bold}>{escape(item.text)}</text>'


def _d(lines: Iterable[Line], end: str = "") -> str:
    return "".join(_path(line) + end for line in lines)


def _path(line: Line) -> str:
    """Return a line as path data; steps, which histograms consist of, take half the room as such."""
    parts, last = [], ("", "")
    for i, (x, y) in enumerate(line):
        here = (_n(x), _n(y))
        if i == 0:
            parts.append(f"M{here[0]} {here[1]}")
        elif here[1] == last[1]:
            parts.append(f"H{here[0]}")
        elif here[0] == last[0]:
            parts.append(f"V{here[1]}")
        else:
            parts.append(f"L{here[0]} {here[1]}")
        last = here
    return "".join(parts)


def _n(value: float) -> str:
    """Return a place to a tenth of a unit, without a needless zero."""
    text = f"{value:.1f}"
    text = text.removesuffix(".0")
    return "0" if text == "-0" else text
