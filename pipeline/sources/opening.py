"""Open the data that a DataSpec names: find it, recognise its kind, choose the arrays.

Knows paths, endings and keys. Does not know how each kind is read.
"""

from __future__ import annotations

import difflib
import glob
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...storage.errors import InputError, StorageError
from ...storage.stores import path_of
from .columns import Column, as_column, check_column
from .data_spec import DataSpec, input_keys
from .npyfiles import npy_column, npz_columns
from .prepared import PreparedSource
from .protocol import Reader
from .rows import ColumnsReader

__all__ = ["open_source"]

logger = logging.getLogger(__name__)

_RECORD_ENDINGS = (".tfrecord", ".tfrecords", ".tfrec")
_SHARD = re.compile(r"[^.]+-\d{5}-of-\d{5}")


def open_source(spec: DataSpec, base_dir: str | Path | None = None) -> PreparedSource:
    """Return the samples that a spec names.

    Parameters
    ----------
    spec : DataSpec
        What to read and how.
    base_dir : path, optional
        Where relative paths start; default: the working directory.

    Returns
    -------
    PreparedSource
        A :class:`~.protocol.Source`.

    Raises
    ------
    InputError
        If the data is not there, is of no known kind, is empty or damaged, has no such arrays, or has fewer
        samples than asked for.
    StorageError
        If an object store refuses.

    Examples
    --------
    >>> open_source(DataSpec(path="digits.npz", divide_by=16.0))  # doctest: +SKIP
    """
    path = _resolve(spec.path, base_dir)
    kind = spec.format or _kind(path)
    reader = _READERS[kind](path, spec, base_dir)
    source = PreparedSource(
        reader,
        preparation=spec.preparation(),
        num_samples=spec.num_samples,
        full_fingerprint=spec.fingerprint == "full",
    )
    logger.info("%s: %d samples, %s", path, source.n_samples, ", ".join(map(str, source.inputs)))
    return source


def _resolve(text: str, base_dir: str | Path | None) -> str:
    if "://" in text:
        return path_of(text) if text.lower().startswith("file://") else text
    path = Path(text).expanduser()
    return str(path if path.is_absolute() or base_dir is None else Path(base_dir) / path)


def _kind(path: str) -> str:
    lowered = path.rstrip("/").lower()
    if "://" in path or lowered.endswith((".zarr", ".zarr.zip")):
        return "zarr"
    if lowered.endswith((".npz", ".npy")):
        return lowered[-3:]
    if lowered.endswith(_RECORD_ENDINGS) or (glob.has_magic(path) and not Path(path).exists()):
        return "tfrecord"
    place = _existing(path)
    if place.is_dir():
        if any((place / name).exists() for name in ("zarr.json", ".zarray", ".zgroup")):
            return "zarr"
        return "tfrecord" if _record_files_of(place) else "images"
    if _is_record_file(place):
        return "tfrecord"
    raise InputError(
        f"what {path!r} holds is not clear from its name: end it in .npz, .npy, .zarr or .tfrecord, name a "
        "folder of images, or set data.format",
        path=path,
    )


def _existing(path: str) -> Path:
    place = Path(path)
    if place.exists():
        return place
    parent = place.parent
    if not parent.is_dir():
        raise InputError(f"no data at {path!r}: there is no folder {str(parent)!r}", path=path)
    names = sorted(entry.name for entry in parent.iterdir())
    near = difflib.get_close_matches(place.name, names, n=1)
    hint = (
        f"did you mean {near[0]!r}?" if near else f"{str(parent)!r} holds {', '.join(names[:8]) or 'nothing'}"
    )
    raise InputError(f"no data at {path!r}: {hint}", path=path)


def _file(path: str) -> Path:
    place = _existing(path)
    if not place.is_file():
        raise InputError(f"{path!r} is a folder, a file was expected", path=path)
    if place.stat().st_size == 0:
        raise InputError(f"{path!r} is an empty file: write the data again", path=path)
    return place


def _open_npy(path: str, spec: DataSpec, base_dir: str | Path | None) -> Reader:
    if spec.inputs is not None:
        raise InputError(
            f"{path!r} holds one array without a name, but data.inputs = {spec.inputs!r}: leave it out"
        )
    column = check_column(npy_column(_file(path)), repr(path))
    labels = _labels_apart(spec, base_dir)
    if labels is None and spec.labels is not None:
        raise InputError(f"{path!r} has no labels in it: name their file with data.labels_path")
    return ColumnsReader([(None, column)], labels, origin=repr(path))


def _open_npz(path: str, spec: DataSpec, base_dir: str | Path | None) -> Reader:
    return _choose(npz_columns(_file(path)), path, spec, base_dir)


def _open_zarr(path: str, spec: DataSpec, base_dir: str | Path | None) -> Reader:
    import zarr

    node = _zarr_node(path, spec.storage_options)
    if isinstance(node, zarr.Array):
        if spec.inputs is not None or spec.labels is not None:
            raise InputError(
                f"{path!r} is one zarr array, not a group: leave data.inputs and data.labels out"
            )
        return ColumnsReader(
            [(None, as_column(node, repr(path)))], _labels_apart(spec, base_dir), origin=repr(path)
        )
    names = [name for name, _ in node.arrays()]
    wanted = {*names, *input_keys(spec.inputs).values(), *([spec.labels] if spec.labels else [])}
    arrays: dict[str, Any] = {name: node[name] for name in sorted(wanted) if name in node}
    if not arrays:
        raise InputError(
            f"the zarr group {path!r} holds no arrays (groups: {sorted(node.group_keys())})", path=path
        )
    return _choose(arrays, path, spec, base_dir)


def _zarr_node(path: str, options: Mapping[str, Any]) -> Any:
    import zarr
    from zarr.errors import BaseZarrError

    try:
        if "://" not in path:
            _existing(path)
            store: Any = zarr.storage.ZipStore(path, mode="r") if path.endswith(".zip") else path
            return zarr.open(store, mode="r")
        import obstore.store

        remote = obstore.store.from_url(path, **dict(options))
        return zarr.open(zarr.storage.ObjectStore(remote, read_only=True), mode="r")
    except (FileNotFoundError, BaseZarrError, KeyError) as error:
        raise InputError(f"{path!r} is neither a zarr array nor a zarr group: {error}", path=path) from None
    except InputError:
        raise
    except Exception as error:  # the object store's own tree of errors, which differs between schemes
        raise StorageError(f"{path!r} cannot be opened: {error}", path=path) from error


def _open_images(path: str, spec: DataSpec, base_dir: str | Path | None) -> Reader:
    from .images import ImageFolder

    if not _existing(path).is_dir():
        raise InputError(f"{path!r} is a file: name the folder of images", path=path)
    return ImageFolder(path, spec)


def _open_tfrecord(path: str, spec: DataSpec, base_dir: str | Path | None) -> Reader:
    from .tfrecord import RecordReader

    return RecordReader(_record_files(path), spec, origin=repr(path))


def _record_files(path: str) -> list[str]:
    """Return the files of a glob, a folder or a single path, sorted by name: the order of the samples."""
    if glob.has_magic(path) and not Path(path).exists():
        files = sorted(name for name in glob.glob(_pattern(path), recursive=True) if Path(name).is_file())
        if not files:
            raise InputError(f"no file matches {path!r}", path=path)
        return files
    if "://" in path:
        raise InputError(
            f"TFRecord files are read from a file system, not from {path!r}: copy or mount them", path=path
        )
    place = _existing(path)
    if place.is_dir():
        files = _record_files_of(place)
        if not files:
            raise InputError(f"the folder {path!r} holds no TFRecord files", path=path)
        return files
    return [str(_file(path))]


def _is_record_file(place: Path) -> bool:
    # Also train.tfrecord-00000-of-01024, as TensorFlow Datasets writes, train-00000-of-01024, and x.tfrecord.gz.
    name = place.name.lower()
    is_named = any(ending in name for ending in _RECORD_ENDINGS) or _SHARD.fullmatch(name)
    return bool(is_named) and place.is_file()


def _record_files_of(folder: Path) -> list[str]:
    return sorted(
        str(entry) for entry in folder.iterdir() if not entry.name.startswith(".") and _is_record_file(entry)
    )


def _pattern(path: str) -> str:
    """Return a glob in which existing folders are taken literally: ``runs [1]/part-*``."""
    parents = Path(path).parents
    there = next((parent for parent in parents if parent.exists()), None)
    return path if there is None else str(Path(glob.escape(str(there))) / Path(path).relative_to(there))


_READERS = {
    "npy": _open_npy,
    "npz": _open_npz,
    "zarr": _open_zarr,
    "images": _open_images,
    "tfrecord": _open_tfrecord,
}


def _choose(
    arrays: Mapping[str, Any], path: str, spec: DataSpec, base_dir: str | Path | None
) -> ColumnsReader:
    """Choose inputs and labels among the arrays of a file by the keys of the spec."""
    labels = _labels_apart(spec, base_dir)
    # If the labels are in a file of their own, their key is of that file.
    labels_key = spec.labels if labels is None else None
    if labels is None and labels_key is None and "y" in arrays:
        labels_key = "y"
    if labels is None and labels_key is not None:
        labels = _column(arrays, labels_key, path, "data.labels")
    keys = input_keys(spec.inputs)
    if not keys and len(spec.input_names) > 1 and set(spec.input_names) <= set(arrays):
        keys = input_keys(spec.input_names)
    keys = keys or {None: _default_key(arrays, labels_key, path)}
    columns = [(name, _column(arrays, key, path, "data.inputs")) for name, key in keys.items()]
    return ColumnsReader(columns, labels, origin=repr(path))


def _default_key(arrays: Mapping[str, Any], labels_key: str | None, path: str) -> str:
    names = [name for name in arrays if name != labels_key]
    if len(names) == 1:
        return names[0]
    if "x" in names:
        return "x"
    raise InputError(
        f"{path!r} holds the arrays {sorted(arrays)}: say which is the input with data.inputs, or which the "
        "labels with data.labels",
        path=path,
    )


def _column(arrays: Mapping[str, Any], key: str, path: str, setting: str) -> Column:
    if key not in arrays:
        near = difflib.get_close_matches(key, arrays, n=1)
        hint = f", did you mean {near[0]!r}?" if near else ""
        raise InputError(
            f"{setting} = {key!r}, but {path!r} holds {sorted(arrays)}{hint}", path=path, key=key
        )
    origin = f"{key!r} in {path!r}"
    value = arrays[key]
    return check_column(value, origin) if hasattr(value, "read") else as_column(value, origin)


def _labels_apart(spec: DataSpec, base_dir: str | Path | None) -> Column | None:
    """Return the labels of ``labels_path``."""
    if spec.labels_path is None:
        return None
    path = _resolve(spec.labels_path, base_dir)
    if path.lower().endswith(".npy"):
        return check_column(npy_column(_file(path)), repr(path))
    arrays: Mapping[str, Any]
    if path.lower().endswith(".npz"):
        arrays = npz_columns(_file(path))
    else:
        node = _zarr_node(path, spec.storage_options)
        if not hasattr(node, "arrays"):
            return as_column(node, repr(path))
        arrays = dict(node.arrays())
    key = spec.labels or ("y" if "y" in arrays else _default_key(arrays, None, path))
    return _column(arrays, key, path, "data.labels")
