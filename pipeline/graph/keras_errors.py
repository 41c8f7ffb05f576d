"""Translate errors of Keras, TensorFlow and user-defined layers into this package's: the only place that does."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...storage.errors import ActisketchError, InputError, OverBudgetError
from .graph import Graph
from .kinds import is_from_keras
from .nodes import Node

__all__ = ["layer_refusals", "reason_of", "refusals_explained"]

_LONGEST = 400
"""Characters of a reason: Keras puts whole configurations into its messages, after or before the reason."""
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_WRAPPER = re.compile(r"\{\{function_node [^}]*\}\}\s*")
_NODE = re.compile(r"\{\{node ([^}]+)\}\}")
# Stack frames of these say nothing about user-defined code.
_LIBRARIES = ("keras", "tensorflow", "tf_keras")


def reason_of(error: BaseException) -> str:
    """Return the reason in an error of Keras or TensorFlow: one line, without settings, arguments and nodes."""
    # str() of a KeyError is the repr of its argument.
    given = error.args[0] if isinstance(error, KeyError) and error.args else error
    text = _ESCAPES.sub("", str(getattr(error, "message", None) or given))
    text = _WRAPPER.sub("", text).split("[[{{")[0].split("[Op:")[0]
    # Keras wraps an error in what it was doing, and puts settings around it; the innermost one is the reason.
    text = text.rpartition("Exception encountered: ")[2]
    called = text.rpartition("Exception encountered when calling ")[2]
    if called != text:
        text = called.partition("\n\n")[2]
    text = text.partition("\n\nArguments received by ")[0].strip()
    if "Graph execution error" in text or "Traceback (most recent call last)" in text:
        # What was wrong stands behind the place in the program.
        text = text.splitlines()[-1]
    text = " ".join(text.split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


@contextmanager
def layer_refusals(node: Node, *, doing: str) -> Iterator[None]:
    """Turn any error of a layer into an InputError that names the layer; out of memory is passed on.

    Parameters
    ----------
    node : Node
        The layer.
    doing : str
        What was done with it, as ``"called"``.
    """
    import tensorflow as tf

    n_scopes = len(_open_scopes())
    try:
        yield
    except (ActisketchError, tf.errors.ResourceExhaustedError):
        raise
    except Exception as error:  # a layer's code may raise anything
        advice = _way_out(error) if isinstance(error, tf.errors.OpError) else _advice(node, error)
        raise InputError(
            f"the layer {node.name!r} ({node.type}) failed when it was {doing}: {_told(error)}; {advice}",
            layer=node.name,
        ) from error
    finally:
        del _open_scopes()[n_scopes:]


@contextmanager
def refusals_explained(
    start: int | None = None, stop: int | None = None, graph: Graph | None = None
) -> Iterator[None]:
    """Turn errors raised while a network computes the samples start..stop-1 into errors of this package.

    Parameters
    ----------
    start, stop : int, optional
        Which samples; none while the network is traced.
    graph : Graph, optional
        To name the layer.

    Raises
    ------
    OverBudgetError
        If TensorFlow found no memory.
    InputError
        If a layer refuses the values, as an embedding those beyond its table, or cannot be computed here.
    """
    import tensorflow as tf

    samples = "the samples" if start is None or stop is None else f"the samples {start} to {stop - 1}"
    facts = {} if start is None else {"start": start, "stop": stop}
    n_scopes = len(_open_scopes())
    try:
        yield
    except InputError as error:
        if error.__cause__ is None and error.__context__ is not None:
            # TensorFlow hands errors of a traced function on "from None".
            raise error from error.__context__
        raise
    except tf.errors.ResourceExhaustedError as error:
        raise OverBudgetError(
            f"the network ran out of memory at {samples}: {reason_of(error)}; "
            "reduce record.batch_size (--batch-size)",
            **facts,
        ) from error
    except tf.errors.OpError as error:
        layer = _layer_of(error, graph)
        place = "" if layer is None else f" at its layer {layer!r}"
        raise InputError(
            f"the network refuses {samples}{place}: {reason_of(error)}; {_way_out(error)}",
            **facts,
            **({} if layer is None else {"layer": layer}),
        ) from error
    finally:
        del _open_scopes()[n_scopes:]


def _open_scopes() -> list[Any]:
    """Return the name scopes that Keras has open in this thread.

    Keras opens its own scope of a layer, then TensorFlow's, and leaves its own open when TensorFlow refuses the name:
    the paths of all layers that the process builds after that would begin with it.
    """
    from keras.src.backend.common import global_state

    scopes: list[Any] = global_state.get_global_attribute("name_scope_stack", default=[], set_to_default=True)
    return scopes


def _told(error: Exception) -> str:
    """Return type and reason of an error, and the line of user-defined code that raised it."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(f"/{name}/" in Path(frame.filename).as_posix() for name in _LIBRARIES)
    ]
    own = [frame for frame in frames if not frame.filename.startswith(str(Path(__file__).parents[1]))]
    place = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}: {reason_of(error)}{place}"


def _advice(node: Node, error: Exception) -> str:
    if "scope name" in str(error):
        return "TensorFlow does not accept this name of a layer: rename it with letters, digits, '.', '_' and '-'"
    if node.type == "Lambda" or not is_from_keras(node.operation):
        return "the network's own code failed: correct it where it is defined"
    return "give samples of a shape that it takes, or change the network"


def _layer_of(error: Any, graph: Graph | None) -> str | None:
    """Return the layer in whose scope the operation is that failed: Keras opens a scope of its name for each."""
    found = _NODE.search(str(error.message))
    if found is None or graph is None:
        return None
    names = {node.layer_name for node in graph.nodes}
    for scope in found[1].split("/")[:-1]:
        # A scope that is opened again gets a number.
        for name in (scope, re.sub(r"_\d+$", "", scope)):
            if name in names:
                return name
    return None


def _way_out(error: Any) -> str:
    import tensorflow as tf

    text = str(error.message)
    if "NHWC" in text or "NCHW" in text or "channels_first" in text:
        return (
            "TensorFlow computes channels_first of this dtype on GPUs only: run it where one is, or rebuild the "
            "network with data_format='channels_last'"
        )
    if "PyFunc" in text:
        return "the network's own code failed: correct it, or the data"
    if isinstance(
        error, tf.errors.UnimplementedError | tf.errors.NotFoundError | tf.errors.FailedPreconditionError
    ):
        return "the network cannot be computed here, whatever the samples: change that layer"
    return "correct the data, or what is done to it before the network"
