"""Samples that changed since a cache was recorded are noticed, whatever they lie in; others cost nothing."""

import json
import os
import shutil

import numpy as np
import pytest

from actisketch.pipeline import activations, run
from actisketch.pipeline.events import BlockDone, SamplesDone
from actisketch.pipeline.record import producer
from actisketch.pipeline.sources import DataSpec, as_source, npyfiles, open_source, states
from actisketch.storage.errors import MismatchError

# More blocks than the 200 that were compared once; 16 samples each.
N_BLOCKS, BLOCK = 207, 16
# In a block none of whose samples was compared then, and not its first.
BEGIN = 117 * BLOCK
CHANGED = BEGIN + 7
FEW = 80
IN_ONE_BLOCK = {"record": {"block_samples": FEW, "activations": False}, "report": {"enabled": False}}


def make_samples():
    return np.random.default_rng(11).integers(0, 200, (N_BLOCKS * BLOCK, 6)).astype(np.uint8)


def as_memory(folder, x):
    return x.copy()


def as_list(folder, x):
    return [np.asfortranarray(x)]


def as_npy(folder, x):
    np.save(folder / "x.npy", x)
    return folder / "x.npy"


def as_fortran(folder, x):
    np.save(folder / "x.npy", np.asfortranarray(x))
    return folder / "x.npy"


def as_npz(folder, x):
    np.savez(folder / "x.npz", x=x)
    return folder / "x.npz"


def as_compressed(folder, x):
    np.savez_compressed(folder / "x.npz", x=x)
    return folder / "x.npz"


def as_map(folder, x):
    np.save(folder / "x.npy", x)
    return np.load(folder / "x.npy", mmap_mode="r")


def as_writable_map(folder, x):
    np.save(folder / "x.npy", x)
    return np.load(folder / "x.npy", mmap_mode="r+")


def as_zarr(folder, x):
    import zarr

    return zarr.create_array(folder / "x.zarr", data=x, chunks=(100, 6), overwrite=True)


def as_dataset(folder, x):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(x).batch(64)


def as_function(folder, x):
    return lambda: (x[i : i + 50] for i in range(0, len(x), 50))


def as_records(folder, x):
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(folder / "x.tfrecord")) as writer:
        for row in x:
            feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[row.tobytes()]))
            example = tf.train.Example(features=tf.train.Features(feature={"x": feature}))
            writer.write(example.SerializeToString())
    return open_source(
        DataSpec(path=str(folder / "x.tfrecord"), features={"x": {"shape": (6,), "dtype": "uint8"}})
    )


def as_sampled_records(folder, x):
    path = as_records(folder, x).reader._files[0].path
    features = {"x": {"shape": (6,), "dtype": "uint8"}}
    return open_source(DataSpec(path=path, features=features, fingerprint="sampled"))


def as_zarr_in_one_chunk(folder, x):
    import zarr

    return zarr.create_array(folder / "x.zarr", data=x, chunks=x.shape, overwrite=True)


def as_zipped_zarr(folder, x):
    import zarr

    with zarr.storage.ZipStore(folder / "new.zip", mode="w") as store:
        zarr.create_array(store, data=x, chunks=x.shape)
    os.replace(folder / "new.zip", folder / "x.zarr.zip")
    return folder / "x.zarr.zip"


def as_replaced_npy(folder, x):
    np.save(folder / "new.npy", x)
    os.replace(folder / "new.npy", folder / "x.npy")
    return folder / "x.npy"


def as_images(folder, x):
    from PIL import Image

    (folder / "images").mkdir(exist_ok=True)
    for index, row in enumerate(x):
        path = folder / "images" / f"{index:05d}.png"
        if not path.exists() or np.asarray(Image.open(path)).ravel().tolist() != row.tolist():
            Image.fromarray(row.reshape(1, 6)).save(path)
    return open_source(DataSpec(path=str(folder / "images"), color_mode="grayscale"))


KINDS = [
    as_memory, as_list, as_npy, as_fortran, as_npz, as_compressed, as_map, as_writable_map, as_zarr, as_dataset,
    as_function, as_records, as_images,
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def files_count_as_old():
    """So that a file which a test has just written is remembered as one that was written days ago."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(states, "RECENT_NS", 0)
        yield


def run_on(model, data, output, n_samples=FEW, **settings):
    more = {"num_samples": n_samples} if callable(data) else {}
    tables = {
        "record": {"block_samples": BLOCK, "activations": False},
        "report": {"enabled": False},
        **settings,
    }
    events = []
    result = run(
        model, data, output=output, batch_size=BLOCK, normalize=False, settings=tables, on_event=events.append, **more
    )  # fmt: skip
    return result, sum(isinstance(event, BlockDone) for event in events)


def write_row(path, row, values):
    """Write over a sample of the few in a .npy file."""
    with path.open("r+b") as file:
        file.seek((row - FEW) * values.nbytes, os.SEEK_END)
        file.write(values.tobytes())


def model_for(make):
    import keras

    keras.utils.set_random_seed(5)
    layers = [keras.layers.Dense(3, "relu", name="first")]
    if make is as_images:
        return keras.Sequential([keras.Input((1, 6, 1)), keras.layers.Flatten(), *layers])
    return keras.Sequential([keras.Input((6,)), *layers])


@pytest.mark.parametrize("make", [as_memory, as_npy, as_function])
def test_one_changed_sample_of_any_of_many_blocks_is_noticed(make, tmp_path):
    x, model = make_samples(), model_for(make)
    _, n_first = run_on(model, make(tmp_path, x), tmp_path / "run", len(x))
    _, n_again = run_on(model, make(tmp_path, x), tmp_path / "run", len(x))
    x[CHANGED] = 255 - x[CHANGED]

    assert (n_first, n_again) == (N_BLOCKS, 0)
    with pytest.raises(MismatchError, match=rf"samples {BEGIN} to {BEGIN + BLOCK - 1} are not those"):
        run_on(model, make(tmp_path, x), tmp_path / "run", len(x))


@pytest.mark.parametrize("make", KINDS)
def test_one_changed_sample_of_a_large_block_is_noticed(make, tmp_path, monkeypatch):
    """As if 3 rows of 6 bytes were 32 MiB: of a block so large few samples were hashed, 0, 7 and 15 or only two."""
    from actisketch.pipeline.sources import prepared

    monkeypatch.setattr(prepared, "HASH_BUDGET_NBYTES", 3 * 6)
    x, model = make_samples()[:FEW], model_for(make)
    _, n_first = run_on(model, make(tmp_path, x), tmp_path / "run")
    _, n_again = run_on(model, make(tmp_path, x), tmp_path / "run")
    x[19] = 255 - x[19]

    assert (n_first, n_again) == (FEW // BLOCK, 0)
    with pytest.raises(MismatchError, match="samples 16 to 31 are not those"):
        run_on(model, make(tmp_path, x), tmp_path / "run")


@pytest.mark.parametrize("make", [as_memory, as_map, as_images])
def test_a_sample_that_is_written_to_while_its_block_is_computed_is_noticed(make, tmp_path, monkeypatch):
    """The hash of a block is of what the network was given, not of what the file holds afterwards."""
    monkeypatch.setattr(producer, "MOST_AHEAD", 1)  # so that samples are changed before all are read
    x, model = make_samples()[:FEW], model_for(make)
    data = make(tmp_path, x)
    x[3] = 255 - x[3]

    def change(event):
        if event == SamplesDone(n_done=8):
            if make is as_memory:
                data[3] = x[3]
            elif make is as_map:
                write_row(tmp_path / "x.npy", 3, x[3])
            else:
                make(tmp_path, x)

    asked = {"output": tmp_path / "run", "batch_size": 8, "normalize": False, "settings": IN_ONE_BLOCK}
    run(model, data, **asked, on_event=change)

    with pytest.raises(MismatchError, match="samples 0 to 79 are not those"):
        run(model, data, **asked)


@pytest.mark.parametrize("is_same", [False, True])
def test_a_block_that_was_recorded_from_samples_as_they_were_before_ends_the_job(tmp_path, is_same):
    """Half of the blocks of the samples before and half of those after are the activations of nothing."""
    x, model = make_samples()[:FEW], model_for(as_npy)
    path = as_npy(tmp_path, x)
    row = x[3] if is_same else 255 - x[3]

    def change(event):
        if isinstance(event, BlockDone) and event.block == 0:
            write_row(path, 3, row)

    asked = {"output": tmp_path / "run", "batch_size": 8, "normalize": False, "on_event": change}
    settings = {"record": {"block_samples": 16}, "report": {"enabled": False}}
    if is_same:
        assert run(model, path, settings=settings, **asked).status().n_blocks_done == 5
    else:
        with pytest.raises(MismatchError, match="samples 0 to 15 are not those"):
            run(model, path, settings=settings, **asked)


@pytest.mark.parametrize(
    "make", [as_npy, as_fortran, as_npz, as_compressed, as_map, as_zarr, as_records, as_images]
)
def test_files_that_were_not_touched_are_not_read_again(make, tmp_path, monkeypatch):
    """Only the first sample, which tells the data apart, and the few that are described to the user."""
    x, model = make_samples()[:FEW], model_for(make)
    data, read = make(tmp_path, x), set()
    run_on(model, data, tmp_path / "run")
    kind = type(getattr(data, "reader", None) or as_source(data).reader)
    row_hashes, rows = kind.row_hashes, kind.rows
    monkeypatch.setattr(
        kind, "row_hashes", lambda self, which: (read.update(which), row_hashes(self, which))[1]
    )
    monkeypatch.setattr(kind, "rows", lambda self, *part: (read.update(range(*part)), rows(self, *part))[1])
    _, n_again = run_on(model, data, tmp_path / "run")

    assert n_again == 0
    assert read <= set(range(8))


@pytest.mark.parametrize("keep_date", [os.utime, shutil.copystat], ids=["set back", "copied"])
def test_a_file_with_the_date_of_the_one_before_is_noticed(tmp_path, keep_date):
    x, model = make_samples()[:FEW], model_for(as_npy)
    path = as_npy(tmp_path, x)
    shutil.copy2(path, tmp_path / "kept.npy")
    run_on(model, path, tmp_path / "run")
    x[19] = 255 - x[19]
    with path.open("r+b") as file:
        file.seek(-x.nbytes, os.SEEK_END)
        file.write(x.tobytes())
    if keep_date is os.utime:
        at = (tmp_path / "kept.npy").stat()
        os.utime(path, ns=(at.st_atime_ns, at.st_mtime_ns))
    else:
        shutil.copystat(tmp_path / "kept.npy", path)

    assert path.stat().st_mtime_ns == (tmp_path / "kept.npy").stat().st_mtime_ns
    with pytest.raises(MismatchError, match="samples 16 to 31"):
        run_on(model, path, tmp_path / "run")


@pytest.mark.parametrize("move", [shutil.copyfile, os.rename])
def test_the_same_samples_elsewhere_are_the_same_data(tmp_path, move):
    x, model = make_samples()[:FEW], model_for(as_npy)
    run_on(model, as_npy(tmp_path, x), tmp_path / "run")
    move(tmp_path / "x.npy", tmp_path / "y.npy")

    assert run_on(model, tmp_path / "y.npy", tmp_path / "run")[1] == 0
    assert run_on(model, x, tmp_path / "run")[1] == 0


def test_files_that_were_written_in_these_seconds_are_not_remembered(tmp_path, monkeypatch):
    """Written again within one tick of the clock, they would keep size and date."""
    monkeypatch.setattr(states, "RECENT_NS", 3600 * 10**9)
    x, model = make_samples()[:32], model_for(as_npy)
    run_on(model, as_npy(tmp_path, x), tmp_path / "run")

    assert "samples" not in json.loads((tmp_path / "run" / "run.json").read_text())


def test_a_cache_that_another_run_recorded_anew_is_compared(tmp_path):
    x, model = make_samples()[:FEW], model_for(as_memory)
    changed = x.copy()
    changed[19] = 255 - x[19]
    cache = {"cache": {"url": str(tmp_path / "cache")}}
    run_on(model, x, tmp_path / "first", **cache)
    shutil.rmtree(tmp_path / "cache")
    run_on(model, changed, tmp_path / "second", **cache)

    with pytest.raises(MismatchError, match="samples 16 to 31"):
        run_on(model, x, tmp_path / "first", **cache)


def test_an_input_factor_that_was_measured_on_other_samples_is_measured_again(tmp_path):
    x, model = make_samples()[:FEW], model_for(as_memory)
    measured = {"normalize": {"enabled": False, "input_factor": "measured"}, "factors": {"percentile": 100}}
    before = run_on(model, x, tmp_path / "run", **measured)[0].written_factors().input_factor
    shutil.rmtree(tmp_path / "run" / "cache")
    x[19] = 255
    after = run_on(model, x, tmp_path / "run", **measured)[0].written_factors().input_factor

    assert before == make_samples()[:FEW].max()
    assert after == 255


READ_AS_THEY_ARE = [
    as_npy, as_npz, as_compressed, as_zarr, as_zarr_in_one_chunk, as_records, as_sampled_records, as_images,
]  # fmt: skip
HELD_OPEN = [as_replaced_npy, as_zipped_zarr]


@pytest.mark.parametrize(
    ("make", "keep"), [(as_compressed, 10), *((make, 2**30) for make in READ_AS_THEY_ARE + HELD_OPEN)]
)
def test_a_source_that_outlives_its_file_is_not_noted_as_the_file_that_came_after(
    make, keep, tmp_path, monkeypatch
):
    """The first sample, which tells the data apart, stays."""
    monkeypatch.setattr(npyfiles, "KEEP_NBYTES", keep)
    x, model = make_samples()[:FEW], model_for(make)
    source = as_source(make(tmp_path, x))
    assert run_on(model, source, tmp_path / "first")[1] == FEW // BLOCK
    x[1:] = 255 - x[1:]
    fresh = as_source(make(tmp_path, x))
    activations(model, source, output=tmp_path / "second", progress=False)

    if make in HELD_OPEN:
        with pytest.raises(MismatchError, match="samples 0 to 31 are not those"):
            activations(model, fresh, output=tmp_path / "second", progress=False)
        return
    recorded = activations(model, fresh, output=tmp_path / "second", progress=False)
    expected = model.predict(x.reshape(source.read(0, FEW).inputs[0].shape).astype(np.float32), verbose=0)
    np.testing.assert_allclose(recorded["first"], expected, rtol=1e-5, atol=1e-4)
    with pytest.raises(MismatchError, match="samples 0 to 15 are not those"):
        run_on(model, source, tmp_path / "first")
