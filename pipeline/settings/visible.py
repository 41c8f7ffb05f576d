"""Make text from outside safe to print: control characters are shown as escape sequences."""

from __future__ import annotations

__all__ = ["plain_cell", "visible"]


def visible(text: str, *, kept: str = "") -> str:
    r"""Return a text with control characters as escape sequences of Python, except for those in ``kept``.

    So are the characters of Unicode that change the direction of text, and code points without a character.

    Examples
    --------
    >>> visible("conv\x1b[2J")
    'conv\\x1b[2J'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else repr(c)[1:-1] for c in text)


def plain_cell(text: str) -> str:
    """Return a text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") or text[:1] in ("\t", "\r") else text
