"""What the shell offers behind a flag when Tab is pressed: names of points, methods, formats.

Whatever goes wrong, nothing is offered: a shell shows no errors then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

import click

__all__ = ["formats", "methods", "offered_points", "words_of_points"]

Offer = Callable[[click.Context, click.Parameter, str], list[str]]


def offered_points(argument: str = "run") -> Offer:
    """Return what offers the points of the run that an argument names."""

    def offer(context: click.Context, _: click.Parameter, begun: str) -> list[str]:
        from ..results.run import open_run

        try:
            # While the last flag lacks its value, click leaves the arguments unread.
            names = open_run(context.params[argument] or context.args[0]).points
        except Exception:  # no run there, a cache far away, a damaged file
            return []
        # What stands before the last comma is chosen already.
        before, comma, last = begun.rpartition(",")
        return _beginning(names, last, before + comma)

    return offer


def methods(context: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """Offer the methods of choosing a range."""
    from ..settings.factor_settings import RangeMethod

    return _beginning(get_args(RangeMethod), begun)


def formats(context: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """Offer the names of exporters."""
    from ..exporters import exporter_names

    return _beginning(exporter_names(), begun)


def words_of_points(context: click.Context, _: click.Parameter, begun: str) -> list[str]:
    """Offer the words that stand for points of a network that is not opened yet."""
    from ..settings.job_settings import PointChoice

    return _beginning(get_args(PointChoice), begun)


def _beginning(names: Sequence[Any], begun: str, before: str = "") -> list[str]:
    return [f"{before}{name}" for name in names if str(name).startswith(begun)]
