"""Refuse workers that would compute something else: compare versions, client against workers.

Works on workers that lack actisketch itself: Dask's own call is used, and nothing is imported there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...storage.errors import MismatchError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["COMPARED", "check_versions", "version_table"]

COMPARED = ("python", "actisketch", "tensorflow", "keras", "numpy", "zarr", "numba", "dask", "distributed")
"""A difference in one of these may change values, files or messages."""

_MISSING = "not installed"


def check_versions(client: Client) -> None:
    """Refuse a cluster whose workers have other versions than this process.

    Raises
    ------
    MismatchError
        With the table of differences.
    """
    found = client.get_versions(check=False, packages=[name for name in COMPARED if name != "python"])
    lines = version_table(
        _packages(found["client"]), {address: _packages(each) for address, each in found["workers"].items()}
    )
    if lines:
        raise MismatchError(
            "the workers have other versions of the software than this process, so their results would differ; "
            "install the same versions (or run from the same image):\n" + "\n".join(lines),
            differences=tuple(lines),
        )


def version_table(client: Mapping[str, str], workers: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Return the lines of a table of what differs; none if nothing does.

    Parameters
    ----------
    client : mapping of str to str
        Version by package.
    workers : mapping of str to mapping
        The same by address.

    Returns
    -------
    list of str
        A heading and a line for each package and each version that is not the client's.
    """
    rows = []
    for name in COMPARED:
        mine = client.get(name, _MISSING)
        others: dict[str, list[str]] = {}
        for address, packages in workers.items():
            theirs = packages.get(name, _MISSING)
            if theirs != mine:
                others.setdefault(theirs, []).append(address)
        for theirs, addresses in sorted(others.items()):
            more = f" and {len(addresses) - 1} more" if len(addresses) > 1 else ""
            rows.append((name, mine, theirs, sorted(addresses)[0] + more))
    if not rows:
        return []
    heading = ("package", "here", "on the worker", "worker")
    widths = [max(len(row[i]) for row in [heading, *rows]) for i in range(4)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [heading, *rows]
    ]


def _packages(facts: Mapping[str, Any] | None) -> dict[str, str]:
    packages = (facts or {}).get("packages", {})
    return {name: str(version) for name, version in packages.items() if version is not None}
