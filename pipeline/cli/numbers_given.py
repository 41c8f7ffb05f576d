"""Types of flags that take a number."""

from __future__ import annotations

import math
from typing import Any

import click

__all__ = ["NumberFrom"]


class NumberFrom(click.FloatRange):
    """A number that is not smaller than another; ``nan``, which Python's ``float`` reads too, is none."""

    def __init__(self, least: float) -> None:
        super().__init__(min=least)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number; what is none is refused."""
        found = super().convert(value, param, ctx)
        if math.isnan(found):
            # Every comparison with it is false: a range that only compares lets it through.
            self.fail(f"{value!r} is not a number.", param, ctx)
        return found
