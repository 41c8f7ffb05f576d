"""The rank of a percentile as text. Knows numbers only."""

from __future__ import annotations

__all__ = ["percent_text"]


def percent_text(q: float) -> str:
    """Return the rank of a percentile with all its digits: 99.99999 is not the largest value.

    Examples
    --------
    >>> percent_text(50), percent_text(99.9), percent_text(99.99999)
    ('50', '99.9', '99.99999')
    >>> percent_text(99.9 - 0.1)
    '99.8'
    """
    # What a schedule subtracts leaves a digit of rounding in the 14th decimal.
    return repr(round(float(q), 10)).removesuffix(".0")
