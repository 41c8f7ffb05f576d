"""Refuse workers that would compute something else: compare their versions with those of the client.

Works for workers without actisketch too: Dask asks them, and nothing is imported there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...storage.errors import MismatchError

if TYPE_CHECKING:
    from distributed import Client

__all__ = ["COMPARED", "check_versions"]

COMPARED = ("python", "actisketch", "tensorflow", "keras", "numpy", "zarr", "numba", "dask", "distributed")
"""A difference in one of these may change values, files or messages."""


def check_versions(client: Client) -> None:
    """Refuse a cluster whose workers have other versions than this process.

    Raises
    ------
    MismatchError
        With a line for each package and each version that is not the client's.
    """
    found = client.get_versions(packages=[name for name in COMPARED if name != "python"])
    here = found["client"]["packages"]
    addresses: dict[tuple[str, str | None], list[str]] = {}
    for address, facts in found["workers"].items():
        there = (facts or {}).get("packages", {})
        for name in COMPARED:
            if there.get(name) != here.get(name):
                addresses.setdefault((name, there.get(name)), []).append(address)
    if addresses:
        lines = [
            f"{name}: {here.get(name) or 'not installed'} here, {version or 'not installed'} on "
            f"{min(workers)}{f' and {len(workers) - 1} more' if len(workers) > 1 else ''}"
            for (name, version), workers in addresses.items()
        ]
        raise MismatchError(
            "the workers have other versions of the software than this process, so their results would differ; "
            "install the same versions (or run from the same image):\n" + "\n".join(lines),
            differences=tuple(lines),
        )
