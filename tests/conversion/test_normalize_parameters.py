"""`normalize_parameters`: what it writes, what it changes, and that an error changes nothing."""

from __future__ import annotations

import json
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from actisketch.pipeline.certifier import Certificate
from actisketch.pipeline.conversion import normalize_parameters
from actisketch.storage.errors import CertificateError, InputError, MismatchError

layers = keras.layers
Weights = list[NDArray[np.float32]]


def unchanged(model: keras.Model, before: Weights) -> bool:
    return all(np.array_equal(new, old) for new, old in zip(model.get_weights(), before, strict=True))


def test_the_output_of_the_network_is_the_same_and_every_layer_peaks_at_one(
    small_model: Any, small_data: Any, settings: ConfigParser, folder: Path
) -> None:
    settings.set("normalization", "percentile", "100")
    before = small_model(small_data)
    normalize_parameters(small_model, settings, x_norm=small_data)

    np.testing.assert_allclose(small_model(small_data), before, atol=1e-6)
    hidden = keras.Model(small_model.inputs[0], small_model.get_layer("second").output)(small_data[:50])
    assert float(np.max(hidden)) == pytest.approx(1.0, rel=1e-6)
    assert json.loads((folder / "certificate.json").read_text())["passed"]


def test_it_counts_the_tail_out_and_takes_percentiles_of_what_is_not_zero(
    small_model: Any, small_data: Any, settings: ConfigParser, folder: Path
) -> None:
    oracle = np.asarray(
        keras.Model(small_model.inputs[0], small_model.get_layer("second").output)(small_data[:50])
    )
    normalize_parameters(small_model, settings, x_norm=small_data)

    factors = json.loads((folder / "99.9.json").read_text())
    assert list(factors) == [next(iter(factors)), "first", "second", "classes"]
    assert next(iter(factors.values())) == 1
    assert factors["second"] == pytest.approx(np.percentile(oracle[oracle != 0], 99.9), rel=1e-6)


def test_memory_maps_zarr_and_dask_give_the_same(
    small_model: Any, small_data: Any, settings: ConfigParser, tmp_path: Path
) -> None:
    import dask.array
    import zarr

    np.save(tmp_path / "x.npy", small_data)
    sources = [
        small_data,
        np.load(tmp_path / "x.npy", mmap_mode="r"),
        zarr.create_array(tmp_path / "x.zarr", data=small_data, chunks=(7, 6)),
        dask.array.from_array(small_data, chunks=(11, 6)),
    ]
    found = []
    for number, source in enumerate(sources):
        model = keras.models.clone_model(small_model)
        model.set_weights(small_model.get_weights())
        normalize_parameters(model, settings, x_norm=source, path=tmp_path / str(number))
        found.append((tmp_path / str(number) / "99.9.json").read_text())

    assert len({str(list(json.loads(text).values())) for text in found}) == 1


def test_without_factors_and_samples_it_warns_and_does_nothing(
    small_model: Any, settings: ConfigParser, folder: Path
) -> None:
    before = small_model.get_weights()
    with pytest.warns(RuntimeWarning, match="Proceeding without normalization"):
        normalize_parameters(small_model, settings)

    assert unchanged(small_model, before)
    assert not folder.exists()


def test_dead_layers_have_factor_one(
    small_model: Any, small_data: Any, settings: ConfigParser, folder: Path
) -> None:
    small_model.get_layer("second").bias.assign(np.full(7, -1e3))
    normalize_parameters(small_model, settings, x_norm=small_data)

    assert json.loads((folder / "99.9.json").read_text())["second"] == 1
    assert np.load(folder / "activations" / "sparsity.npz")["sparsity"][1] == 1.0


def test_a_linear_output_that_is_negative_gets_a_positive_factor_with_a_warning(
    small_data: Any, settings: ConfigParser, folder: Path
) -> None:
    model = keras.Sequential([layers.Input((6,)), layers.Dense(3, name="out")])
    model.get_layer("out").bias.assign(np.full(3, -50.0))
    before = np.asarray(model(small_data))
    with pytest.warns(RuntimeWarning, match="a factor has to be positive"):
        normalize_parameters(model, settings, x_norm=small_data)
    factor = json.loads((folder / "99.9.json").read_text())["out"]

    assert factor == pytest.approx(-np.percentile(before[:50], 0.1), rel=1e-5)
    np.testing.assert_allclose(np.asarray(model(small_data)) * factor, before, rtol=1e-6)


def test_a_normalisation_behind_the_relu_is_not_folded_and_the_output_is_kept(
    digits: Any, settings: ConfigParser
) -> None:
    keras.utils.set_random_seed(67)
    model = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.BatchNormalization(),
            layers.Conv2D(4, 3, use_bias=False),
            layers.BatchNormalization(scale=False, center=False),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    rng = np.random.default_rng(71)
    model.set_weights([w + rng.uniform(0, 0.5, w.shape) for w in model.get_weights()])
    x = digits[0][:100]
    before, names = np.asarray(model(x)), [layer.name for layer in model.layers]
    with pytest.warns(RuntimeWarning, match="does not directly follow weights"):
        normalize_parameters(model, settings, x_norm=x)

    # Positive weights make large sums: float32 keeps five digits of a softmax over them.
    np.testing.assert_allclose(model(x), before, atol=2e-5)
    assert [layer.name for layer in model.layers] == names


def test_a_dense_layer_behind_joined_convolutions_works(digits: Any, settings: ConfigParser) -> None:
    keras.utils.set_random_seed(73)
    x = keras.Input((8, 8, 1))
    branches = [layers.Conv2D(n, 3, activation="relu", name=f"conv{n}")(x) for n in (2, 3)]
    model = keras.Model(x, layers.Dense(4, name="dense")(layers.Flatten()(layers.Concatenate()(branches))))
    before = np.asarray(model(digits[0][:50]))
    normalize_parameters(model, settings, x_norm=digits[0][:50])
    after = np.asarray(model(digits[0][:50]))

    np.testing.assert_allclose(after / np.abs(after).max(), before / np.abs(before).max(), atol=1e-6)


# Errors change nothing


@pytest.mark.parametrize(
    ("factors", "error", "match"),
    [
        ({"input": 1, "first": 2.0, "second": -3.0, "classes": 1.0}, InputError, "positive and finite"),
        ({"input": 1, "first": 2.0, "second": 3.0, "conv9": 1.0}, MismatchError, "of another network"),
        ({"input": 1, "first": 2.0, "classes": 1.0}, InputError, "no factor: 'second'"),
        ({"input": 1, "first": float("nan"), "second": 3.0}, InputError, "positive and finite"),
    ],
)
def test_unusable_factors_are_refused_and_the_model_is_as_it_was(
    factors: dict[str, float], error: type[Exception], match: str, small_model: Any, settings: ConfigParser
) -> None:
    before = small_model.get_weights()
    with pytest.raises(error, match=match):
        normalize_parameters(small_model, settings, scale_facs=factors)

    assert unchanged(small_model, before)


def test_a_failed_certificate_leaves_the_model_as_it_was(
    small_model: Any, small_data: Any, settings: ConfigParser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actisketch.pipeline.normalizer.updating.rescaled_bias", lambda bias, **_: bias)
    small_model.get_layer("first").bias.assign(np.linspace(0.1, 0.8, 8))
    before = small_model.get_weights()
    with pytest.raises(CertificateError, match="the model is unchanged"):
        normalize_parameters(small_model, settings, x_norm=small_data)

    assert unchanged(small_model, before)


def test_samples_with_nan_are_refused(small_model: Any, small_data: Any, settings: ConfigParser) -> None:
    small_data[3, 2] = np.nan
    with pytest.raises(InputError, match=r"NaN|nan"):
        normalize_parameters(small_model, settings, x_norm=small_data)


@pytest.mark.parametrize("n_samples", [0, 9])
def test_too_few_samples_are_refused(
    n_samples: int, small_model: Any, small_data: Any, settings: ConfigParser
) -> None:
    with pytest.raises(InputError):
        normalize_parameters(small_model, settings, x_norm=small_data[:n_samples])


def test_settings_are_parsed_and_never_run(small_model: Any, small_data: Any, settings: ConfigParser) -> None:
    settings.set("output", "plot_vars", "__import__('os').abort()")
    with pytest.raises(InputError, match="plot_vars"):
        normalize_parameters(small_model, settings, x_norm=small_data)


def test_factors_that_must_not_be_overwritten_are_left(
    small_model: Any, small_data: Any, settings: ConfigParser, folder: Path
) -> None:
    settings.set("output", "overwrite", "False")
    folder.mkdir(parents=True)
    (folder / "99.9.json").write_text("{}")
    with pytest.warns(RuntimeWarning, match="the file is not changed"):
        normalize_parameters(small_model, settings, x_norm=small_data)

    assert (folder / "99.9.json").read_text() == "{}"


def test_plots_have_the_file_names_of_the_toolbox(
    small_model: Any, small_data: Any, settings: ConfigParser, folder: Path
) -> None:
    settings.set("output", "plot_vars", "{'normalization_activations'}")
    normalize_parameters(small_model, settings, x_norm=small_data)

    assert sorted(path.name for path in folder.glob("*.png")) == sorted(
        f"{index}Dense_{kind}.png"
        for index in (1, 2, 3)
        for kind in ("Activation_distribution", "Weight_distribution", "maximum_activity_distribution")
    )


def test_a_layer_without_a_rule_is_refused_before_anything_is_recorded_and_can_be_told(
    small_data: Any, settings: ConfigParser, folder: Path
) -> None:
    @keras.saving.register_keras_serializable("tests")
    class Doubled(layers.Layer):
        def call(self, x: Any) -> Any:
            return x * 2.0

    x = keras.Input((6,))
    hidden = Doubled(name="doubled")(layers.Dense(5, activation="relu", name="a")(x))
    model = keras.Model(x, layers.Dense(3, activation="softmax", name="b")(hidden))
    before = np.asarray(model(small_data))

    with pytest.raises(InputError, match="no rule for the layer 'doubled'"):
        normalize_parameters(model, settings, x_norm=small_data)
    assert not folder.exists() or not list(folder.rglob("*.json"))

    normalize_parameters(model, settings, x_norm=small_data, treat_as_identity=["doubled"])
    np.testing.assert_allclose(model(small_data), before, atol=1e-6)
    assert (folder / "99.9.json").exists()


def test_the_factors_of_a_network_that_fails_its_certificate_are_not_written(
    small_model: Any, small_data: Any, settings: ConfigParser, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Certificate, "passed", False)
    with pytest.raises(CertificateError):
        normalize_parameters(small_model, settings, x_norm=small_data)

    assert not (folder / "99.9.json").exists()


@pytest.mark.parametrize("name", ["input", "input_7", "keras_tensor_3", "input_layer"])
def test_the_first_factor_may_have_any_name_that_keras_gives_to_inputs(
    name: str, small_model: Any, settings: ConfigParser
) -> None:
    kernel = np.asarray(small_model.get_layer("first").kernel)

    normalize_parameters(
        small_model, settings, scale_facs={name: 4.0, "first": 2.0, "second": 3.0, "classes": 1.0}
    )

    np.testing.assert_allclose(small_model.get_layer("first").kernel, kernel * 4 / 2, rtol=1e-6)


@pytest.mark.parametrize(
    ("scale_facs", "says"),
    [
        ({"conv9": 5.0, "first": 2.0, "second": 3.0, "classes": 1.0}, "'conv9', which is neither a layer"),
        ({"input": 1, "first": "much", "second": 3.0, "classes": 1.0}, "'first' is 'much'"),
        ({}, "scale_facs is empty"),
        ([1.0, 2.0], "scale_facs is a list"),
        ("99.9.json", "scale_facs is a str"),
    ],
)
def test_factors_that_are_no_numbers_or_of_something_else_are_refused(
    scale_facs: Any, says: str, small_model: Any, settings: ConfigParser
) -> None:
    before = small_model.get_weights()
    with pytest.raises((InputError, MismatchError), match=says):
        normalize_parameters(small_model, settings, scale_facs=scale_facs)

    for old, new in zip(before, small_model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_old_files_of_activations_give_the_factors_where_there_are_no_samples(
    small_model: Any, small_data: Any, settings: ConfigParser, folder: Path
) -> None:
    kernels = {layer.name: np.asarray(layer.kernel) for layer in small_model.layers}
    (folder / "activations").mkdir(parents=True)
    expected = {}
    for layer in small_model.layers:
        found = np.asarray(keras.Model(small_model.inputs[0], layer.output)(small_data[:50]))
        np.savez_compressed(folder / "activations" / f"{layer.name}.npz", found)
        expected[layer.name] = float(np.percentile(found[found != 0], 99.9))

    with pytest.warns(RuntimeWarning, match="do not say which network"):
        normalize_parameters(small_model, settings, scale_facs={"input": 1})

    factors = json.loads((folder / "99.9.json").read_text())
    assert list(factors) == ["input", "first", "second", "classes"]
    for name in ("first", "second"):
        assert factors[name] == pytest.approx(expected[name], rel=1e-6)
    with np.load(folder / "activations" / "weights.npz") as weights:
        for name, kernel in kernels.items():
            np.testing.assert_array_equal(weights[name], kernel)


def test_without_samples_and_old_files_it_says_what_is_missing(
    small_model: Any, settings: ConfigParser
) -> None:
    with pytest.raises(InputError, match=r"no samples were given and 'first.npz' is not in"):
        normalize_parameters(small_model, settings, scale_facs={"input": 1})
