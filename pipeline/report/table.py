"""The table of the layers for a terminal.

It has no boxes and no colours, so that a pipe, a log file and a simple terminal show the same; only names of
layers are not ASCII.
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
# The columns that a narrow terminal leaves out, first to last.
DISPENSABLE = ("shape", "values", "zeros", "residual", "max", "rule")


def layer_table(report: ReportData, *, width: int | None = None) -> Table:
    """Return a table with a row per point: shape, values, zeros, max, percentile and interval, factor, rule, residual.

    Parameters
    ----------
    report : ReportData
    width : int, optional
        Columns of the terminal; default: those that rich finds, 80 for a pipe.

    Returns
    -------
    rich.table.Table
        If it does not fit, the interval goes below the percentile, then long names are wrapped
        (never cut), and below about 70 columns the shape, the number of values and so on are left out.
        There are residuals if there is a certificate, and rules (pinned, tied) if any point has one.

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
                Text(head),
                justify="left" if head == "rule" or head.endswith("[lo,hi]") else "right",
                no_wrap=True,
            )
    for cells in zip(*columns.values(), strict=True):
        # Text, not str: rich would take a name like "[red]" for markup.
        table.add_row(*map(Text, cells))
    return table


def _columns(report: ReportData, rows: list[Row], width: int) -> tuple[dict[str, list[str]], int]:
    """Return the columns that fit, with their heads, and the gap between them.

    Each point has one line if that fits, perhaps with a gap of one; otherwise its interval goes below.
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
    # Without a space an interval moves to the next line as a whole; a long one (1e-5) is split in two.
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
    if any(row.pinned for row in rows):
        columns["rule"] = [row.pinned for row in rows]
    if any(point.residual is not None for point in report.points):
        columns["residual"] = [row.residual for row in rows]
    return columns


def _room_for_name(columns: dict[str, list[str]], width: int, gap: int) -> int:
    """Return how many columns the others leave for the name."""
    for head, cells in columns.items():
        if head != "layer":
            width -= gap + max(len(line) for text in (head, *cells) for line in text.split("\n"))
    return width
