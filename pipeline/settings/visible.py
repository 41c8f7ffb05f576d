"""Show text of others as it is: what would steer a terminal or begin a line of its own is spelt out."""

from __future__ import annotations

__all__ = ["plain_cell", "visible"]


def visible(text: str, *, kept: str = "") -> str:
    r"""Return a text whose control characters, but for those in ``kept``, are escape sequences of Python's.

    Also those of Unicode that change the direction of what follows, and what is no character.

    Examples
    --------
    >>> visible("conv\x1b[2J")
    'conv\\x1b[2J'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in kept else repr(c)[1:-1] for c in text)


def plain_cell(text: str) -> str:
    """Return a text that a spreadsheet takes for text and not for a formula."""
    return f"'{text}" if text.lstrip()[:1] in ("=", "+", "-", "@") or text[:1] in ("\t", "\r") else text
