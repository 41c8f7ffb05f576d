"""The Python calls, with every kind of model and data that they promise to take."""

import numpy as np
import pytest

from actisketch.pipeline import open_run, plan, run
from actisketch.pipeline.events import StageDone
from actisketch.storage.errors import InputError

QUICK = {"report": {"enabled": False}}
RNG = np.random.default_rng(13)


def check(result, points):
    """A run that is finished, certified, and has these points."""
    certificate = result.certificate()
    assert certificate is not None
    assert certificate["passed"] is True
    assert list(result.points) == points
    return result


def test_a_model_in_memory_and_an_array_give_percentiles_factors_and_a_network(
    tmp_path, small_model, small_data
):
    weights = [w.copy() for w in small_model.get_weights()]
    result = check(
        run(small_model, small_data, output=tmp_path / "r", batch_size=8, percentile=100, settings=QUICK),
        ["first", "second", "classes"],
    )
    import keras

    first = keras.Model(small_model.inputs, small_model.layers[0].output).predict(small_data, verbose=0)
    normalised = keras.saving.load_model(result.folder.network_path)

    assert result.factors().by_point()["first"] == pytest.approx(first.max(), rel=1e-6)
    assert result.percentile("first", 50.0, exact=True).value == pytest.approx(
        np.percentile(first[first > 0], 50), rel=1e-5
    )
    assert result.activations("first").shape == (53, 8)
    assert np.allclose(
        normalised.predict(small_data, verbose=0), small_model.predict(small_data, verbose=0), atol=1e-6
    )
    assert all(np.array_equal(a, b) for a, b in zip(weights, small_model.get_weights(), strict=True))


def test_labels_give_accuracy_before_and_after(tmp_path, small_model, small_data):
    labels = small_model.predict(small_data, verbose=0).argmax(axis=1)
    labels[:5] = (labels[:5] + 1) % 3
    certificate = run(small_model, small_data, labels, output=tmp_path / "r", settings=QUICK).certificate()

    assert certificate["accuracy_before"] == certificate["accuracy_after"] == pytest.approx(48 / 53)


def test_samples_are_divided_by_a_number_that_the_call_names(tmp_path, small_model, small_data):
    fast = {"output": tmp_path / "a", "normalize": False, "settings": QUICK}
    divided = run(small_model, small_data * np.float32(4), divide_by=4, **fast)
    plain = run(small_model, small_data, **{**fast, "output": tmp_path / "b"})

    assert divided.factors().by_point() == plain.factors().by_point()
    assert plan(small_model, small_data, divide_by=4).n_samples == 53


def test_a_second_call_computes_nothing(tmp_path, small_model, small_data):
    run(small_model, small_data, output=tmp_path / "r", settings=QUICK)
    events = []
    run(small_model, small_data, output=tmp_path / "r", settings=QUICK, on_event=events.append)
    done = [event for event in events if isinstance(event, StageDone)]

    assert [event.stage for event in done] == ["record", "factors", "normalize"]
    assert all(event.reloaded for event in done)


@pytest.mark.parametrize("kind", ["GroupQueryAttention", "MultiHeadAttention"])
def test_attention_needs_no_factor_and_can_be_left_out_of_the_record(tmp_path, kind):
    import keras

    layers = keras.layers
    attention = {
        "GroupQueryAttention": lambda: layers.GroupQueryAttention(3, 4, 2, name="attention"),
        "MultiHeadAttention": lambda: layers.MultiHeadAttention(2, 3, name="attention"),
    }[kind]()
    inputs = keras.Input((5, 4))
    x = layers.Dense(4, activation="relu", name="first")(inputs)
    model = keras.Model(inputs, layers.Dense(2, activation="relu", name="last")(attention(x, x)))
    samples = RNG.random((11, 5, 4), dtype=np.float32)

    def recorded(*points):
        return run(model, samples, output=tmp_path / "r", settings={**QUICK, "record": {"points": [*points]}})

    with pytest.raises(InputError, match="leaves out 'last', whose factors the normaliser needs"):
        recorded("first", "attention")
    check(recorded("first", "last"), ["first", "last"])


@pytest.mark.parametrize(
    ("stopped", "reloaded"), [("factors", "factors"), ("certify", "normalize"), ("report", "report")]
)
def test_what_was_announced_as_done_is_kept_when_the_job_is_stopped_there(
    tmp_path, small_model, small_data, stopped, reloaded
):
    def stop(event):
        if isinstance(event, StageDone) and event.stage == stopped:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(small_model, small_data, output=tmp_path / "r", on_event=stop)
    events = []
    run(small_model, small_data, output=tmp_path / "r", on_event=events.append)
    done = {event.stage: event.reloaded for event in events if isinstance(event, StageDone)}

    assert done["record"]
    assert done[reloaded]


def test_a_finished_run_is_reloaded_without_its_cluster_even_if_its_sketches_are_gone(
    tmp_path, small_model, small_data
):
    run(small_model, small_data, output=tmp_path / "r", settings=QUICK)
    sketches = (tmp_path / "r" / "sketches.npz").read_bytes()
    (tmp_path / "r" / "sketches.npz").unlink()
    gone = {**QUICK, "record": {"scheduler": "tcp://127.0.0.1:9"}}

    run(small_model, small_data, output=tmp_path / "r", settings=gone)

    assert (tmp_path / "r" / "sketches.npz").read_bytes() == sketches


def test_the_run_is_opened_again_without_model_and_data(tmp_path, small_model, small_data):
    result = run(small_model, small_data, output=tmp_path / "r", settings=QUICK)
    again = open_run(tmp_path / "r")

    assert again.written_factors() == result.written_factors() == again.factors()
    assert "3 points, 53 samples" in repr(again)


def test_a_plan_writes_nothing(tmp_path, small_model, small_data):
    planned = plan(small_model, small_data, output=tmp_path / "r")

    assert planned.activations_nbytes >= 53 * 18 * 4
    assert not (tmp_path / "r").exists()


def two_inputs():
    import keras
    from keras import layers

    keras.utils.set_random_seed(3)
    image, text = keras.Input((8, 8, 2), name="image"), keras.Input((5,), name="text")
    shared = layers.Dense(6, activation="relu", name="shared")
    inner_in = keras.Input((8, 8, 2))
    inner_out = layers.Conv2D(3, 3, activation="relu", name="conv")(inner_in)
    inner = keras.Model(inner_in, layers.GlobalMaxPooling2D()(inner_out), name="inner")
    seen = layers.Dense(5, activation="relu", name="seen")(inner(image))
    both = layers.Concatenate(name="both")([shared(text), shared(seen)])
    kind = layers.Dense(4, activation="softmax", name="kind")(both)
    size = layers.Dense(1, name="size")(both)
    return keras.Model({"image": image, "text": text}, {"kind": kind, "size": size}, name="two")


@pytest.fixture
def two_data():
    return {
        "text": RNG.random((21, 5), dtype=np.float32),
        "image": RNG.random((21, 8, 8, 2), dtype=np.float32),
    }


def test_nested_and_shared_layers_several_inputs_and_outputs(tmp_path, two_data):
    model = two_inputs()
    result = check(
        run(model, two_data, output=tmp_path / "r", batch_size=4, settings=QUICK),
        ["inner/conv", "seen", "shared", "shared:1", "kind", "size"],
    )
    import keras

    conv = keras.Model(model.get_layer("inner").inputs, model.get_layer("inner").get_layer("conv").output)
    recorded = result.activations("inner/conv")[:]

    assert np.allclose(recorded, conv.predict(two_data["image"], verbose=0), atol=1e-6)


def test_a_subclassed_model_without_a_graph_is_refused_with_a_way_out(tmp_path):
    import keras

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, x):
            return self.dense(x)

    model = Own()
    model(np.zeros((1, 6), np.float32))

    with pytest.raises(InputError, match="functional"):
        run(model, np.zeros((4, 6), np.float32), output=tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_low_precision_models_are_recorded_in_float32(tmp_path, policy, small_data):
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(8, activation="relu", name="first", dtype=policy),
            layers.Dense(3, name="last", dtype=policy),
        ]
    )
    result = run(
        model,
        small_data,
        output=tmp_path / "r",
        normalize=False,
        settings={**QUICK, "factors": {"percentile": 99.0}},
    )

    assert result.activations("first").dtype == np.float32
    assert result.percentile("first", 100.0).value > 0


def test_files_in_the_older_form_are_read(tmp_path, small_model, small_data):
    small_model.save(tmp_path / "small.h5")
    np.save(tmp_path / "x.npy", small_data)
    result = run(tmp_path / "small.h5", tmp_path / "x.npy", output=tmp_path / "r", settings=QUICK)

    check(result, ["first", "second", "classes"])


def as_tf_dataset(x):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(x).batch(7)


def as_py_dataset(x):
    import keras

    class Rows(keras.utils.PyDataset):
        def __len__(self):
            return -(-len(x) // 7)

        def __getitem__(self, index):
            rows = x[index * 7 : index * 7 + 7]
            return rows, np.zeros(len(rows))

    return Rows()


def as_zarr(x):
    import zarr

    array = zarr.create_array({}, shape=x.shape, chunks=(10, 6), dtype=x.dtype)
    array[:] = x
    return array


def as_dask(x):
    import dask.array

    return dask.array.from_array(x, chunks=(9, 3))


@pytest.mark.parametrize("kind", [as_tf_dataset, as_py_dataset, as_zarr, as_dask])
def test_every_kind_of_data_gives_the_same_bytes_as_the_array(tmp_path, small_model, small_data, kind):
    options = {"batch_size": 8, "normalize": False, "settings": QUICK}
    plain = run(small_model, small_data, output=tmp_path / "a", **options)
    other = run(small_model, kind(small_data), output=tmp_path / "b", **options)

    assert [s.to_bytes() for s in plain.sketches.values()] == [s.to_bytes() for s in other.sketches.values()]
    assert np.array_equal(plain.activations("second")[:], other.activations("second")[:])


def test_a_generator_that_can_be_read_once_is_refused_with_advice(tmp_path, small_model, small_data):
    with pytest.raises(InputError, match="once"):
        run(small_model, (row for row in small_data), output=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_images_in_folders_take_size_and_colours_from_the_network(tmp_path):
    import keras
    from PIL import Image

    for label in ("cats", "dogs"):
        (tmp_path / "pictures" / label).mkdir(parents=True)
        for i in range(4):
            pixels = RNG.integers(0, 256, (11, 13, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / label / f"{i}.png")
    model = keras.Sequential(
        [
            keras.Input((6, 5, 3)),
            keras.layers.Conv2D(4, 3, activation="relu", name="conv"),
            keras.layers.Flatten(),
            keras.layers.Dense(2, activation="softmax", name="kind"),
        ]
    )
    result = run(
        model, tmp_path / "pictures", output=tmp_path / "r", settings={**QUICK, "data": {"divide_by": 255.0}}
    )

    check(result, ["conv", "kind"])
    assert result.certificate()["accuracy_before"] is not None
    assert result.activations("conv").shape == (8, 4, 3, 4)


def test_points_all_records_every_layer(tmp_path, small_model, small_data):
    import keras

    model = keras.Sequential(
        [*small_model.layers[:2], keras.layers.Reshape((7, 1)), keras.layers.GlobalMaxPooling1D()]
    )
    model.build((None, 6))
    result = run(model, small_data, output=tmp_path / "r", points="all", normalize=False, settings=QUICK)

    assert len(result.points) == 4


def test_float16_storage_is_half_as_large_and_exact_percentiles_say_so(tmp_path, small_model, small_data):
    result = run(
        small_model, small_data, output=tmp_path / "r", settings={**QUICK, "cache": {"dtype": "float16"}}
    )

    assert result.activations("first").dtype == np.float16
    with pytest.raises(InputError, match="rounds"):
        result.percentile("first", 50.0, exact=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"percentile": 101}, "factors.percentile"),
        ({"memory_limit": "much"}, "memory_limit"),
        ({"points": ["nothing*"]}, "nothing"),
        ({"settings": {"record": {"batchsize": 3}}}, "batch_size"),
        ({"num_samples": 54}, "53"),
    ],
)
def test_impossible_calls_are_refused_before_anything_is_written(
    tmp_path, small_model, small_data, arguments, message
):
    with pytest.raises(InputError, match=message):
        run(small_model, small_data, output=tmp_path / "r", **arguments)

    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"percentile": "abc"}, "factors.percentile = 'abc'"),
        ({"settings": {"record": 3}}, r"settings\['record'\] = 3"),
        ({"settings": 3}, "settings = 3"),
        ({"labels": np.zeros(7)}, r"the arrays: different numbers of samples \(input 0 53, labels 7\)"),
        ({"points": []}, "points is empty"),
    ],
)
def test_a_call_that_is_wrong_is_told_as_input(tmp_path, small_model, small_data, arguments, told):
    with pytest.raises(InputError, match=told):
        run(small_model, small_data, output=tmp_path / "r", **arguments)
    assert not (tmp_path / "r").exists()


def test_numbers_of_numpy_are_numbers(tmp_path, small_model, small_data):
    given = {
        "percentile": np.float32(50),
        "batch_size": np.int64(7),
        "num_samples": np.uint8(51),
        "per_channel": np.True_,
        "normalize": False,
        "settings": {**QUICK, "record": {"block_samples": np.int32(14)}},
    }
    result = run(small_model, small_data, output=tmp_path / "r", **given)

    assert result.settings.factors.percentile == 50.0
    assert result.settings.factors.per_channel is True
    assert [(b.start, b.stop) for b in result.cache.blocks] == [(0, 14), (14, 28), (28, 42), (42, 51)]
    assert result.cache.spec.batch_size == 7


def test_labels_beside_samples_in_a_file_are_refused_and_not_forgotten(tmp_path, small_model, small_data):
    np.save(tmp_path / "x.npy", small_data)

    with pytest.raises(InputError, match=r"labels of samples in a file"):
        run(small_model, tmp_path / "x.npy", np.zeros(53, int), output=tmp_path / "r", settings=QUICK)
    assert not (tmp_path / "r").exists()


def test_a_data_frame_is_told_how_to_become_an_array(tmp_path, small_model):
    class DataFrame:
        def to_numpy(self):
            raise AssertionError

    with pytest.raises(InputError, match=r"DataFrame is not an array: pass what its .to_numpy\(\) gives"):
        plan(small_model, DataFrame())
