"""Numbers of bytes from and for people: ``"4 GB"`` is 4000000000, 3145728 is ``"3.0 MiB"``."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["format_bytes", "parse_bytes"]


def parse_bytes(text: Any) -> Any:
    """Return the number of bytes that ``"512 MiB"``, ``"4GB"`` or ``1048576`` names.

    Parameters
    ----------
    text : str or int
        A whole number of bytes, or a number with a unit that :class:`pydantic.ByteSize` knows.

    Returns
    -------
    int
        Bytes. Anything but a string is returned as it is, for the validator to judge.

    Raises
    ------
    ValueError
        If the text is not a number with a known unit.
    """
    if not isinstance(text, str):
        return text
    # Here and not above: a command line that shows no bytes, as `--version`, starts without pydantic.
    from pydantic import ByteSize, TypeAdapter, ValidationError

    try:
        # ByteSize reads the beginning of a text: "1,000 MB" would be one byte.
        if re.fullmatch(r"\s*[0-9]*\.?[0-9]+\s*[a-zA-Z]*\s*", text):
            return int(TypeAdapter(ByteSize).validate_python(text))
    except ValidationError:
        pass
    raise ValueError("write a number of bytes with a unit, as in '512 MiB' or '4 GB'")


def format_bytes(nbytes: float) -> str:
    """Return bytes for a person: ``format_bytes(3 * 2**20)`` is ``"3.0 MiB"``."""
    from pydantic import ByteSize

    return ByteSize(int(nbytes)).human_readable(separator=" ")
