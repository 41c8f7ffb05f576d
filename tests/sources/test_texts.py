"""Texts are samples of networks that begin with TextVectorization or StringLookup: recorded as Keras computes them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from actisketch.pipeline import run
from actisketch.pipeline.sources import DataSpec, as_source, open_source
from actisketch.storage.errors import InputError, MismatchError

WORDS = ["ant", "bee", "cow", "дог", ""]
RNG = np.random.default_rng(13)
TEXTS = np.array([" ".join(RNG.choice(WORDS, RNG.integers(1, 6))) for _ in range(53)])[:, None]
PLAIN = {
    "normalize": {"enabled": False},
    "report": {"enabled": False},
    "record": {"batch_size": 8, "block_samples": 8},
}


def vectorized():
    return [keras.layers.TextVectorization(vocabulary=WORDS[:4], output_sequence_length=5)]


def looked_up():
    return [keras.layers.StringLookup(vocabulary=["ant", "bee cow", "дог"])]


def hashed():
    return [keras.layers.Hashing(num_bins=9)]


def network(first):
    keras.utils.set_random_seed(17)
    layers = [keras.layers.Embedding(9, 4, name="embedding"), keras.layers.Flatten()]
    ends = [keras.layers.Dense(6, "relu", name="hidden"), keras.layers.Dense(3, "softmax", name="classes")]
    return keras.Sequential([keras.Input((1,), dtype="string"), *first(), *layers, *ends])


def expected(model, texts=TEXTS):
    """The oracle: Keras alone."""
    inner = keras.Model(model.inputs, model.get_layer("hidden").output)
    return inner.predict(tf.constant(texts.tolist()), verbose=0)


def in_memory(folder, texts):
    return texts


def objects(folder, texts):
    return texts.astype(object)


def encoded(folder, texts):
    return np.char.encode(texts, "utf-8")


def variable_width(folder, texts):
    return texts.astype(np.dtypes.StringDType())


def npy(folder, texts):
    np.save(folder / "x.npy", texts)
    return folder / "x.npy"


def big_endian(folder, texts):
    np.save(folder / "x.npy", texts.astype(texts.dtype.newbyteorder(">")))
    return folder / "x.npy"


def npz(folder, texts):
    np.savez(folder / "x.npz", x=texts)
    return folder / "x.npz"


def compressed(folder, texts):
    np.savez_compressed(folder / "x.npz", x=texts)
    return folder / "x.npz"


def dataset(folder, texts):
    return tf.data.Dataset.from_tensor_slices(texts)


def dataset_of_batches(folder, texts):
    return tf.data.Dataset.from_tensor_slices(texts).batch(7)


def py_dataset(folder, texts):
    class Data(keras.utils.PyDataset):
        def __len__(self):
            return 7

        def __getitem__(self, index):
            return texts[8 * index : 8 * index + 8]

    return Data()


def function(folder, texts):
    return lambda: iter([texts[:9], texts[9:]])


def zarr_array(folder, texts):
    import zarr

    return zarr.create_array(folder / "x.zarr", data=texts, chunks=(10, 1), overwrite=True)


KINDS = [
    in_memory, objects, encoded, variable_width, npy, big_endian, npz, compressed, dataset, dataset_of_batches,
    py_dataset, function, zarr_array,
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*does not have a Zarr V3 specification")
@pytest.mark.parametrize("kind", KINDS)
def test_texts_are_recorded_however_they_are_kept(tmp_path, kind):
    model = network(vectorized)
    more = {"num_samples": 53} if kind is function else {}
    result = run(model, kind(tmp_path, TEXTS), output=tmp_path / "run", settings=PLAIN, **more)

    np.testing.assert_allclose(result.activations("hidden")[:], expected(model), rtol=1e-5, atol=1e-6)
    changed = TEXTS.copy()
    changed[21] = "cow"
    with pytest.raises(MismatchError, match="samples 16 to 23"):
        run(model, kind(tmp_path, changed), output=tmp_path / "run", settings=PLAIN, **more)
    # The same texts are the same samples, wherever they lie.
    assert as_source(TEXTS).content_hash(0, 53) == run_hash(kind(tmp_path, TEXTS), **more)


def run_hash(data, **more):
    source = open_source(DataSpec(path=str(data))) if hasattr(data, "suffix") else as_source(data, **more)
    return source.content_hash(0, 53)


@pytest.mark.parametrize("first", [vectorized, looked_up, hashed])
@pytest.mark.parametrize("points", ["neurons", "all"])
def test_networks_that_begin_with_texts_are_recorded(tmp_path, first, points):
    model = network(first)
    if first is not vectorized:
        keras.utils.clear_session()
    result = run(model, TEXTS, output=tmp_path / "run", points=points, percentile=100, settings=PLAIN)

    assert result.percentile("hidden", 100.0).value == pytest.approx(expected(model).max(), rel=1e-5)
    assert not any("input" in point.name for point in result.cache.spec.points)


def test_texts_beside_numbers(tmp_path):
    keras.utils.set_random_seed(19)
    text, number = keras.Input((1,), dtype="string", name="text"), keras.Input((3,), name="number")
    embedded = keras.layers.Flatten()(keras.layers.Embedding(9, 4)(looked_up()[0](text)))
    joined = keras.layers.Concatenate()([embedded, number])
    model = keras.Model([text, number], keras.layers.Dense(5, "relu", name="hidden")(joined))
    numbers = np.random.default_rng(3).random((53, 3), dtype=np.float32)
    data = {"number": numbers * 4, "text": TEXTS}
    scaled = {**PLAIN, "data": {"divide_by": 4.0}}

    with pytest.raises(InputError, match="holds texts, which cannot be scaled"):
        run(model, data, output=tmp_path / "run", settings=scaled)
    source = as_source(data, divide_by={"number": 4.0})
    result = run(model, source, output=tmp_path / "run", percentile=100, settings=PLAIN)
    largest = model.predict([tf.constant(TEXTS.tolist()), numbers], verbose=0).max()
    assert result.percentile("hidden", 100.0).value == pytest.approx(largest, rel=1e-5)


def test_a_network_that_begins_with_texts_is_normalised(tmp_path):
    model = network(vectorized)
    result = run(
        model, TEXTS, output=tmp_path / "run", percentile=100, settings={"report": {"enabled": False}}
    )

    assert result.certificate()["passed"]
    normalized = keras.saving.load_model(tmp_path / "run" / "normalized.keras")
    np.testing.assert_allclose(
        normalized.predict(tf.constant(TEXTS.tolist()), verbose=0),
        model.predict(tf.constant(TEXTS.tolist()), verbose=0),
        rtol=1e-4,
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.array([["a"], [None]], object), r"Python objects \(NoneType\)"),
        (np.array([["a"], [3]], object), r"Python objects \(int\)"),
        (np.array([["a"], [float("nan")]], object), r"Python objects \(float\)"),
    ],
)
def test_objects_that_are_no_texts_are_refused(values, words):
    with pytest.raises(InputError, match=words):
        as_source(values)


@pytest.mark.parametrize("save", [np.save, np.savez])
def test_objects_in_files_are_never_unpickled(tmp_path, save):
    path = tmp_path / ("x.npy" if save is np.save else "x.npz")
    save(path, TEXTS.astype(object))

    with pytest.raises(InputError, match=r"never unpickled: .*x\.astype\(str\)"):
        open_source(DataSpec(path=str(path)))


def test_texts_for_numbers_and_numbers_for_texts_are_refused(tmp_path, small_model):
    texts = np.repeat(TEXTS, 6, axis=1)
    with pytest.raises(
        InputError, match=r"takes numbers \(float32\), the data holds texts: .*TextVectorization"
    ):
        run(small_model, texts, output=tmp_path / "run", settings=PLAIN)
    with pytest.raises(InputError, match="takes texts, the data holds numbers"):
        run(network(vectorized), np.zeros((5, 1)), output=tmp_path / "run", settings=PLAIN)
