"""A network with an Add, as a user of the command line meets it: caches of earlier programs, one set of factors."""

import keras
import numpy as np
import pytest

layers = keras.layers


def make_network():
    """A residual block: what the stem gives, what is added to it, a ReLU."""
    keras.utils.set_random_seed(43)
    x = keras.Input((6,))
    stem = layers.Dense(8, activation="relu", name="stem")(x)
    total = layers.Add(name="sum")([stem, layers.Dense(8, activation="relu", name="branch")(stem)])
    model = keras.Model(
        x, layers.Dense(3, activation="softmax", name="classes")(layers.ReLU(name="relu")(total))
    )
    model.get_layer("branch").kernel.assign(model.get_layer("branch").kernel * 3)
    return model


@pytest.fixture
def residual(tmp_path):
    """A residual network, samples, and a job file for them."""
    make_network().save(tmp_path / "net.keras")
    np.save(tmp_path / "x.npy", np.random.default_rng(43).random((67, 6), dtype=np.float32))
    (tmp_path / "job.toml").write_text(
        'output = "run"\n[model]\npath = "net.keras"\n[data]\npath = "x.npy"\n[report]\nenabled = false\n'
    )
    return tmp_path


def cache_of(folder):
    return {path: path.read_bytes() for path in (folder / "cache").rglob("*") if path.is_file()}


def test_a_cache_without_the_merges_says_how_to_go_on_with_it_and_that_works(call, residual):
    job, folder = residual / "job.toml", residual / "run"
    # What an earlier program recorded by default.
    assert call("run", job, "--points", "parameters").code == 0
    before = cache_of(folder)

    for verb in ("plan", "run"):
        refused = call(verb, job)
        assert refused.code == 3
        assert "without 'sum'" in refused.err
        assert "record.points = 'parameters' (--points parameters)" in refused.err
        assert "another output folder" in refused.err
    assert cache_of(folder) == before

    assert "nothing was recomputed" in call("run", job, "--points", "parameters").out
    assert call("normalize", folder).code == 0
    assert cache_of(folder) == before
    new = call("run", job, "--output", residual / "new")
    assert new.code == 0, new.err
    assert "sum" in new.out
