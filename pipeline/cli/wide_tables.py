"""Tables for people in which no number is ever cut: what does not fit a terminal is wider than it.

Knows widths. Does not know what a table is about.
"""

from __future__ import annotations

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..settings.visible import visible

__all__ = ["add_row", "print_table", "room", "table_of"]

_GAP = 2
# A name in a narrow terminal is wrapped, but not to a letter a line.
_NARROWEST_NAME = 10
_NO_LIMIT = 100_000


def table_of(*columns: str) -> Table:
    """Return a table without lines, so that a log file and a terminal show the same; ``">"`` aligns to the right."""
    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="bold")
    for column in columns:
        is_number = column.startswith(">")
        # A number broken between its digits reads as another number.
        table.add_column(
            column.removeprefix(">"),
            justify="right" if is_number else "left",
            overflow="fold",
            no_wrap=is_number,
        )
    return table


def add_row(table: Table, *cells: object) -> None:
    """Add a row; control characters are escaped."""
    table.add_row(*(Text(visible(str(cell))) for cell in cells))


def print_table(console: Console, table: Table) -> None:
    """Print a table: in a file or a pipe as wide as it needs, in a terminal with wrapped names if it has to.

    Numbers are never wrapped and never cut: a table that does not fit is wider than the terminal.
    """
    gaps = table.padding[1] * (len(table.columns) - 1)
    longest, narrowest = [], []
    for column in table.columns:
        if not console.is_terminal:
            column.max_width = None
        lines = [line for cell in (column.header, *column.cells) for line in str(cell).split("\n")]
        width = min(max(map(cell_len, lines)), column.max_width or _NO_LIMIT)
        longest.append(width)
        narrowest.append(width if column.no_wrap else min(width, _NARROWEST_NAME))
    table.width = sum(longest) + gaps
    if console.is_terminal:
        # rich narrows the columns that may be wrapped, the widest first, and others only if that is not enough.
        table.width = max(sum(narrowest) + gaps, min(table.width, console.width))
    console.print(table, crop=False, no_wrap=True, overflow="ignore")


def room(console: Console) -> int:
    """Return how many columns a table may have before it leaves some out: a file or a pipe has no limit."""
    return console.width if console.is_terminal else _NO_LIMIT
