"""Event files, read by TensorFlow's own reader."""

import numpy as np
import pytest
from click.testing import CliRunner

from actisketch.pipeline.cli import commands
from actisketch.storage.errors import InputError


@pytest.fixture
def histograms(small_run, tmp_path):
    """What TensorFlow reads from the file, by tag."""
    import tensorflow as tf

    folder = str(small_run["run"].folder.path)
    command = ["export", folder, "--format", "tensorboard", "--output", f"{tmp_path}/logs/"]
    done = CliRunner().invoke(commands, command)
    assert done.exit_code == 0, (done.output, done.exception)
    (path,) = (tmp_path / "logs").iterdir()
    assert "tfevents" in path.name  # TensorBoard looks for that
    first, *events = tf.compat.v1.train.summary_iterator(str(path))
    assert first.file_version == "brain.Event:2"
    return {value.tag: value.histo for event in events for value in event.summary.value}


def test_the_counts_of_every_bar_are_those_of_the_values(histograms, small_run):
    import keras

    model, x = small_run["model"], small_run["samples"]
    layers = ["conv", "hidden", "classes"]
    assert set(histograms) == {f"activations/{name}" for name in layers}
    for name in layers:
        values = (
            np.asarray(keras.Model(model.inputs[0], model.get_layer(name).output)(x))
            .ravel()
            .astype(np.float64)
        )
        found = histograms[f"activations/{name}"]
        below = [np.count_nonzero(values <= limit) for limit in found.bucket_limit]

        assert np.cumsum(found.bucket) == pytest.approx(below, abs=2)  # Keras rounds in another order
        assert (found.num, found.min) == (values.size, values.min())
        assert found.max == pytest.approx(values.max(), rel=1e-6)
        assert found.sum == pytest.approx(values.sum(), rel=1e-5)
        assert found.sum_squares == pytest.approx(np.sum(values**2), rel=1e-5)
        assert 1 < len(found.bucket) <= 200


def test_the_same_run_gives_the_same_bytes(small_run, tmp_path):
    for name in ("a", "b"):
        small_run["run"].exported("tensorboard").write(tmp_path / name)

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_file_is_refused_as_its_place(small_run, tmp_path):
    command = ["export", str(small_run["run"].folder.path), "--format", "tensorboard"]
    done = CliRunner().invoke(commands, [*command, "--output", str(tmp_path / "x.events")])

    assert isinstance(done.exception, InputError)
    assert "give a folder" in str(done.exception)
    with pytest.raises(InputError, match="is no text"):
        small_run["run"].export("tensorboard")
