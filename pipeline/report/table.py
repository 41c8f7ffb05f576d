"""The table per layer for a terminal: plain text that survives 80 columns and no colours.

No boxes and no colours, so that a pipe, a log file and a dumb terminal show the same; ASCII but for
the names of layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .contents import ReportData
from .point_row import Row, percentile_head, table_rows

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["layer_table"]

LONGEST_INTERVAL = 16
NARROWEST_NAME, COMFORTABLE_NAME, WIDEST_NAME = 10, 20, 40
# What a narrow terminal does without, first to last.
DISPENSABLE = ("shape", "values", "zeros", "residual", "max")


def layer_table(report: ReportData, *, width: int | None = None) -> Table:
    """Return one row per point: shape, values, zeros, max, percentile with its interval, factor, residual.

    Parameters
    ----------
    report : ReportData
    width : int, optional
        Columns of the terminal; by default those of the console that rich finds, 80 for a pipe.

    Returns
    -------
    rich.table.Table
        Where it does not fit, the interval goes below the percentile, then long names are folded
        (never cut), and under about 70 columns the shape, the number of values and so on are left out.
        The residual is there when a certificate is.

    Examples
    --------
    >>> rich.console.Console().print(layer_table(report))  # doctest: +SKIP
    """
    import rich
    from rich.table import Table
    from rich.text import Text

    width = rich.get_console().width if width is None else width
    columns, gap = _columns(report, table_rows(report), width)
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for head in columns:
        if head == "layer":
            table.add_column(Text(head), overflow="fold", max_width=WIDEST_NAME)
        else:
            table.add_column(
                Text(head), justify="left" if head.endswith("[lo,hi]") else "right", no_wrap=True
            )
    for cells in zip(*columns.values(), strict=True):
        # Text, not str: a name like "[red]" is no markup.
        table.add_row(*map(Text, cells))
    return table


def _columns(report: ReportData, rows: list[Row], width: int) -> tuple[dict[str, list[str]], int]:
    """Return head and cells of the columns that fit, and the gap between them.

    One line for each point if that fits, if need be with a gap of one; else the interval goes below.
    """
    from rich.cells import cell_len

    longest = max((cell_len(row.name) for row in rows), default=0)
    columns = _all_columns(report, rows, between=" ")
    for gap in (2, 1):
        if _room_for_name(columns, width, gap) >= min(longest, COMFORTABLE_NAME):
            return columns, gap
    columns = _all_columns(report, rows, between="\n")
    for head in DISPENSABLE:
        if _room_for_name(columns, width, gap=2) >= min(longest, NARROWEST_NAME):
            break
        columns.pop(head, None)
    return columns, 2


def _all_columns(report: ReportData, rows: list[Row], *, between: str) -> dict[str, list[str]]:
    # One word, so that an interval goes to the next line whole; two where the words get long (1e-5).
    intervals = [row.interval.replace(", ", ",") for row in rows]
    if between == "\n" and max(map(len, intervals), default=0) > LONGEST_INTERVAL:
        intervals = [interval.replace(",", ",\n ") for interval in intervals]
    columns = {
        "layer": [row.name for row in rows],
        "shape": [row.shape for row in rows],
        "values": [row.n_values for row in rows],
        "zeros": [row.zeros for row in rows],
        "max": [row.maximum for row in rows],
        f"{percentile_head(report)}{between}[lo,hi]": [
            f"{row.percentile}{between}{interval}".strip()
            for row, interval in zip(rows, intervals, strict=True)
        ],
        "factor": [row.factor.replace("..", ".." if between == " " else "..\n") for row in rows],
    }
    if any(point.residual is not None for point in report.points):
        columns["residual"] = [row.residual for row in rows]
    return columns


def _room_for_name(columns: dict[str, list[str]], width: int, gap: int) -> int:
    """Return how many columns are left for the name when all others have what they need."""
    for head, cells in columns.items():
        if head != "layer":
            width -= gap + max(len(line) for text in (head, *cells) for line in text.split("\n"))
    return width
