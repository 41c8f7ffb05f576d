"""A batch from the middle of a data set reaches TensorFlow's kernels in memory that they can use."""

import numpy as np
import pytest

from actisketch.pipeline.graph import aligned


@pytest.mark.parametrize("offset", [0, 1, 3, 16])
@pytest.mark.parametrize("dtype", ["float32", "int32", "float64"])
def test_any_slice_comes_out_aligned_and_equal(offset, dtype):
    rows = np.arange(40 * 6, dtype=np.float32).reshape(40, 6)[offset : offset + 8]
    out = aligned(rows, dtype)

    assert out.ctypes.data % 64 == 0
    assert out.dtype == dtype
    assert np.array_equal(out, rows)


def test_aligned_memory_is_not_copied():
    rows = aligned(np.ones((4, 16), np.float32)[1:], "float32")

    assert aligned(rows, "float32") is rows


def test_transposed_and_empty_arrays_are_fine():
    rows = np.arange(12, dtype=np.float32).reshape(3, 4).T

    assert np.array_equal(aligned(rows, "float32"), rows)
    assert aligned(np.ones((0, 5), np.float32), "float32").shape == (0, 5)


def test_a_dense_layer_takes_rows_from_any_address(warm_python):
    """In a process of its own: what went wrong here aborted the interpreter."""
    code = """
import numpy as np, keras
from actisketch.pipeline import read_graph
from actisketch.pipeline.graph import forward_function, input_tensor, select_points
import tensorflow as tf
model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(7)])
graph = read_graph(model)
forward = tf.function(forward_function(graph, select_points(graph)))
rows = np.random.default_rng(0).random((64, 6), dtype=np.float32)
for start in range(40):
    forward([input_tensor(rows[start:start + 8], "float32")])
print("fine")
"""

    assert warm_python.told("-c", code) == "fine"
