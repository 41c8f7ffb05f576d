"""Load a Keras network from a file, and run code from the file only if that was allowed.

The only module that reads model files. TensorFlow is imported here and not before.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import math
import os
import re
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ...storage.errors import InputError
from ..folder.folder import replacing
from ..graph import reason_of
from .archive import without_dates
from .legacy import as_keras_3_reads_it, check_meaning, keras_version

__all__ = ["import_keras", "load_network", "save_network"]

logger = logging.getLogger(__name__)


def import_keras() -> ModuleType:
    """Return the module ``keras`` with the TensorFlow backend, without TensorFlow's log unless a log level is set.

    Raises
    ------
    InputError
        If Keras uses another backend, or is older than 3.
    """
    # Processes of a cluster inherit the level that was set here: 3 is no wish to read the log.
    if "tensorflow" not in sys.modules and os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") == "3":
        with _silent_stderr():
            importlib.import_module("tensorflow")
        logging.getLogger("absl").setLevel(logging.ERROR)
    import keras

    if keras.backend.backend() != "tensorflow":
        raise InputError(
            f"Keras runs on the backend {keras.backend.backend()!r}, actisketch needs tensorflow: "
            "set the environment variable KERAS_BACKEND=tensorflow"
        )
    module: ModuleType = keras
    return module


def weights_nbytes(model: Any) -> int:
    """Return the bytes of a network's weights, as float32."""
    return sum(4 * math.prod(weight.shape) for weight in model.weights)


def loading_nbytes(model: Any) -> int:
    """Return what reading a network from a file takes at most, in bytes, beside its weights.

    The file's bytes, and what Keras makes first weights from; of the largest three copies more. Measured: 2.0 times
    the weights of ResNet50, 5.2 times those of one large matrix.
    """
    largest = max((4 * math.prod(weight.shape) for weight in model.weights), default=0)
    return 2 * weights_nbytes(model) + 3 * largest


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Hold back what C code writes to standard error, and show it only if the work fails.

    TensorFlow's start-up banner ("oneDNN custom operations are on") is written before any log level applies.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except Exception:
            kept.seek(0)
            os.write(saved, kept.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def load_network(
    path: str | Path, *, custom_objects: str | Path | None = None, safe_mode: bool = True
) -> Any:
    """Return the Keras model in a file.

    Parameters
    ----------
    path : path
        A ``.keras`` file, or ``.h5``/``.hdf5`` in the older form.
    custom_objects : path, optional
        A Python file that defines the model's own layers; it is executed, so trust it.
    safe_mode : bool
        Keras' safe mode: refuse to load code (Lambda layers) from the model file.

    Raises
    ------
    InputError
        If the file is missing, is not a Keras model, or contains code that was not allowed.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"no model file {str(path)!r}: give a .keras or .h5 file", path=str(path))
    if path.suffix not in {".keras", ".h5", ".hdf5"}:
        raise InputError(
            f"{str(path)!r} is not a .keras or .h5 file: save the model with `model.save('name.keras')`, with Keras 2 "
            "`model.save('name.h5')`",
            path=str(path),
        )
    if path.name.endswith(".weights.h5"):
        raise InputError(
            f"{str(path)!r} holds weights only, not the network: build the model in Python, "
            "`model.load_weights(...)`, then save it with `model.save('name.keras')`",
            path=str(path),
        )
    if path.suffix == ".keras" and not zipfile.is_zipfile(path):
        raise InputError(f"{str(path)!r} is not a Keras model file, or is damaged: save the model again")
    keras = import_keras()
    objects = _run_custom_objects(Path(custom_objects)) if custom_objects is not None else {}

    def load(file: Path) -> Any:
        return keras.saving.load_model(file, custom_objects=objects, compile=False, safe_mode=safe_mode)

    try:
        check_meaning(path)
        try:
            return load(path)
        except Exception:
            if path.suffix == ".keras" or not _is_of_keras_2(path):
                raise
            with as_keras_3_reads_it(path) as copy:
                if copy is None:
                    raise
                return load(copy)
    except InputError:
        raise
    except Exception as error:  # Keras raises many kinds, down to those of json and h5py
        raise InputError(
            f"the model {str(path)!r} cannot be loaded: {_advice(error, path)}", path=str(path)
        ) from error


def _is_of_keras_2(path: Path) -> bool:
    return keras_version(path).startswith("2.")


def _advice(error: Exception, path: Path) -> str:
    text = " ".join(str(error).split())
    if path.suffix == ".keras" and _is_of_keras_2(path):
        return (
            f"Keras {keras_version(path)} wrote it, and Keras 3 does not read such .keras files: load it with that "
            "Keras and save it as .h5, with `model.save('name.h5')`"
        )
    if "safe_mode" in text or "unsafe" in text.lower():
        return f"{_unsafe_part(text)}; if you trust the file, set model.safe_mode = false (--unsafe-model)"
    if "Could not locate class" in text or "Unknown layer" in text or "could not be located" in text.lower():
        named = re.search(r"(?:Could not locate class|Unknown layer:) '?(\w+)'?", text)
        unknown = (
            f"Keras does not know its class {named[1]!r}"
            if named
            else "it has layers that Keras does not know"
        )
        says = "" if named else f". Keras says: {text[:160]}..."
        return (
            f"{unknown}; if it is your own, name the Python file that defines it with model.custom_objects "
            f"(--custom-objects layers.py){says}"
        )
    return reason_of(error)


def _unsafe_part(text: str) -> str:
    """Return what Keras' safe mode refuses, from its message."""
    asked = re.search(r"Requested the (?!deserialization of a `Lambda`)(.{1,200}?)\. This carries", text)
    if asked is None:
        return "it contains code (a Lambda layer)"
    file = re.search(r"Vocabulary file: '?(.{1,300}?)'?$", text)
    return f"Keras refuses the {asked[1]}{'' if file is None else f', {file[1]!r}'}"


def _run_custom_objects(path: Path) -> dict[str, Any]:
    """Run the user's file and return its classes and functions by name."""
    if not path.is_file():
        raise InputError(
            f"no file {str(path)!r} for model.custom_objects: give a Python file", path=str(path)
        )
    spec = importlib.util.spec_from_file_location("actisketch_custom_objects", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{str(path)!r} for model.custom_objects is not a Python file", path=str(path))
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's own code raises
        raise InputError(
            f"{str(path)!r} failed to run: {type(error).__name__}: {error}", path=str(path)
        ) from error
    logger.info("custom objects from %s", path)
    own = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return {name: value for name, value in own.items() if isinstance(value, type) or callable(value)}


def save_network(model: Any, path: Path) -> None:
    """Write a model as ``.keras``, whole or not at all; the same model always gives the same bytes.

    Raises
    ------
    InputError
        If Keras cannot write it, for example because the settings of a layer are not JSON.
    StorageError
        If the disk refuses it.
    """
    with replacing(path) as partial, tempfile.TemporaryDirectory(prefix="actisketch-") as folder:
        saved = Path(folder) / "network.keras"
        try:
            model.save(saved)
        except OSError:
            raise
        except Exception as error:  # whatever a layer's own code raises
            raise InputError(
                f"the network {model.name!r} cannot be saved: {type(error).__name__}: {reason_of(error)}; its layers "
                "must give plain settings in get_config()",
                model=model.name,
            ) from error
        without_dates(saved, partial)
