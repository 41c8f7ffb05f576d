"""Numbers of bytes from and for people: ``"4 GB"`` is 4000000000, 3145728 is ``"3.0 MiB"``.

Knows units. Does not know what the bytes are for.
"""

from __future__ import annotations

import re

__all__ = ["format_bytes", "parse_bytes"]

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def parse_bytes(text: object) -> object:
    """Return the number of bytes that ``"512 MiB"``, ``"4GB"`` or ``1048576`` names.

    Parameters
    ----------
    text : str or int
        A whole number of bytes, or a number with one of the units B, kB, MB, GB, TB, KiB, MiB, GiB, TiB.

    Returns
    -------
    int
        Bytes. Anything that is not a string is handed back as it is, for the validator to judge.

    Raises
    ------
    ValueError
        If the text is not a number with a known unit.
    """
    if not isinstance(text, str):
        return text
    found = re.fullmatch(r"\s*([0-9]*\.?[0-9]+)\s*([a-zA-Z]*)\s*", text)
    if found is None or found[2].lower() not in _UNITS:
        raise ValueError("write a number of bytes with a unit, as in '512 MiB' or '4 GB'")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def format_bytes(nbytes: float) -> str:
    """Return bytes for a person: ``format_bytes(3 * 2**20)`` is ``"3.0 MiB"``."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(nbytes) < 1024 or unit == "TiB":
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    raise AssertionError  # pragma: no cover - the loop returns at TiB
