"""Subclassed models: recorded by their leaves, fed as Keras feeds them, identified by code, settings and weights."""

import textwrap

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers as L

from actisketch.pipeline import open_run, plan, run
from actisketch.storage.errors import InputError, MismatchError

RNG = np.random.default_rng(17)
X = RNG.normal(size=(11, 6)).astype(np.float32)
OTHER = RNG.normal(size=(11, 6)).astype(np.float32)


class Tower(keras.Model):
    """A layer of layers and a Dense that is called twice; they have no names of their own."""

    def __init__(self, units=4, **settings):
        super().__init__(**settings)
        self.units = units
        self.first = L.Dense(units, activation="relu")
        self.blocks = [keras.Sequential([L.Dense(units), L.ReLU()], name=f"block_{i}") for i in range(2)]
        self.unused = L.Dense(3, name="unused")
        self.unused.build((None, 6))

    def call(self, x, training=None):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return {"a": x, "b": x * 2} if training else x


class OfDict(keras.Model):
    def __init__(self):
        super().__init__()
        self.left, self.right = L.Dense(3, name="left"), L.Dense(3, name="right")

    def call(self, x):
        return self.left(x["l"]) + self.right(x["r"])


class OfList(OfDict):
    def call(self, x):
        return self.left(x[0]) + self.right(x[1])


class OfArguments(OfDict):
    def call(self, l, r):  # noqa: E741  # a name of data
        return self.left(l) + self.right(r)


class WithOption(OfDict):
    def call(self, l, r=None):  # noqa: E741
        return self.left(l) + (0 if r is None else self.right(r))


class OfTokens(keras.Model):
    def __init__(self):
        super().__init__()
        self.table, self.last = L.Embedding(19, 3, name="table"), L.Dense(2, name="last")

    def call(self, tokens):
        return self.last(self.table(tokens))


def built(model, *args, **kwargs):
    keras.utils.set_random_seed(7)
    model(*args, **kwargs)
    return model


@pytest.fixture(scope="module")
def tower():
    return built(Tower(name="tower"), X[:1])


def recorded(model, data, folder, **more):
    settings = {"report": {"enabled": False}}
    return run(model, data, output=folder, batch_size=4, normalize=False, settings=settings, **more)


def test_its_layers_with_weights_are_recorded_by_default(tower, tmp_path, caplog):
    result = recorded(tower, X, tmp_path / "r")
    first = np.maximum(X @ tower.first.kernel.numpy() + tower.first.bias.numpy(), 0)
    inner = [block.layers[0] for block in tower.blocks]

    assert list(result.points) == [tower.first.name, *(f"block_{i}/{inner[i].name}" for i in range(2))]
    np.testing.assert_allclose(result.activations(tower.first.name)[:], first, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        result.activations(f"block_0/{inner[0].name}")[:], inner[0](first), rtol=1e-4, atol=1e-5
    )
    assert "'unused' is never called" in caplog.text


def test_all_is_every_call_and_a_pattern_may_name_any(tower, tmp_path):
    def names(points):
        settings = {"normalize": {"enabled": False}}
        return [
            p.name for p in plan(tower, X, output=tmp_path / "r", points=points, settings=settings).points
        ]

    inner = [block.layers for block in tower.blocks]
    everything = [tower.first.name]
    for i in range(2):
        everything += [*(f"block_{i}/{layer.name}" for layer in inner[i]), f"block_{i}"]
    assert sorted(names("all")) == sorted([*everything, "Tower"])
    assert names("block_1") == ["block_1"]
    assert names(["block_?", "Tower"]) == ["block_0", "block_1", "Tower"]


@pytest.mark.parametrize(
    ("model", "call", "data"),
    [
        (OfDict, lambda m: m({"l": X[:1], "r": OTHER[:1]}), {"r": OTHER, "l": X}),
        (OfList, lambda m: m([X[:1], OTHER[:1]]), [X, OTHER]),
        (OfArguments, lambda m: m(X[:1], r=OTHER[:1]), {"r": OTHER, "l": X}),
        (WithOption, lambda m: m(X[:1], r=OTHER[:1]), {"r": OTHER, "l": X}),
    ],
)
def test_inputs_are_given_as_the_model_takes_them(model, call, data, tmp_path):
    model = model()
    call(model)
    result = recorded(model, data, tmp_path / "r")

    assert list(result.points) == ["left", "right"]
    np.testing.assert_allclose(result.activations("left")[:], model.left(X), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result.activations("right")[:], model.right(OTHER), rtol=1e-4, atol=1e-5)


def test_whole_numbers_stay_whole(tmp_path):
    tokens = RNG.integers(0, 19, (9, 5)).astype(np.int64)
    model = built(OfTokens(), tokens[:1])
    result = recorded(model, tokens, tmp_path / "r")

    np.testing.assert_array_equal(result.activations("table")[:], model.table.embeddings.numpy()[tokens])
    np.testing.assert_allclose(
        result.activations("last")[:], model.last(model.table(tokens)), rtol=1e-4, atol=1e-5
    )


def test_inputs_of_other_names_are_refused(tmp_path):
    model = OfDict()
    model({"l": X[:1], "r": OTHER[:1]})

    for data in ({"l": X, "s": OTHER}, [X, OTHER], X):
        with pytest.raises(InputError, match=r"takes the inputs 'l', 'r', the data has"):
            plan(model, data, output=tmp_path / "r", settings={"normalize": {"enabled": False}})


def test_it_is_resumed_and_reloaded_and_another_one_is_refused(tower, tmp_path):
    first = recorded(tower, X, tmp_path / "r")
    again = recorded(tower, X, tmp_path / "r")

    assert again.written_factors() == first.written_factors()
    kernel = tower.blocks[1].layers[0].kernel
    before = kernel.numpy()
    kernel.assign(before + 1e-3)
    with pytest.raises(MismatchError, match="weights"):
        recorded(tower, X, tmp_path / "r")
    kernel.assign(before)
    assert recorded(tower, X, tmp_path / "r").written_factors() == first.written_factors()


def test_it_is_reloaded_from_its_file_though_keras_numbers_its_layers_anew(saved):
    folder, _, _ = saved
    flags = {"model": {"path": str(folder / "model.keras"), "custom_objects": str(folder / "layers.py")}}
    flags |= {"report": {"enabled": False}}

    def once(points):
        place = {"output": folder / points, "points": points, "normalize": False, "settings": flags}
        return run(str(folder / "model.keras"), str(folder / "x.npy"), **place)

    first, again = once("leaves"), once("leaves")
    assert list(again.points) == list(first.points)
    assert again.written_factors() == first.written_factors()


def test_another_point_of_one_shape_is_no_renamed_one(tower, tmp_path):
    recorded(tower, X, tmp_path / "r", points="block_0")
    with pytest.raises(MismatchError, match="only the cache has 'block_0', only this run has 'block_1'"):
        recorded(tower, X, tmp_path / "r", points="block_1")


def test_other_code_and_other_settings_are_another_network(tmp_path):
    class Changing(Tower):
        pass

    model = built(Changing(name="tower"), X[:1])
    recorded(model, X, tmp_path / "r")
    Changing.call = lambda self, x, training=None: self.first(x) * 2
    with pytest.raises(MismatchError, match=r"code of .*Changing"):
        recorded(model, X, tmp_path / "r")
    del Changing.call
    model.units = 5
    with pytest.raises(MismatchError, match="topology"):
        recorded(model, X, tmp_path / "r")


def test_normalising_it_is_refused_before_anything_is_recorded(tower, tmp_path):
    with pytest.raises(InputError, match=r"'tower' \(Tower\) is subclassed: it has no graph.*--no-normalize"):
        run(tower, X, output=tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_one_that_was_never_called_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"'new' \(Tower\) was never called.*model\(x\[:1\]\)"):
        recorded(Tower(name="new"), X, tmp_path / "r")
    assert not (tmp_path / "r").exists()


class HalfBuilt(Tower):
    def build(self, shape):
        self.built = True  # as models do whose author forgot their layers


def test_one_whose_layers_have_no_weights_yet_is_refused(tmp_path):
    model = HalfBuilt(name="half")
    model.build((None, 6))

    with pytest.raises(
        InputError, match=r"'half' \(HalfBuilt\) was never called, so the weights of its layer 'dense"
    ):
        recorded(model, X, tmp_path / "r")
    assert not (tmp_path / "r").exists()


class Compiled(OfDict):
    @tf.function
    def call(self, x):
        return self.left(x) * 2


def test_of_one_whose_call_is_a_tf_function_the_output_is_recorded_and_that_is_said(tmp_path, caplog):
    model = Compiled()
    model.right.build((None, 6))
    model(X[:1])
    result = recorded(model, X, tmp_path / "r")

    assert list(result.points) == ["Compiled"]
    assert "not recorded by itself: what 'Compiled' calls in its tf.function" in caplog.text
    with pytest.raises(
        InputError, match=r"'left' .* in a tf.function, so it cannot be recorded: record .* 'Compiled'"
    ):
        recorded(model, X, tmp_path / "r", points="left")
    np.testing.assert_allclose(result.activations("Compiled")[:], model.left(X) * 2, rtol=1e-4, atol=1e-5)


class Drawing(Tower):
    def call(self, x):
        return super().call(x + keras.random.normal(keras.ops.shape(x)))


class Remembering(Tower):
    n_calls = 0

    def call(self, x):
        self.n_calls += 1
        return super().call(x) * self.n_calls


@pytest.mark.parametrize("kind", [Drawing, Remembering])
def test_one_that_is_random_or_remembers_is_refused(kind, tmp_path):
    with pytest.raises(InputError, match="two passes over the same samples differ"):
        recorded(built(kind(), X[:1]), X, tmp_path / "r")
    assert not (tmp_path / "r").exists()


@pytest.fixture
def saved(tmp_path):
    """Files: the model, the code of its class, and samples."""
    code = tmp_path / "layers.py"
    code.write_text(
        textwrap.dedent(
            """
            import keras

            class FromFile(keras.Model):
                def __init__(self, units=4, **settings):
                    super().__init__(**settings)
                    self.units, self.first = units, keras.layers.Dense(units, activation="relu")
                    self.inner = keras.layers.MultiHeadAttention(2, 3, name="mha")

                def call(self, x):
                    x = self.first(x)
                    return self.inner(x, x)

                def get_config(self):
                    return {**super().get_config(), "units": self.units}
            """
        )
    )
    space = {"__name__": "layers"}
    exec(compile(code.read_text(), str(code), "exec"), space)  # the file above
    data = RNG.normal(size=(9, 5, 6)).astype(np.float32)
    model = built(space["FromFile"](), data[:1])
    model.save(tmp_path / "model.keras")
    np.save(tmp_path / "x.npy", data)
    return tmp_path, model, data


def test_job_files_and_flags_know_leaves(saved):
    from actisketch.pipeline.cli import commands
    from actisketch.pipeline.cli.session import run_command

    folder, model, data = saved
    flags = [
        "--model",
        folder / "model.keras",
        "--custom-objects",
        folder / "layers.py",
        "--data",
        folder / "x.npy",
    ]
    flags += ["--points", "leaves", "--no-normalize", "--output", folder / "r", "--batch-size", 4]
    for verb in ("plan", "run"):
        assert run_command(commands, [verb, *map(str, flags)]) == 0
    result = open_run(folder / "r")

    assert list(result.points)[1:] == ["mha/query", "mha/key", "mha/value", "mha/attention_output"]
    np.testing.assert_allclose(
        result.activations("mha/attention_output")[:], model(data), rtol=1e-4, atol=1e-5
    )


def test_a_worker_finds_the_points_of_layers_that_keras_numbers_anew(saved):
    from actisketch.pipeline.cluster.recipes import KerasRecipe, NetworkRecipe
    from actisketch.pipeline.graph import places_of
    from actisketch.pipeline.settings.loading import validate_job
    from actisketch.pipeline.stages.prepare import prepare

    folder, _, _ = saved
    files = {"path": str(folder / "model.keras"), "custom_objects": str(folder / "layers.py")}
    settings = {
        "output": str(folder / "r"),
        "model": files,
        "data": {"path": str(folder / "x.npy")},
        "normalize": {"enabled": False},
    }
    job = prepare(validate_job(settings))
    network = NetworkRecipe(
        model_path=files["path"],
        model_bytes=None,
        custom_objects=files["custom_objects"],
        safe_mode=True,
        fingerprint=job.fingerprint,
        source=job.source,
        data=job.source.fingerprint(),
    )
    recipe = KerasRecipe(network=network, points=places_of(job.points), batch_size=4)

    # The worker loads the network once more, and Keras counts the Dense layers of this process on.
    found, expected = recipe.make(1).points, job.producer.points
    assert [(point.name, point.shape) for point in found] == [(point.name, point.shape) for point in expected]
    assert expected[0].name.startswith("dense")


@pytest.mark.slow
def test_workers_record_the_leaves_of_a_subclassed_model_as_this_process_does(saved):
    folder, _, _ = saved
    results = []
    for n_workers in (0, 2):
        settings = {
            "model": {"custom_objects": str(folder / "layers.py")},
            "record": {"workers": n_workers, "block_samples": 4},
            "report": {"enabled": False},
        }
        place = {"output": folder / f"{n_workers}", "points": "leaves", "normalize": False, "batch_size": 4}
        results.append(run(str(folder / "model.keras"), str(folder / "x.npy"), **place, settings=settings))
    here, there = results

    assert list(here.points)[1:] == list(there.points)[1:]
    for one, other in zip(here.points, there.points, strict=True):
        np.testing.assert_array_equal(here.activations(one)[:], there.activations(other)[:])
    assert [p.factor for p in here.written_factors().points] == [
        p.factor for p in there.written_factors().points
    ]
