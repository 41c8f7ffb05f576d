"""Fill the template of the HTML page, piece by piece.

The page is self-contained: style, script and pictures are inside. It loads nothing,
and its content policy forbids it to load anything.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from ..settings.percents import percent_text
from ..sketch import Sketch
from .contents import PointReport, ReportData
from .numbers import interval_text, number_text, plain, ranges_text, share_text
from .percentile_ladder import ladder
from .picture import INKS, Picture
from .point_row import Row, percentile_head, table_row, table_rows
from .shared import shared_factors
from .verdict import certificate_notes, key_figures, summary, verdict

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["Drawn", "Section", "page_chunks", "section", "settings_rows", "source", "template"]

# Text and lines of the grid have the page's own colours, and the dark scheme of the style changes the others.
INKS_ON_PAGE = "".join(f"svg .{ink}{{color:var(--{ink},{colour})}}" for ink, colour in INKS.items())


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Pictures, the names of their files, and one PDF with a page for each."""

    pictures: Mapping[str, Picture]
    """By the name of the file without its ending, in the folder ``figures`` beside the page."""
    name: str
    """Of the PDF, without its ending."""
    pdf: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What the page says about one point, below the table."""

    row: Row
    """The point's row of the table."""
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    drawn: Drawn
    rungs: tuple[RungRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RungRow:
    """A percentile that the layer could be divided by, and what that would do."""

    q: str
    value: str
    interval: str
    saturation: str
    is_asked: bool
    """Whether it is the one that was asked for."""


def page_chunks(
    report: ReportData, *, overview: Drawn | None, tall: Picture | None, sections: Iterable[Section]
) -> Iterator[str]:
    """Yield the page in pieces.

    Parameters
    ----------
    report : ReportData
    overview : Drawn or None
        ``None`` when there are no points.
    tall : Picture or None
        The same for narrow screens.
    sections : iterable of Section
        In the order of the points. They are taken one by one, so that only one point's pictures are in memory.
    """
    js = source("page.js")
    return template("page.html").generate(
        report=report,
        title=plain(report.title),
        program=plain(report.program),
        summary=summary(report),
        verdict=verdict(report),
        key_figures=key_figures(report),
        certificate_notes=certificate_notes(report),
        settings=settings_rows(report.settings),
        rows=table_rows(report),
        q_head=percentile_head(report),
        about=[(plain(name), plain(value, limit=500)) for name, value in report.about.items()],
        shared=list(shared_factors(report)),
        overview=overview,
        tall=tall,
        sections=sections,
        # The only text that is not escaped, with the pictures, which escape their own.
        css=source("page.css"),
        inks=INKS_ON_PAGE,
        ink_colours=INKS,
        js=js,
        js_hash=base64.b64encode(hashlib.sha256(js.encode()).digest()).decode(),
    )


def template(name: str) -> Template:
    """Return a template of this folder, which escapes all that it is given."""
    from jinja2 import DictLoader, Environment, StrictUndefined
    from markupsafe import Markup, escape

    environment = Environment(
        loader=DictLoader({name: source(name)}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    # The shortest text that reads back as the same number; none, where the number is not known.
    environment.filters["sortable"] = lambda row, column: str(row.numbers.get(column, ""))
    # A path of layers is broken between two of them.
    environment.filters["path"] = lambda name: escape(name).replace("/", Markup("/<wbr>"))
    return environment.get_template(name)


def settings_rows(settings: Mapping[str, Any], *, prefix: str = "") -> list[tuple[str, str]]:
    """Return nested settings as rows of a dotted key and a value.

    Examples
    --------
    >>> settings_rows({"factors": {"percentile": 99.9, "pin": []}})
    [('factors.percentile', '99.9'), ('factors.pin', '[]')]
    """
    rows: list[tuple[str, str]] = []
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            rows += settings_rows(value, prefix=f"{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            rows.append((plain(name), plain(text, limit=2000)))
    return rows


def section(number: int, point: PointReport, drawn: Drawn, *, nonzero: bool) -> Section:
    """Return the section of one point; ``nonzero`` as `ReportData`."""
    row = table_row(number, point)
    facts = [
        ("type", row.kind),
        ("shape", row.shape),
        ("values", row.n_values_exact),
        ("zeros", row.zeros),
        ("max", row.maximum),
        (point.label, f"{row.percentile} {row.interval}"),
        ("factor", f"{row.factor} {row.pinned}".rstrip()),
        ("residual, largest", row.residual),
    ]
    if point.rms_residual is not None:
        facts.append(("residual, rms", number_text(point.rms_residual, digits=2)))
    facts += [("saturation", row.saturation), ("dead channels", _dead_text(point)), *_bias_facts(point)]
    notes = tuple(plain(note, limit=1000) for note in point.notes)
    return Section(
        row=row, facts=tuple(facts), notes=notes, drawn=drawn, rungs=tuple(_rung_rows(point, nonzero))
    )


def _rung_rows(point: PointReport, nonzero: bool) -> Iterator[RungRow]:
    for rung in ladder(point.before.layer, nonzero=nonzero, more=point.q):
        found = rung.percentile
        yield RungRow(
            q=percent_text(rung.q),
            value=number_text(found.value, digits=5),
            interval=interval_text(found.lo, found.hi),
            saturation=share_text(rung.saturation),
            is_asked=rung.q == point.q,
        )


def _dead_text(point: PointReport) -> str:
    """Return how many channels are dead, and which, where each has a sketch."""
    dead, n_dead = point.dead_channels, point.n_dead
    if dead is None:
        return "-" if n_dead is None else f"{n_dead:,}" + ("; which: sketch.per_channel" if n_dead else "")
    return f"{len(dead):,}" + (f": {plain(ranges_text(dead), limit=400)}" if dead else "")


def _bias_facts(point: PointReport) -> Iterator[tuple[str, str]]:
    before, after = point.biases_before, point.biases_after
    if before is not None and (before.n or (after is not None and after.n)):
        then = "not given" if after is None else _range_text(after) + ("" if before.n else ", folded in")
        yield "biases", f"{_range_text(before)}; normalised: {then}"


def _range_text(sketch: Sketch) -> str:
    if not sketch.n:
        return "none"
    return f"{sketch.n:,} from {number_text(sketch.minimum)} to {number_text(sketch.maximum)}"


def _data_uri(content: bytes | str, media_type: str) -> str:
    raw = content.encode() if isinstance(content, str) else content
    return f"data:{media_type};base64,{base64.b64encode(raw).decode('ascii')}"


def source(name: str) -> str:
    """Return a file of the templates' folder."""
    return resources.files(__package__).joinpath("templates", name).read_text(encoding="utf-8")
