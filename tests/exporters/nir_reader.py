"""A reader of NIR graphs in numpy: what the nodes compute by NIR's definition, over time or at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import nir
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view


def _windows(x: np.ndarray, size: Any, stride: Any, padding: Any, dilation: Any = (1, 1)) -> np.ndarray:
    """Windows of maps (samples, channels, height, width), of shape (n, c, h, w, kernel height, kernel width)."""
    (ph, pw), (kh, kw), (dh, dw) = (tuple(map(int, each)) for each in (padding, size, dilation))
    padded = np.pad(x, ((0, 0), (0, 0), (ph, ph), (pw, pw)))
    all_of_them = sliding_window_view(padded, ((kh - 1) * dh + 1, (kw - 1) * dw + 1), axis=(2, 3))
    return all_of_them[:, :, :: int(stride[0]), :: int(stride[1]), ::dh, ::dw]


def _convolved(node: nir.Conv2d, x: np.ndarray) -> np.ndarray:
    n_out, per_group = node.weight.shape[0] // node.groups, node.weight.shape[1]
    windows = _windows(x, node.weight.shape[2:], node.stride, node.padding, node.dilation)
    found = [
        np.einsum(
            "nchwij,ocij->nohw",
            windows[:, g * per_group : (g + 1) * per_group],
            node.weight[g * n_out : (g + 1) * n_out],
            optimize=True,
        )
        for g in range(node.groups)
    ]
    return np.concatenate(found, axis=1) + node.bias[:, None, None]


def _computed(node: Any, x: np.ndarray) -> np.ndarray:
    if isinstance(node, nir.Conv2d):
        return _convolved(node, x)
    if isinstance(node, nir.Affine):
        return x @ node.weight.T + node.bias
    if isinstance(node, nir.Flatten):
        return x.reshape(len(x), -1)
    if isinstance(node, nir.SumPool2d):
        return _windows(x, node.kernel_size, node.stride, node.padding).sum(axis=(4, 5))
    if isinstance(node, nir.AvgPool2d):
        return _windows(x, node.kernel_size, node.stride, node.padding).mean(axis=(4, 5))
    assert isinstance(node, nir.Output), type(node)
    return x


def _order(graph: Any) -> list[str]:
    waiting = {name: {a for a, b in graph.edges if b == name} for name in graph.nodes}
    order: list[str] = []
    while waiting:
        ready = [name for name, needs in waiting.items() if needs <= set(order)]
        assert ready, "a circle"
        order += ready
        for name in ready:
            del waiting[name]
    return order


def _step(graph: Any, order: list[str], given: dict[str, np.ndarray], neurons: Any) -> dict[str, np.ndarray]:
    values = dict(given)
    for name in order:
        if name in given:
            continue
        x = sum(values[a] for a, b in graph.edges if b == name)
        node = graph.nodes[name]
        values[name] = neurons(name, node, x) if isinstance(node, nir.IF) else _computed(node, x)
    return values


def at_once(graph: Any, given: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every node with neurons that have the rate of a ReLU, not bounded: the analog network."""
    return _step(graph, _order(graph), given, lambda _, node, x: np.maximum(x, 0) / node.v_threshold)


def over_time(graph: Any, given: dict[str, np.ndarray], n_steps: int) -> Iterator[np.ndarray]:
    """Yield the sum of the output after each step, of integrate-and-fire neurons with soft reset."""
    order, potentials, total = _order(graph), {}, 0.0

    def fire(name: str, node: Any, x: np.ndarray) -> np.ndarray:
        potential = potentials.get(name, 0.0) + node.r * x
        spikes = (potential > node.v_threshold).astype(np.float32)
        potentials[name] = potential - spikes * node.v_threshold
        return spikes

    for _ in range(n_steps):
        total = total + _step(graph, order, given, fire)["output"]
        yield total
