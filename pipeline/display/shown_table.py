"""A table with a title and a few lines above it, as plain text for a terminal and as HTML for a notebook.

Knows text only. Colours and fonts are those of the page around it, so it is right on light and on dark.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..report.numbers import plain

__all__ = ["ShownTable"]

# More rows say nothing more to a reader, and a page with many tables must stay light.
MOST_ROWS = 300
# As pandas: the first and the last rows of a table that is longer than a screen.
MOST_LINES, FIRST_LINES, LAST_LINES = 60, 30, 10
NAME_LIMIT = 60
# Notebooks align cells to the right and wrap them. What removes this style when a notebook is opened again, as Jupyter
# does until it is trusted, leaves a readable table.
STYLE = (
    "<style>.actisketch div{max-width:100%;max-height:32em;overflow:auto}"
    ".actisketch table{border-collapse:collapse}.actisketch th,.actisketch td{text-align:right;white-space:nowrap;"
    "padding:.15em .6em}.actisketch .name{text-align:left}.actisketch svg{vertical-align:middle}</style>"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownTable:
    """A table to look at."""

    title: str
    lines: Sequence[str] = ()
    """Sentences between the title and the table: the verdict, where it lies."""
    columns: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Cells by head; a head that begins with ``">"`` is of numbers, which are aligned to the right. Any text: control
    characters are made visible, and the marks of HTML are escaped."""
    pictures: Sequence[str] = ()
    """An SVG for each row, in HTML only; trusted as it is."""
    picture_head: str = "distribution"
    more: str = ""
    """Where to get the rows that are left out."""

    def text(self) -> str:
        """Return the table without pictures; of a long one the first and the last rows."""
        cells = self._cells()
        if len(cells) > MOST_LINES:
            between = ["..."] + [""] * (len(self.columns) - 1)
            cells = [*cells[:FIRST_LINES], between, *cells[-LAST_LINES:]]
        heads = [head.removeprefix(">") for head in self.columns]
        widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
        rows = [self._aligned(row, widths) for row in ([heads, *cells] if heads else [])]
        return "\n".join([plain(self.title), *(plain(line, limit=400) for line in self.lines), *rows])

    def _aligned(self, cells: Sequence[str], widths: Sequence[int]) -> str:
        padded = (
            cell.rjust(width) if head.startswith(">") else cell.ljust(width)
            for head, cell, width in zip(self.columns, cells, widths, strict=True)
        )
        return "  ".join(padded).rstrip()

    def html(self) -> str:
        """Return the table with its pictures; at most 300 rows, then how many there are more."""
        head = "<br/>".join(
            [f"<b>{_escaped(self.title)}</b>", *(_escaped(line, limit=400) for line in self.lines)]
        )
        body = f"<p>{head}</p>"
        if self.columns:
            body += f"<div><table>{self._rows()}</table></div>"
        cells = self._cells()
        if len(cells) > MOST_ROWS:
            body += (
                f"<p>{len(cells) - MOST_ROWS:,} more rows{': ' if self.more else ''}{_escaped(self.more)}</p>"
            )
        return f'<div class="actisketch">{STYLE}{body}</div>'

    def _rows(self) -> str:
        heads = [_cell("th", head.removeprefix(">"), is_number=head.startswith(">")) for head in self.columns]
        if self.pictures:
            heads.append(_cell("th", self.picture_head, is_number=False))
        rows = [f"<thead><tr>{''.join(heads)}</tr></thead>"]
        for i, cells in enumerate(self._cells()[:MOST_ROWS]):
            row = [
                _cell("td", cell, is_number=head.startswith(">"))
                for head, cell in zip(self.columns, cells, strict=True)
            ]
            if self.pictures:
                row.append(f'<td class="name">{self.pictures[i]}</td>')
            rows.append(f"<tr>{''.join(row)}</tr>")
        return "".join(rows)

    def _cells(self) -> list[list[str]]:
        return [
            [plain(cell, limit=NAME_LIMIT) for cell in row]
            for row in zip(*self.columns.values(), strict=True)
        ]


def _cell(tag: str, text: str, *, is_number: bool) -> str:
    name = "" if is_number else ' class="name"'
    return f"<{tag}{name}>{html.escape(text)}</{tag}>"


def _escaped(text: str, *, limit: int = 200) -> str:
    return html.escape(plain(text, limit=limit))
