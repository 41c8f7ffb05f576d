"""The recorded activations of all points as one dataset of xarray, read block by block when it is computed.

Knows caches and arrays. Does not know settings or factors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...storage import PointSpec
from ..exporters import import_extra
from .activation_array import Activations

if TYPE_CHECKING:
    from xarray import Dataset

__all__ = ["lazy_dataset"]


def lazy_dataset(
    activations: Mapping[str, Activations], specs: Sequence[PointSpec], *, attributes: Mapping[str, Any]
) -> Dataset:
    """Return a dataset with a variable for each point; nothing is read before it is computed.

    Parameters
    ----------
    activations : mapping of str to Activations
    specs : sequence of PointSpec
        Of the same points.
    attributes : mapping
        Of the dataset.

    Raises
    ------
    InputError
        Without xarray.
    """
    xarray = import_extra("xarray", extra="notebook", needed_by="a dataset")
    import dask.array

    variables = {}
    for spec, dimensions in zip(specs, _dimensions(specs), strict=True):
        array = activations[spec.name]
        lazy = dask.array.from_array(array, chunks=array.chunks)
        facts = {name: spec.meta[name] for name in ("layer", "layer_type", "activation") if name in spec.meta}
        variables[spec.name] = (dimensions, lazy, {**facts, "channel_axis": spec.channel_axis})
    return xarray.Dataset(variables, attrs=dict(attributes))


def _dimensions(specs: Sequence[PointSpec]) -> Iterator[list[str]]:
    """Yield the names of the axes of each point: ``sample``, which all share, and names of its own.

    A dimension that had the name of a variable would be taken for its coordinates; two points that had one name for
    axes of different lengths could not be in one dataset.
    """
    taken = {spec.name for spec in specs}
    sample = _free("sample", taken)
    for spec in specs:
        channel = spec.channel_axis % (len(spec.shape) + 1)
        names = [
            _free(f"{spec.name}.{'channel' if axis == channel else axis}", taken)
            for axis in range(1, len(spec.shape) + 1)
        ]
        yield [sample, *names]


def _free(name: str, taken: set[str]) -> str:
    """Return a name that is not taken, and take it."""
    while name in taken:
        name += "_"
    taken.add(name)
    return name
