"""Activations kept on disk: reloaded if they are right, else recorded anew; no file of the user is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from actisketch.pipeline.conversion import get_activations_layer, try_reload_activations
from actisketch.storage.errors import FormatError, InputError, MismatchError


def reload(model: Any, data: Any, folder: Path, *, layer: str = "second") -> Any:
    return try_reload_activations(model.get_layer(layer), model, data, 10, folder)


def test_activations_are_recorded_once_and_reloaded(
    small_model: Any, small_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = reload(small_model, small_data, tmp_path)
    calls: list[int] = []

    def hand_over(*_: object) -> None:
        calls.append(1)

    monkeypatch.setattr("actisketch.pipeline.record.producer.KerasProducer.hand_over", hand_over)
    second, other = (
        reload(small_model, small_data, tmp_path),
        reload(small_model, small_data, tmp_path, layer="first"),
    )

    assert (first.shape, other.shape) == ((50, 7), (50, 8))
    np.testing.assert_array_equal(first, second)
    assert not calls


@pytest.mark.parametrize("what", ["weights", "samples"])
def test_a_stale_cache_is_recomputed_with_a_warning(
    what: str, small_model: Any, small_data: Any, tmp_path: Path
) -> None:
    reload(small_model, small_data, tmp_path)
    if what == "weights":
        small_model.get_layer("first").kernel.assign(small_model.get_layer("first").kernel * 2)
    else:
        small_data = small_data[::-1].copy()
    with pytest.warns(RuntimeWarning, match="not used and computed again"):
        found = reload(small_model, small_data, tmp_path)

    oracle = keras.Model(small_model.inputs[0], small_model.get_layer("second").output)(small_data[:50])
    np.testing.assert_allclose(found, oracle, rtol=1e-6)


@pytest.mark.parametrize(
    "where", ["without a cache", "beside a stale cache", "in an array of it", "behind a link"]
)
def test_a_file_of_the_user_is_never_removed_with_a_stale_cache(
    where: str, small_model: Any, small_data: Any, tmp_path: Path
) -> None:
    cache = tmp_path / "actisketch" / "cache"
    cache.mkdir(parents=True)
    if where != "without a cache":
        cache.rmdir()
        reload(small_model, small_data, tmp_path)
    if where == "behind a link":
        cache.rename(tmp_path / "elsewhere")
        cache.symlink_to(tmp_path / "elsewhere")
    mine = cache / "first" / "thesis.txt" if where == "in an array of it" else cache / "thesis.txt"
    mine.write_text("mine")
    before = sorted(cache.rglob("*"))
    with (
        pytest.warns(RuntimeWarning, match="computed again"),
        pytest.raises(MismatchError, match="is not part of a cache: move it elsewhere"),
    ):
        reload(small_model, small_data[::-1].copy(), tmp_path)

    assert mine.read_text() == "mine"
    assert sorted(cache.rglob("*")) == before


def test_without_samples_what_is_stored_is_given_if_the_network_is_the_same(
    small_model: Any, small_data: Any, tmp_path: Path
) -> None:
    assert reload(small_model, None, tmp_path) is None
    stored = reload(small_model, small_data, tmp_path)

    np.testing.assert_array_equal(reload(small_model, None, tmp_path), stored)
    small_model.get_layer("first").bias.assign(np.ones(8))
    with pytest.warns(RuntimeWarning, match="of another network"):
        assert reload(small_model, None, tmp_path) is None


def test_a_file_of_the_toolbox_is_used_if_it_is_right_and_recomputed_if_not(
    small_model: Any, small_data: Any, tmp_path: Path
) -> None:
    right = get_activations_layer(small_model.inputs[0], small_model.get_layer("second").output, small_data)
    right[20:30] = 7.0  # neither the first nor the last batch: shows where the answer comes from
    np.savez_compressed(tmp_path / "second.npz", right)
    np.testing.assert_array_equal(reload(small_model, small_data, tmp_path), right)

    np.savez_compressed(tmp_path / "second.npz", right * 1.01)
    with pytest.warns(RuntimeWarning, match="another network or other samples"):
        found = reload(small_model, small_data, tmp_path)
    assert not (found == 7.0).any()


@pytest.mark.parametrize("batch_size", [4, 8, 5])
def test_a_right_file_is_used_whatever_the_number_of_channels(batch_size: int, tmp_path: Path) -> None:
    # Keras' add takes the one value of each of 4 samples for a bias of 4 channels, where it knows how many there are.
    x = keras.Input((6,))
    wide, gate = keras.layers.Dense(4, name="wide")(x), keras.layers.Dense(1, name="gate")(x)
    both = keras.layers.Add(name="both")([wide, gate])
    model = keras.Model(x, keras.layers.Dense(2, name="last")(both))
    samples = np.random.default_rng(263).random((40, 6), dtype=np.float32)
    right = sum(
        samples @ np.asarray(layer.kernel) for layer in (model.get_layer("wide"), model.get_layer("gate"))
    )
    right[batch_size:-batch_size] = (
        7.0  # neither the first nor the last batch: shows where the answer comes from
    )
    np.savez_compressed(tmp_path / "both.npz", right)

    found = try_reload_activations(model.get_layer("both"), model, samples, batch_size, tmp_path)

    np.testing.assert_array_equal(found, right)


def test_samples_that_the_network_refuses_are_named_beside_a_file_too(tmp_path: Path) -> None:
    x = keras.Input((3,), dtype="int32")
    table = keras.layers.Embedding(5, 2, name="table")
    model = keras.Model(x, keras.layers.Dense(2, name="last")(table(x)))
    samples = np.full((8, 3), 4, np.int32)
    samples[6, 1] = 5
    np.savez_compressed(tmp_path / "table.npz", np.asarray(table(np.full((8, 3), 4))))

    with pytest.raises(InputError, match=r"the samples 4 to 7 at its layer 'table': indices\[2,1\] = 5"):
        try_reload_activations(table, model, samples, 4, tmp_path)


def test_a_file_of_the_toolbox_without_samples_is_read_with_a_warning(
    small_model: Any, tmp_path: Path
) -> None:
    np.savez_compressed(tmp_path / "second.npz", np.ones((20, 7)))
    with pytest.warns(RuntimeWarning, match="does not say which network"):
        assert reload(small_model, None, tmp_path).shape == (20, 7)


@pytest.mark.parametrize("damage", ["cut", "empty"])
def test_a_damaged_file_of_the_toolbox_is_named(
    damage: str, small_model: Any, small_data: Any, tmp_path: Path
) -> None:
    np.savez_compressed(tmp_path / "second.npz", np.ones((20, 7)))
    content = (tmp_path / "second.npz").read_bytes()
    (tmp_path / "second.npz").write_bytes(b"" if damage == "empty" else content[: len(content) // 2])

    with pytest.warns(RuntimeWarning, match="does not say"), pytest.raises(FormatError, match=r"second\.npz"):
        reload(small_model, None, tmp_path)
    with pytest.warns(RuntimeWarning, match="computed again"):
        assert reload(small_model, small_data, tmp_path).shape == (50, 7)


def test_a_file_that_holds_what_the_layer_alone_gives_is_used(small_data: Any, tmp_path: Path) -> None:
    x = keras.Input((6,))
    dense = keras.layers.Dense(4, name="dense")
    model = keras.Model(x, keras.layers.Dense(2, name="out")(keras.layers.ReLU()(dense(x))))
    alone = np.asarray(dense(small_data[:50]))
    assert (alone < 0).any()
    np.savez_compressed(tmp_path / "dense.npz", alone)

    found = try_reload_activations(dense, model, small_data, 10, tmp_path)

    np.testing.assert_array_equal(found, alone)
