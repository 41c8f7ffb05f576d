"""A point that is one number for each sample has one channel, in every stage."""

import keras
import numpy as np
import pytest

from actisketch.pipeline import run

X = np.random.default_rng(3).random((40, 6), dtype=np.float32)

ENDS = {
    "sum": lambda h: keras.ops.sum(h, axis=-1),
    "reshape": lambda h: keras.layers.Reshape(())(keras.layers.Dense(1)(h)),
    "mean": lambda h: keras.ops.mean(h, axis=-1),
    "squeezed": lambda h: keras.ops.squeeze(keras.layers.Dense(1)(h), axis=-1),
    "beside another output": lambda h: [keras.ops.sum(h, axis=-1), h],
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_it_is_recorded_certified_and_reported_per_channel(tmp_path, end):
    keras.utils.set_random_seed(3)
    x = keras.Input((6,))
    model = keras.Model(x, end(keras.layers.Dense(4, "relu")(x)))
    result = run(model, X, output=tmp_path / "run", points="all", per_channel=True, percentile=100)
    outputs = model.predict(X, verbose=0)
    numbers = outputs[0] if isinstance(outputs, list) else outputs
    (point,) = [spec.name for spec in result.cache.spec.points if spec.shape == ()]

    assert numbers.shape == (40,)
    assert result.percentile(point, 100.0).value == pytest.approx(numbers.max(), rel=1e-5)
    assert result.certificate()["passed"]
    assert (tmp_path / "run" / "report" / "index.html").exists()
