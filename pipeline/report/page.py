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
from typing import Any

from .contents import PointReport, ReportData
from .numbers import number_text, plain
from .point_figures import PointFigure
from .point_row import Row, percentile_head, table_row, table_rows
from .verdict import certificate_notes, key_figures, summary, verdict

__all__ = ["Section", "page_chunks", "section", "settings_rows"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """What the page says about one point, below the table."""

    row: Row
    """The point's row of the table."""
    facts: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    figures: tuple[PointFigure, ...]


def page_chunks(report: ReportData, *, overview: bytes | None, sections: Iterable[Section]) -> Iterator[str]:
    """Yield the page in pieces.

    Parameters
    ----------
    report : ReportData
    overview : bytes or None
        PNG; ``None`` when there are no points.
    sections : iterable of Section
        In the order of the points. They are taken one by one, so that only one point's pictures are in memory.
    """
    from jinja2 import DictLoader, Environment, StrictUndefined

    sources = {name: _source(name) for name in ("page.html", "page.css", "page.js")}
    environment = Environment(
        loader=DictLoader({"page.html": sources["page.html"]}),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    return environment.get_template("page.html").generate(
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
        overview=overview,
        sections=sections,
        # The only text that is not escaped, because it comes from the templates.
        css=sources["page.css"],
        js=sources["page.js"],
        js_hash=base64.b64encode(hashlib.sha256(sources["page.js"].encode()).digest()).decode(),
    )


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


def section(number: int, point: PointReport, figures: Iterable[PointFigure]) -> Section:
    """Return the section of one point."""
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
    facts += [("saturation", row.saturation), ("dead", row.dead)]
    notes = tuple(plain(note, limit=1000) for note in point.notes)
    return Section(row=row, facts=tuple(facts), notes=notes, figures=tuple(figures))


def _data_uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"


def _source(name: str) -> str:
    return resources.files(__package__).joinpath("templates", name).read_text(encoding="utf-8")
