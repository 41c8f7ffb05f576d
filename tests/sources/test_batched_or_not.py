"""Whether the elements of a tf.data.Dataset are batches or samples is read from it: open axes alone do not say."""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from actisketch.pipeline.sources import as_source

X = np.arange(6 * 5 * 4 * 3, dtype=np.float32).reshape(6, 5, 4, 3)
Y = np.arange(6)


def opened(x: Any) -> Any:
    """Return the same image with its size forgotten, as a decoder of JPEG gives it."""
    return tf.ensure_shape(tf.py_function(lambda value: value, [x], tf.float32), (None, None, 3))


def images() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(X).map(opened)


def labelled(labels: Any) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((X, labels)).map(lambda x, y: (opened(x), y))


def of_batches(signature: Any, elements: Callable[[], Any]) -> tf.data.Dataset:
    return tf.data.Dataset.from_generator(elements, output_signature=signature)


BATCH = tf.TensorSpec((None, 5, 4, 3))
OPEN = tf.TensorSpec((None, None, None, 3))
CLASSES = tf.TensorSpec((None,), tf.int64)
CASES = {
    "labels": labelled(Y),
    "one-hot": labelled(np.eye(6, dtype=np.float32)),
    "weights": tf.data.Dataset.from_tensor_slices((X, Y, Y)).map(lambda x, y, w: (opened(x), y, w)),
    "dict": labelled(Y).map(lambda x, y: ({"image": x}, y)),
    "zipped": tf.data.Dataset.zip((images(), tf.data.Dataset.from_tensor_slices(Y))),
    "prefetched": labelled(Y).prefetch(2).take(6),
    "unbatched": images().batch(4).unbatch(),
    "batched": labelled(Y).batch(4),
    "batched without labels": images().batch(4),
    "batched, dropping none": images().batch(3, drop_remainder=True),
    "batched, then mapped": images().batch(4).map(lambda x: x + 0),
    "padded": images().padded_batch(4),
    "generator of batches": of_batches(BATCH, lambda: iter([X[:4], X[4:]])),
    "generator of batches with labels": of_batches(
        (OPEN, CLASSES), lambda: iter([(X[:4], Y[:4]), (X[4:], Y[4:])])
    ),
    "batches taken apart and put together": images()
    .batch(3)
    .flat_map(tf.data.Dataset.from_tensor_slices)
    .batch(2),
    "batches of an index": tf.data.Dataset.range(3).map(lambda i: tf.constant(X)[2 * i : 2 * i + 2]),
}


@pytest.mark.parametrize("data", CASES.values(), ids=CASES)
def test_elements_are_told_apart(data: Any) -> None:
    source = as_source(data)

    assert source.n_samples == 6
    np.testing.assert_array_equal(source.read(1, 6).inputs[0], X[1:])


def test_labels_go_with_their_samples() -> None:
    np.testing.assert_array_equal(as_source(labelled(Y)).read(2, 5).labels, Y[2:5])


def test_what_nothing_says_is_a_guess_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        as_source(images())
    told = caplog.text

    assert r"(None, None, 3) are taken for batches" in told
    assert "as_source(data, batched=False)" in told
    np.testing.assert_array_equal(as_source(images(), batched=False).read(0, 6).inputs[0], X)
