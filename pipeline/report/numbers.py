"""Numbers, shapes and names as short text for terminals, figures and tables.

Pure functions that add only ASCII, which every terminal shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..settings.visible import visible

__all__ = [
    "axes_text",
    "certain_text",
    "change_text",
    "count_text",
    "factor_text",
    "interval_text",
    "number_text",
    "plain",
    "ranges_text",
    "share_text",
]


def plain(text: str, *, limit: int = 200) -> str:
    r"""Return `text` on one line without control characters, shortened in the middle.

    A layer may have any name; ``"\x1b[2J"`` would clear the reader's terminal.

    Examples
    --------
    >>> plain("block_1/a_long_name/conv", limit=15)
    'block_...e/conv'
    """
    shown = visible(text)
    if len(shown) <= limit:
        return shown
    tail = (limit - 3) // 2
    return f"{shown[: limit - 3 - tail]}...{shown[len(shown) - tail :]}"


def number_text(value: float, *, digits: int = 4) -> str:
    """Return `value` with `digits` significant digits, with an exponent outside 1e-3 to 1e6; ``"-"`` for NaN.

    Examples
    --------
    >>> number_text(1234.5678), number_text(0.00001234), number_text(2.0)
    ('1235', '1.234e-5', '2')
    """
    if not math.isfinite(value):
        return "-" if math.isnan(value) else str(value)
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e6:
        decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
        text = f"{value:.{decimals}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}e{int(exponent)}"


def count_text(count: int) -> str:
    """Return a count in at most five characters: ``"999"``, ``"12.3k"``, ``"4.56M"``."""
    if count < 1000:
        return str(count)
    for unit, size in (("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12), ("P", 1e15)):
        scaled = count / size
        if scaled < 999.5:
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{unit}"
    return f"{count:.1e}"


def share_text(share: float | None) -> str:
    """Return a share between 0 and 1 in percent; only 0 and 1 themselves become 0 % and 100 %.

    Examples
    --------
    >>> share_text(0.5), share_text(0.99999), share_text(0.0004), share_text(1e-9), share_text(0.0)
    ('50.0 %', '>99.9 %', '0.04 %', '<1e-4 %', '0 %')
    """
    if share is None or math.isnan(share):
        return "-"
    if share in (0.0, 1.0):
        return f"{share * 100:.0f} %"
    if share < 0.01:
        return f"{share * 100:.2g} %" if share >= 1e-6 else "<1e-4 %"
    return ">99.9 %" if share > 0.999 else f"{share * 100:.1f} %"


def axes_text(shape: Sequence[int]) -> str:
    """Return ``"8x8x16"``, or ``"scalar"`` if there are no axes."""
    return "x".join(str(length) for length in shape) or "scalar"


def interval_text(lo: float, hi: float) -> str:
    """Return ``"[lo, hi]"`` with enough digits to distinguish the ends, at most nine.

    The ends are rounded outwards, so that the text's interval contains the given one.
    """
    if math.isnan(lo) or math.isnan(hi):
        return "-"
    if lo == hi:
        return f"[{number_text(lo, digits=6)}]"
    digits = 4
    while digits < 9 and number_text(lo, digits=digits) == number_text(hi, digits=digits):
        digits += 1
    return f"[{_outwards(lo, digits, up=False)}, {_outwards(hi, digits, up=True)}]"


def certain_text(lo: float, hi: float) -> str:
    """Return a number within [lo, hi] in the digits that are certain, four at most; if not two are, both ends.

    Examples
    --------
    >>> certain_text(0.10366374, 0.10366388), certain_text(0.0, 0.0021), certain_text(1.0, 1.0)
    ('0.1037', '0 to 0.0021', '1')
    """
    for digits in (4, 3, 2):
        if number_text(lo, digits=digits) == number_text(hi, digits=digits):
            return number_text(lo, digits=digits)
    return f"{_outwards(lo, 2, up=False)} to {_outwards(hi, 2, up=True)}"


def change_text(before: str, after: str) -> str:
    """Return ``"before to after"``, or one of them where they are the same."""
    return before if before == after else f"{before} to {after}"


def factor_text(factors: Sequence[float]) -> str:
    """Return one factor as a number, several as their range."""
    if len(factors) == 1:
        return number_text(factors[0])
    return f"{number_text(min(factors), digits=3)}..{number_text(max(factors), digits=3)}"


def ranges_text(numbers: Sequence[int]) -> str:
    """Return ascending whole numbers, neighbours together.

    Examples
    --------
    >>> ranges_text([3, 17, 40, 41, 42])
    '3, 17, 40-42'
    """
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ", ".join("-".join(map(str, part)) for part in parts)


def _outwards(value: float, digits: int, *, up: bool) -> str:
    text = number_text(value, digits=digits)
    if not math.isfinite(value) or value == 0:
        return text
    off = float(text) - value
    if (off < 0) if up else (off > 0):
        step = 10.0 ** (math.floor(math.log10(abs(value))) - digits + 1)
        text = number_text(value + step / 2 if up else value - step / 2, digits=digits)
    return text
