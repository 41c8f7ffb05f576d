"""Chunks of the samples that are not stored are told: zarr reads its fill value for them, lost or never written."""

import logging

import numpy as np
import pytest
import zarr

from actisketch.pipeline import run

X = np.random.default_rng(271).random((40, 4), dtype=np.float32) + 0.5


def told(samples, folder, caplog):
    import keras

    caplog.set_level(logging.WARNING)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, activation="relu", name="hidden")])
    run(
        model,
        samples,
        output=folder,
        settings={"report": {"enabled": False}, "normalize": {"enabled": False}},
    )
    return [text for text in caplog.messages if "not stored" in text]


def stored(path, **layout):
    array = zarr.create_array(path, shape=X.shape, dtype="f4", **layout)
    array[:] = X
    return array


@pytest.mark.parametrize(
    ("layout", "lost", "n"),
    [
        ({"chunks": (7, 4), "fill_value": 0.5}, "c/2/0", "1 of 6 chunks"),
        ({"chunks": (7, 2), "zarr_format": 2}, "2.1", "1 of 12 chunks"),
        ({"chunks": (5, 4), "shards": (10, 4)}, "c/1/0", "2 of 8 chunks"),
    ],
    ids=["version 3", "version 2", "shards"],
)
@pytest.mark.parametrize("kind", ["path", "array"])
def test_a_lost_chunk_is_told(tmp_path, caplog, layout, lost, n, kind):
    array = stored(tmp_path / "x.zarr", **layout)
    (tmp_path / "x.zarr" / lost).unlink()
    messages = told(tmp_path / "x.zarr" if kind == "path" else array, tmp_path / "run", caplog)

    assert len(messages) == 1
    assert n in messages[0]
    assert f"read as {array.fill_value}" in messages[0]


def test_of_a_whole_array_nothing_is_said(tmp_path, caplog):
    assert told(stored(tmp_path / "x.zarr", chunks=(7, 4)), tmp_path / "run", caplog) == []
