"""NIR graphs, read back by the nir package: the same function at once, the same decisions by spikes."""

import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from actisketch.pipeline import run
from actisketch.pipeline.cli import commands
from actisketch.storage.errors import InputError

from .conftest import QUIET

nir = pytest.importorskip("nir")
from actisketch.pipeline.exporters.nir_writer import NirWriter  # noqa: E402

from .nir_reader import at_once, over_time  # noqa: E402

N_STEPS, N_HELD_OUT = 128, 180


def randomised(model):
    """Give every weight and statistic a value of its own."""
    rng = np.random.default_rng(19)
    for weight in model.weights:
        values = rng.normal(0, 0.4, weight.shape)
        weight.assign(np.abs(values) + 0.5 if "variance" in weight.path else values)
    return model


def networks():
    """By name: networks that end in numbers, and what they have."""
    from keras import Input, Model, layers

    def chain(*those, shape=(9, 7, 3)):
        x = inputs = Input(shape)
        for each in those:
            x = each(x)
        return Model(inputs, x)

    def residual():
        inputs = Input((6, 6, 2))
        stem = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(inputs)
        other = layers.Conv2D(4, 3, padding="same", name="other")(stem)
        x = layers.ReLU(name="spike")(layers.Add(name="add")([stem, other]))
        return Model(inputs, layers.Dense(3, name="out")(layers.Flatten()(x)))

    def branches():
        inputs = Input((6, 6, 2))
        a = layers.Conv2D(3, 3, padding="same", activation="relu", name="a")(inputs)
        b = layers.Conv2D(5, 1, activation="relu", name="b")(inputs)
        x = layers.Concatenate(name="join")([a, b])
        x = layers.AveragePooling2D(2, name="pool")(x)
        c = layers.Conv2D(4, 3, activation="relu", padding="same", name="c")(x)
        d = layers.DepthwiseConv2D(2, name="d", activation="relu")(x)
        x = layers.Concatenate(name="vectors")(
            [layers.GlobalAveragePooling2D()(c), layers.GlobalAveragePooling2D()(d)]
        )
        return Model(inputs, layers.Dense(3, name="out")(x))

    def flat_branches():
        inputs = Input((4, 4, 2))
        a = layers.Conv2D(3, 3, padding="same", activation="relu")(inputs)
        b = layers.Conv2D(2, 1, activation="relu")(inputs)
        x = layers.Flatten()(layers.Concatenate()([a, b]))
        return Model(inputs, layers.Dense(3)(layers.Dense(6, activation="relu")(x)))

    def out():
        return [layers.Flatten(), layers.Dense(5, activation="relu"), layers.Dropout(0.5), layers.Dense(3)]

    return {
        "strided same": chain(layers.Conv2D(4, 3, strides=2, padding="same", activation="relu"), *out()),
        "even same": chain(layers.Conv2D(4, (4, 2), padding="same", activation="relu"), *out()),
        "strided even same": chain(
            layers.Conv2D(4, 2, strides=(2, 3), padding="same", activation="relu"), *out()
        ),
        "dilated": chain(layers.Conv2D(4, 2, dilation_rate=3, padding="same", activation="relu"), *out()),
        "grouped": chain(layers.Conv2D(6, 3, groups=3, activation="relu"), *out()),
        "depthwise": chain(
            layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", activation="relu"), *out()
        ),
        "padded": chain(
            layers.ZeroPadding2D(((1, 2), (2, 1))), layers.Conv2D(4, 3, strides=2, activation="relu"), *out()
        ),
        "padded, dropped out": chain(
            layers.ZeroPadding2D(2), layers.Dropout(0.5), layers.Conv2D(4, 3, activation="relu"), *out()
        ),
        "padded, then neurons": chain(
            layers.Conv2D(4, 3),
            layers.ZeroPadding2D(((0, 2), (1, 0))),
            layers.Activation("linear"),
            layers.ReLU(),
            layers.SpatialDropout2D(0.5),
            layers.Conv2D(3, 3, strides=2),
            *out(),
        ),
        "padded twice": chain(
            layers.ZeroPadding2D(1), layers.ZeroPadding2D(((0, 1), (2, 1))), layers.DepthwiseConv2D(3), *out()
        ),
        "maximum of padded": chain(
            layers.Conv2D(4, 3, activation="relu"), layers.ZeroPadding2D(1), layers.MaxPooling2D(3, 2), *out()
        ),
        "pooled": chain(layers.Conv2D(4, 3, activation="relu"), layers.AveragePooling2D(2), *out()),
        "pooled, then neurons": chain(
            layers.Conv2D(4, 3), layers.AveragePooling2D((3, 2), 1), layers.ReLU(), *out()
        ),
        "maximum": chain(layers.Conv2D(4, 3, activation="relu"), layers.MaxPooling2D(2), *out()),
        "maximum of three by one, same": chain(
            layers.Conv2D(4, 3, padding="same", activation="relu"),
            layers.MaxPooling2D((3, 1), (2, 3), padding="same"),
            layers.Conv2D(3, 1, activation="relu"),
            *out(),
        ),
        "maximum of means": chain(
            layers.Conv2D(4, 2, activation="relu"), layers.AveragePooling2D(2), layers.MaxPooling2D(2), *out()
        ),
        "maximum of maxima": chain(
            layers.Conv2D(4, 2, activation="relu"), layers.MaxPooling2D(2), layers.MaxPooling2D(2), *out()
        ),
        "norm alone": chain(layers.BatchNormalization(), layers.Conv2D(4, 3, activation="relu"), *out()),
        "no bias": chain(layers.Conv2D(4, 3, use_bias=False, activation="relu"), *out()),
        "vector": chain(
            layers.Dense(7, activation="relu"), layers.BatchNormalization(), layers.Dense(2), shape=(6,)
        ),
        "global": chain(
            layers.Conv2D(4, 3, activation="relu"), layers.GlobalAveragePooling2D(), layers.Dense(2)
        ),
        "residual": residual(),
        "branches": branches(),
        "flattened branches": flat_branches(),
    }


NAMES = [
    "strided same",
    "even same",
    "strided even same",
    "dilated",
    "grouped",
    "depthwise",
    "padded",
    "padded, dropped out",
    "padded, then neurons",
    "padded twice",
    "maximum of padded",
    "pooled",
    "pooled, then neurons",
    "maximum",
    "maximum of three by one, same",
    "maximum of means",
    "maximum of maxima",
    "norm alone",
    "no bias",
    "vector",
    "global",
    "residual",
    "branches",
    "flattened branches",
]


@pytest.fixture(scope="module")
def built():
    found = networks()
    assert list(found) == NAMES
    return {name: randomised(model) for name, model in found.items()}


@pytest.mark.parametrize("pooling", ["sum", "avg"])
@pytest.mark.parametrize("name", NAMES)
def test_the_graph_computes_what_the_network_does(built, name, pooling, tmp_path):
    model = built[name]
    nir.write(tmp_path / "g.nir", NirWriter(model, pooling=pooling).graph())
    graph = nir.read(tmp_path / "g.nir")
    x = np.random.default_rng(5).normal(size=(4, *model.input_shape[1:])).astype(np.float32)
    first = next(key for key, node in graph.nodes.items() if isinstance(node, nir.Input))
    given = np.moveaxis(x, -1, 1) if x.ndim == 4 else x

    found = at_once(graph, {first: given})["output"]
    expected = np.asarray(model(x))
    assert np.abs(expected).max() > 0
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4 * float(np.abs(expected).max()))
    kinds = {type(node) for node in graph.nodes.values()}
    assert (
        not ({nir.SumPool2d, nir.AvgPool2d} - {nir.SumPool2d if pooling == "sum" else nir.AvgPool2d}) & kinds
    )


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("MaxPooling2D", "'odd' takes the maximum of what is no rate of neurons: put it behind a ReLU"),
        ("GlobalMaxPooling2D", "'odd' .GlobalMaxPooling2D. does"),
        ("Permute", "'odd' .Permute. does"),
        ("LeakyReLU", "activation function of 'odd' .leaky_relu. is no ReLU"),
        ("ELU", "activation function of 'odd' .elu."),
        ("AveragePooling2D", "averages over fewer values at the border"),
        ("Dense", "is a Dense layer on maps"),
    ],
)
def test_what_nir_cannot_say_is_refused_by_name(layer, words):
    from keras import Input, Model, layers

    given = {
        "MaxPooling2D": (2,),
        "Permute": ((2, 1, 3),),
        "AveragePooling2D": (2,),
        "Dense": (3,),
    }.get(layer, ())
    more = {"padding": "same"} if layer == "AveragePooling2D" else {}
    inputs = Input((5, 5, 2))
    x = getattr(layers, layer)(*given, **more, name="odd")(layers.Conv2D(2, 1)(inputs))
    model = Model(inputs, layers.Dense(2)(layers.Flatten()(x)))

    with pytest.raises(InputError, match=words):
        NirWriter(model).graph()


def test_a_kernel_that_makes_no_square_is_refused_by_name():
    from keras import Input, Model, layers

    inputs = Input((5, 5, 2))
    x = layers.Conv2D(2, (3, 2), name="odd")(inputs)

    with pytest.raises(InputError, match="the kernel of 'odd' and its padding make no square"):
        NirWriter(Model(inputs, layers.Dense(2)(layers.Flatten()(x)))).graph()


def test_a_softmax_at_the_end_is_left_out_and_elsewhere_refused():
    from keras import Input, Model, layers

    inputs = Input((4,))
    x = layers.Dense(3, activation="softmax", name="soft")(inputs)
    writer = NirWriter(Model(inputs, x))
    writer.graph()
    assert writer.left_out == ["softmax of 'soft'"]
    with pytest.raises(InputError, match=r"'soft' .softmax. is no ReLU"):
        NirWriter(Model(inputs, layers.Dense(2)(x))).graph()


def test_a_concatenation_at_the_end_is_refused():
    from keras import Input, Model, layers

    inputs = Input((4,))
    both = layers.Concatenate()([layers.Dense(2)(inputs), layers.Dense(3)(inputs)])
    with pytest.raises(InputError, match="ends with a Concatenate"):
        NirWriter(Model(inputs, both)).graph()


def test_a_run_without_a_normalised_network_is_refused(small_run):
    with pytest.raises(InputError, match="no normalised network that is up to date"):
        small_run["run"].exported("nir")


def test_without_the_package_the_error_names_the_extra(small_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "nir", None)

    with pytest.raises(InputError, match=r"needs the package 'nir'.*actisketch\[nir\]"):
        small_run["run"].exported("nir")


@pytest.mark.slow
def test_spikes_of_the_normalised_network_decide_as_the_network(digits, tmp_path):
    """Digits, 128 time steps, soft reset: within a point of the network, and better than without normalisation."""
    import keras
    from keras import layers

    x, labels = digits
    keras.utils.set_random_seed(23)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(8, 3, padding="same", use_bias=False, name="first"),
            layers.BatchNormalization(),
            layers.ReLU(name="spike"),
            layers.Conv2D(16, 3, strides=2, padding="same", activation="relu", name="second"),
            layers.AveragePooling2D(2, name="pool"),
            layers.Flatten(),
            layers.Dense(32, activation="relu", name="hidden"),
            layers.Dense(10, activation="softmax", name="classes"),
        ]
    )
    model.compile(keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy")
    model.fit(x[:1297], labels[:1297], epochs=30, batch_size=32, verbose=0)
    settings = {**QUIET, "normalize": {"enabled": True}}
    found = run(model, x[:1297], output=str(tmp_path / "r"), settings=settings)
    path = tmp_path / "digits.nir"
    done = CliRunner().invoke(
        commands, ["export", str(found.folder.path), "--format", "nir", "--output", str(path)]
    )
    assert done.exit_code == 0, (done.output, done.exception)
    held, wanted = x[1297:], labels[1297:]

    def accuracies(graph):
        given = {"image": np.moveaxis(held, -1, 1)}
        return [float(np.mean(total.argmax(1) == wanted)) for total in over_time(graph, given, 128)]

    ours = accuracies(nir.read(path))
    analog = float(np.mean(np.asarray(model(held)).argmax(1) == wanted))
    raw = accuracies(NirWriter(model).graph())
    print("network", analog, {t: (ours[t - 1], raw[t - 1]) for t in (8, 16, 32, 64, 128)})
    assert analog > 0.9
    assert ours[-1] >= analog - 0.01
    assert ours[-1] > raw[-1]
    assert "softmax of 'classes' is left out" in " ".join(done.output.split())
    assert "second_if" in done.output


@pytest.fixture(scope="module")
def digits_graph(demo_files, held_out, tmp_path_factory):
    """The graph of the shipped network as the command line writes it, what was printed, and the network's accuracy."""
    import keras

    folder = tmp_path_factory.mktemp("digits")
    settings = {**QUIET, "normalize": {"enabled": True}, "data": {"divide_by": 16.0}}
    run(Path(demo_files["model"]), Path(demo_files["data"]), output=str(folder / "r"), settings=settings)
    path = folder / "digits.nir"
    done = CliRunner().invoke(
        commands, ["export", str(folder / "r"), "--format", "nir", "--output", str(path)]
    )
    assert done.exit_code == 0, (done.output, done.exception)
    x, labels = held_out
    model = keras.saving.load_model(demo_files["model"])
    accuracy = float(np.mean(np.asarray(model(np.moveaxis(x, 1, -1))).argmax(1) == labels))
    return {"path": path, "printed": done.output, "accuracy": accuracy}


@pytest.fixture(scope="module")
def held_out(demo_files):
    """Digits that the shipped network was not trained on, channels first, and their labels."""
    with np.load(demo_files["data"]) as archive:
        chosen = archive["test_indices"][:N_HELD_OUT]
        return archive["x"][chosen].astype(np.float32).transpose(0, 3, 1, 2) / 16, archive["y"][chosen]


@pytest.mark.slow
def test_spikes_through_maximum_pooling_decide_as_the_network(digits_graph, held_out):
    x, labels = held_out
    totals = over_time(nir.read(digits_graph["path"]), {"image": x}, N_STEPS)
    found = [float(np.mean(total.argmax(1) == labels)) for total in totals]
    print("network", digits_graph["accuracy"], {t: found[t - 1] for t in (8, 16, 32, 64, 128)})

    assert digits_graph["accuracy"] > 0.95
    assert found[-1] >= digits_graph["accuracy"] - 0.01
    assert "softmax of 'classes' is left out" in " ".join(digits_graph["printed"].split())
    assert "pool2_if" in digits_graph["printed"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_sinabs_decides_as_the_network(digits_graph, held_out):
    """The simulator itself: `pip install sinabs`, which needs torch."""
    from_nir = pytest.importorskip("sinabs.nir", exc_type=ImportError).from_nir
    import torch

    x, labels = held_out
    with torch.no_grad():
        network = from_nir(nir.read(digits_graph["path"]), batch_size=len(x))
        output, _ = network(torch.from_numpy(x).repeat_interleave(N_STEPS, dim=0))
    totals = output.reshape(len(x), N_STEPS, -1).cumsum(dim=1).numpy()
    found = (totals.argmax(axis=2) == labels[:, None]).mean(axis=0)
    print("sinabs", digits_graph["accuracy"], {t: float(found[t - 1]) for t in (4, 8, 16, 32, 64, 128)})

    assert found[-1] >= digits_graph["accuracy"] - 0.01


def test_neurons_behind_a_merge_are_listed_with_the_point_of_the_merge(tmp_path):
    from keras import Input, Model, layers

    inputs = Input((6, 6, 2))
    a = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv_a")(inputs)
    b = layers.Conv2D(4, 3, padding="same", name="conv_b")(a)
    x = layers.ReLU(name="relu_c")(layers.Add(name="add")([a, b]))
    x = layers.MaxPooling2D(2, name="pool")(x)
    model = Model(inputs, layers.Dense(3, name="out")(layers.Flatten()(x)))
    data = np.random.default_rng(3).normal(size=(24, 6, 6, 2)).astype(np.float32)
    found = run(model, data, output=tmp_path / "run", batch_size=8, settings={"report": {"enabled": False}})
    factors = {point.name: point.factor for point in found.factors().points}
    rows = {row.tensor: row for row in found.exported("nir").rows}

    assert rows["conv_a_if"].point == "conv_a"
    assert {row.point for name, row in rows.items() if name.startswith(("relu_c_if", "pool_if"))} == {"add"}
    assert {name.split("_if")[0] for name in rows} == {"conv_a", "relu_c", "pool"}
    assert rows["relu_c_if"].hi == factors["add"]


def test_the_input_factor_is_told_and_the_graph_takes_the_divided_samples(tmp_path):
    from keras import Input, Sequential, layers

    model = Sequential([Input((4,), name="x"), layers.Dense(5, name="hidden"), layers.Dense(2, name="out")])
    samples = np.random.default_rng(3).normal(size=(40, 4)).astype(np.float32)
    settings = {"normalize": {"input_factor": 8.0}, "report": {"enabled": False}}
    finished = run(model, samples, output=str(tmp_path / "r"), settings=settings)
    (made := finished.exported("nir")).content(tmp_path / "n.nir")
    out = at_once(nir.read(tmp_path / "n.nir"), {"x": samples / 8.0})["output"]

    assert made.warnings == ("divide the samples by the input factor before the graph gets them: 8.0",)
    assert out * finished.factors().by_point()["out"] == pytest.approx(np.asarray(model(samples)), abs=1e-4)
