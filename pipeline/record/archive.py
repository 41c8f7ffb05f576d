"""Rewrite a ``.keras`` archive without dates and addresses, which differ each time it is saved.

Knows the archive as Keras saves it: a zip of JSON, weights and assets. Does not know networks.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

__all__ = ["without_dates"]

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The first date that a zip file can contain."""
_SAVED = "1980-01-01@00:00:00"
_COPIED_NBYTES = 2**20


def without_dates(source: Path, target: Path) -> None:
    """Write the archive ``source`` to ``target`` so that the same network always has the same bytes."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        # Keras finds members by name; it stores assets in the arbitrary order of a folder's listing.
        for member in sorted(old.infolist(), key=lambda each: each.filename):
            info = zipfile.ZipInfo(member.filename, _EPOCH)
            info.external_attr = 0o600 << 16
            text = _plain(old, member)
            if text is not None:
                new.writestr(info, text)
                continue
            info.file_size = member.file_size  # a large member needs the zip64 format
            with old.open(member) as reading, new.open(info, "w") as writing:
                shutil.copyfileobj(reading, writing, _COPIED_NBYTES)


def _plain(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> str | None:
    """Return the text of a JSON member with dates and addresses replaced; None for any other member."""
    if member.filename == "metadata.json":
        return json.dumps({**json.loads(archive.read(member)), "date_saved": _SAVED})
    if member.filename == "config.json":
        tree = json.loads(archive.read(member))
        _number_shared(tree, {})
        return json.dumps(tree)
    return None


def _number_shared(tree: Any, numbers: dict[int, int]) -> None:
    """Replace the addresses by which Keras identifies objects that layers share by numbers in order."""
    if isinstance(tree, dict):
        address = tree.get("shared_object_id")
        if isinstance(address, int):
            tree["shared_object_id"] = numbers.setdefault(address, len(numbers) + 1)
    for part in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
        _number_shared(part, numbers)
