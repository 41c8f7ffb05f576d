"""Make a source from what is in memory: arrays, data sets, functions that give batches.

Knows kinds of objects. Never imports TensorFlow or Keras: whoever has an object of theirs has imported them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...storage.errors import InputError
from .columns import as_column
from .data_spec import DataSpec
from .opening import open_source
from .prepared import PreparedSource
from .protocol import Reader, Source
from .rows import ColumnsReader

__all__ = ["as_source"]


def as_source(
    x: Any,
    y: Any = None,
    *,
    num_samples: int | None = None,
    batched: bool | None = None,
    scale: float | tuple[float, ...] | Mapping[str, Any] = 1.0,
    offset: float | tuple[float, ...] | Mapping[str, Any] = 0.0,
    divide_by: float | Mapping[str, float] | None = None,
    preprocessing: str | Mapping[str, str] | None = None,
    fingerprint: Literal["sampled", "full"] = "full",
) -> Source:
    """Return a source of samples in memory, or of anything that can give its batches many times.

    Parameters
    ----------
    x : arrays, tf.data.Dataset, keras.utils.PyDataset, callable, iterable, DataSpec, path
        Arrays have shape (n_samples, ...): numpy, memory-mapped, zarr or dask. A list or a dict is a network
        with several inputs. A data set gives ``x``, ``(x, y)`` or ``(x, y, weights)``. A callable gives a
        fresh iterator of batches each time, and needs ``num_samples``.
    y : array, optional
        Labels, for accuracy.
    num_samples : int, optional
        Use only the first N samples; default: all. Needed for callables and generator functions.
    batched : bool, optional
        Whether a data set gives batches or single samples; default: what the data set itself says, and batches for
        callables.
    scale, offset, divide_by, preprocessing, fingerprint
        As in :class:`~.data_spec.DataSpec`.

    Raises
    ------
    InputError
        If samples can be read only once, their number is unknown, they come in a different order each time, or they are
        neither numbers nor texts.

    Notes
    -----
    Whole numbers keep their type unless they are scaled (an embedding needs them); everything else becomes float32.

    Examples
    --------
    >>> as_source(np.arange(12, dtype=np.uint8).reshape(3, 4), divide_by=255).read(0, 1).inputs[0].dtype
    dtype('float32')
    """
    preparation = {"scale": scale, "offset": offset, "divide_by": divide_by, "preprocessing": preprocessing}
    plain = preparation == {"scale": 1.0, "offset": 0.0, "divide_by": None, "preprocessing": None}
    if isinstance(x, DataSpec | str | Path | PreparedSource) or (
        isinstance(x, Source) and not _is_tensorflow(x)
    ):
        if y is not None or not plain or num_samples is not None:
            raise InputError("labels, num_samples and scaling belong in the DataSpec or the source itself")
        if isinstance(x, str | Path):
            return open_source(DataSpec(path=str(x)))
        return open_source(x) if isinstance(x, DataSpec) else x
    _refuse_incomplete(x)
    return PreparedSource(
        _reader(x, y, num_samples=num_samples, batched=batched),
        preparation=preparation,
        num_samples=num_samples,
        full_fingerprint=fingerprint == "full",
    )


def _refuse_incomplete(x: Any) -> None:
    """Refuse an object that was meant as a source and lacks a part of one, as one written for an earlier version."""
    parts = [name for name in vars(Source) if not name.startswith("_")]
    missing = [name for name in parts if not hasattr(x, name)]
    if missing and all(hasattr(x, name) for name in ("inputs", "read", "fingerprint")):
        is_renamed = "content_hash" in missing and hasattr(x, "digest")
        advice = "rename its method digest to content_hash" if is_renamed else "see sources.protocol.Source"
        raise InputError(f"the source {type(x).__name__!r} has no {', '.join(missing)}: {advice}")


def _reader(x: Any, y: Any, *, num_samples: int | None, batched: bool | None) -> Reader:
    if x is None:
        raise InputError("no samples were given: pass arrays, a data set or a DataSpec")
    if isinstance(x, Mapping | list | tuple) or _is_array(x):
        return _arrays(x, y)
    if y is not None:
        raise InputError(f"a {type(x).__name__} brings its own labels, as (x, y): leave y out")
    if _is_tensorflow(x) and hasattr(x, "element_spec"):
        from .tfdata import dataset_reader

        return dataset_reader(x, num_samples=num_samples, batched=batched)
    if _is_py_dataset(x):
        from .batches import BatchedReader

        return BatchedReader(x)
    if hasattr(x, "to_numpy"):
        raise InputError(f"a {type(x).__name__} is not an array: pass what its .to_numpy() gives")
    return _stream(x, num_samples=num_samples, batched=batched)


def _arrays(x: Any, y: Any) -> Reader:
    labels = None if y is None else as_column(_one_target(y), "y")
    if isinstance(x, Mapping):
        named: list[tuple[str | None, Any]] = [(str(name), array) for name, array in x.items()]
    elif isinstance(x, list | tuple):
        if not all(map(_is_array, x)):
            raise InputError(
                "a list is taken as one array for each input of the network: convert it with numpy.asarray"
            )
        named = [(None, array) for array in x]
    else:
        named = [(None, x)]
    if not named:
        raise InputError("no arrays were given: at least one input is needed")
    columns = [(name, as_column(array, "x" if name is None else f"x[{name!r}]")) for name, array in named]
    return ColumnsReader(columns, labels, origin="the arrays")


def _one_target(y: Any) -> Any:
    """Return labels as an array; several arrays are refused: accuracy is of one output."""
    several = list(y.values()) if isinstance(y, Mapping) else y if isinstance(y, list | tuple) else []
    if any(_is_array(each) and each.ndim for each in several):
        if len(several) == 1:
            return several[0]
        raise InputError(
            f"y is a {type(y).__name__} of {len(y)} arrays, and accuracy is of one output: give the classes of the "
            "first output that decides between some"
        )
    try:
        return y if _is_array(y) else np.asarray(y)
    except ValueError as error:
        raise InputError(f"y is not an array of labels: {error}") from None


def _stream(x: Any, *, num_samples: int | None, batched: bool | None) -> Reader:
    from .streams import StreamReader

    kind = type(x).__name__
    if isinstance(x, Iterator):
        raise InputError(
            f"a {kind} gives its samples once, and they are needed again: pass the function that makes it"
        )
    fresh: Callable[[], Iterable[Any]]
    if callable(x):
        fresh = x
    elif isinstance(x, Iterable):
        fresh = lambda: x  # noqa: E731 - the iterable gives a fresh iterator each time
    else:
        raise InputError(
            f"a {kind} is not a data set: pass arrays, a tf.data.Dataset, a PyDataset or a function"
        )
    if num_samples is None:
        raise InputError(f"the number of samples of a {kind} is not known: set num_samples")
    return StreamReader(fresh, n_rows=num_samples, batched=batched is not False, origin=f"the {kind}")


def _is_array(x: Any) -> bool:
    return hasattr(x, "shape") and hasattr(x, "dtype") and hasattr(x, "__getitem__")


def _is_tensorflow(x: Any) -> bool:
    return type(x).__module__.startswith("tensorflow")


def _is_py_dataset(x: Any) -> bool:
    # By name: Keras must not be imported to find out that something is not of Keras.
    return any(
        kind.__name__ in ("PyDataset", "Sequence") and "keras" in kind.__module__ for kind in type(x).__mro__
    )
