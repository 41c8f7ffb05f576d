"""What a job says where it cannot do all: layers without a rule, layers that stay, blocks of another size."""

import re

import keras
import numpy as np
import pytest
from keras import layers

from actisketch.pipeline import open_run, run
from actisketch.storage.errors import InputError, MismatchError

SAMPLES = np.random.default_rng(23).normal(size=(40, 6)).astype(np.float32)


@keras.saving.register_keras_serializable("left_as_they_are")
class Squared(layers.Layer):
    """No f(a x) = a f(x): it has no rule. Two layers inside."""

    def __init__(self, **settings):
        super().__init__(**settings)
        self.inner, self.outer = (
            layers.Dense(4, activation="relu", name="inner"),
            layers.Dense(4, name="outer"),
        )

    def build(self, shape):
        self.inner.build(shape)
        self.outer.build((*shape[:-1], 4))

    def call(self, x):
        return self.outer(self.inner(x) ** 2)


def network(n_blocks):
    x = inputs = keras.Input((6,))
    for i in range(n_blocks):
        x = Squared(name=f"block{i}")(x)
    return keras.Model(inputs, layers.Softmax(name="soft")(x))


@pytest.mark.parametrize("n_blocks", [1, 2])
def test_a_network_without_rules_is_refused_with_a_way_out_that_works(tmp_path, n_blocks):
    options = {"output": tmp_path / "run", "points": "leaves", "batch_size": 8}
    with pytest.raises(InputError) as refused:
        run(network(n_blocks), SAMPLES, **options)

    assert "normalize=False (--no-normalize, normalize.enabled = false)" in str(refused.value)
    assert not (tmp_path / "run").exists()
    found = run(
        network(n_blocks), SAMPLES, **options, normalize=False, settings={"report": {"enabled": False}}
    )
    assert found.points == tuple(f"block{i}/{name}" for i in range(n_blocks) for name in ("inner", "outer"))


def test_a_way_out_is_offered_for_layers_only(tmp_path):
    settings = {"normalize": {"pin": ["nothing"]}}
    with pytest.raises(InputError) as refused:
        run(network(1), SAMPLES, output=tmp_path / "run", batch_size=8, settings=settings)

    assert "--no-normalize" not in str(refused.value)


def test_a_run_of_which_nothing_was_divided_says_so_everywhere(tmp_path, call):
    model, data = tmp_path / "net.keras", tmp_path / "x.npz"
    network(1).save(model)
    np.savez(data, x=SAMPLES)
    (tmp_path / "job.toml").write_text(
        'output = "run"\n[model]\npath = "net.keras"\n[data]\npath = "x.npz"\n'
        '[record]\nbatch_size = 8\npoints = "leaves"\n[normalize]\npin = ["Squared"]\n'
    )
    answer = call("run", tmp_path / "job.toml", "--unsafe-model")
    page = (tmp_path / "run" / "report" / "index.html").read_text()
    lead = re.search(r'<p class="lead">([^<]*)', page)[1]

    assert answer.code == 0, answer.err
    assert "2 points inside other layers: nothing in the network is divided by these factors" in answer.out
    assert "Nothing was normalised" in page
    assert "were rescaled" not in lead
    assert "No layer of the network was divided by its factor" in lead


def test_a_run_that_was_normalised_does_not_speak_of_layers_that_stay(call, small_files):
    answer = call("run", small_files["job"])

    assert answer.code == 0, answer.err
    assert "inside other layers" not in answer.out


def test_another_batch_size_names_the_cache_that_is_there(small_model, small_data, tmp_path):
    settings = {"record": {"block_samples": 16}, "report": {"enabled": False}}
    run(small_model, small_data, output=tmp_path / "run", batch_size=8, settings=settings)
    before = open_run(tmp_path / "run").factors()
    with pytest.raises(MismatchError) as refused:
        run(small_model, small_data, output=tmp_path / "run", batch_size=12, settings=settings)

    assert "begun with batch_size=8, in blocks of 16 samples" in str(refused.value)
    assert "batch_size=8 (--batch-size 8), or choose another output folder" in str(refused.value)
    assert open_run(tmp_path / "run").factors() == before
