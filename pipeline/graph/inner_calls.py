"""Watch the calls of the layers inside the nodes of a graph while it is traced, as Keras' GPTQ does it.

The attribute ``call`` of the layers stands for a watching function meanwhile, for the thread that traces. It is put
back whatever happens. Does not know what is done with an output.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from .graph import Graph
from .inner_layers import InnerLayer, inner_layers
from .nodes import Node
from .steps import call_node

__all__ = ["InnerCall", "OnOutput", "watched_calls"]

# One trace at a time: the calls of a layer that two networks share are watched for one of them.
_TRACING = threading.RLock()


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class InnerCall:
    """A call of a layer by another layer."""

    inner: InnerLayer
    node: Node
    """The node of the graph in which it happens."""
    around: InnerCall | None
    """The call in which it happens; None: that of the node."""
    number: int
    """0 for the first call of its layer; calls by the graph count first."""
    place: int
    """Among all calls that are no steps, in the order of the trace."""
    is_step: bool
    """Whether it happens inside a loop, a branch or a tf.function: its output is not part of the traced graph."""

    @property
    def name(self) -> str:
        """The name of the point that records it."""
        return f"{self.inner.path}:{self.number}" if self.number else self.inner.path


OnOutput = Callable[[InnerCall, Any], Any]
"""Takes a call and its output, and returns what the network goes on with."""
CallNode = Callable[[Node, dict[int, Any], dict[str, Any]], list[Any]]
"""As `call_node`."""


@contextmanager
def watched_calls(graph: Graph, on_output: OnOutput) -> Iterator[CallNode]:
    """Watch, while a graph is traced in this context, the calls of all layers inside its nodes.

    Gives what calls a node. Another thread that calls the network meanwhile is not watched, and computes as ever.
    """
    with _TRACING, ExitStack() as patched:
        watch = _Watch(on_output)
        for inner in inner_layers(graph):
            method = "quantized_call" if getattr(inner.layer, "quantization_mode", None) else "call"
            patched.enter_context(_replaced(inner.layer, method, watch.watching(inner, method)))
        yield watch.call_node


@contextmanager
def _replaced(layer: Any, method: str, function: Callable[..., Any]) -> Iterator[None]:
    """Let an instance have another method. Keras' own way to set attributes is passed by: it would note the change."""
    own: dict[str, Any] = layer.__dict__
    had, before = method in own, own.get(method)
    own[method] = function
    try:
        yield
    finally:
        if had:
            own[method] = before
        else:
            own.pop(method, None)


class _Watch:
    """What is known while a graph is traced."""

    def __init__(self, on_output: OnOutput) -> None:
        import tensorflow as tf

        self._thread, self._traced = threading.get_ident(), tf.compat.v1.get_default_graph()
        self._on_output = on_output
        self._node: Node | None = None
        self._calls: list[InnerCall] = []
        """Those that have begun and not ended."""
        self._counts: Counter[str] = Counter()
        self._n_places = 0

    def call_node(self, node: Node, values: dict[int, Any], extra: dict[str, Any]) -> list[Any]:
        self._node = node
        try:
            return call_node(node, values, extra)
        finally:
            self._node = None

    def watching(self, inner: InnerLayer, method: str) -> Callable[..., Any]:
        """Return what stands for the method of a layer."""
        original = getattr(inner.layer, method)

        @functools.wraps(original, updated=())
        def call(*args: Any, **kwargs: Any) -> Any:
            node = self._node if threading.get_ident() == self._thread else None
            if node is None or (not self._calls and node.operation is inner.layer):
                return original(*args, **kwargs)
            begun = self._begun(inner, node)
            self._calls.append(begun)
            try:
                output = original(*args, **kwargs)
            finally:
                self._calls.pop()
            return self._on_output(begun, output)

        return call

    def _begun(self, inner: InnerLayer, node: Node) -> InnerCall:
        import tensorflow as tf

        around = self._calls[-1] if self._calls else None
        is_traced = tf.compat.v1.get_default_graph() is self._traced and not _is_vectorized()
        is_step = not is_traced or (around is not None and around.is_step)
        begun = InnerCall(
            inner=inner,
            node=node,
            around=around,
            number=inner.n_graph_calls + self._counts[inner.path],
            place=self._n_places,
            is_step=is_step,
        )
        if not is_step:
            self._counts[inner.path] += 1
            self._n_places += 1
        return begun


def _is_vectorized() -> bool:
    """Return whether this is called in the body of ``vectorized_map``, which TensorFlow traces in the same graph."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if str(frame.f_globals.get("__name__", "")).startswith("tensorflow.python.ops.parallel_for"):
            return True
        frame = frame.f_back
    return False
