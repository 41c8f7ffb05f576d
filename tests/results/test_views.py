"""What a run is seen as: tables, plots, data frames, datasets, t-digests; against NumPy on the plain activations."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET

import keras
import matplotlib
import numpy as np
import pytest

from actisketch.pipeline import open_run, plan, run
from actisketch.pipeline.certifier import Certificate
from actisketch.storage.errors import InputError

from ..service.conftest import MadeRun

MARKED = "out>of"
SETTINGS = {"report": {"enabled": False}, "record": {"batch_size": 16, "block_samples": 16}}


@pytest.fixture(scope="module")
def data():
    return np.random.default_rng(5).random((53, 6, 5), dtype=np.float32)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(5)
    inputs = keras.Input((6, 5))
    x = keras.layers.Conv1D(4, 3, activation="relu", name="sample")(inputs)
    x = keras.layers.Conv1D(3, 2, activation="relu", name="sample.channel")(x)
    x = keras.layers.GlobalMaxPooling1D()(x)
    return keras.Model(inputs, keras.layers.Dense(2, activation="softmax", name=MARKED)(x), name="net")


@pytest.fixture(scope="module")
def finished(model, data, tmp_path_factory):
    """A normalised run whose points have the names of dimensions, and marks of HTML."""
    output = tmp_path_factory.mktemp("views") / "run"
    return run(model, data, output=output, batch_size=16, per_channel=True, settings=SETTINGS)


@pytest.fixture(scope="module")
def values(model, data):
    layers = {name: model.get_layer(name) for name in ("sample", "sample.channel", MARKED)}
    return {
        name: keras.Model(model.inputs, layer.output).predict(data, batch_size=16, verbose=0)
        for name, layer in layers.items()
    }


@pytest.fixture
def figures():
    """Figures without a screen; none is left open."""
    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    yield plt
    plt.close("all")


def whole(page):
    """The page as a tree: every mark is closed, and every name is escaped."""
    assert MARKED not in page
    assert "out&gt;of" in page
    return ET.fromstring(page)


def test_a_run_is_shown_with_verdict_places_and_distributions(finished):
    page, text = finished._repr_html_(), str(finished)

    rows = list(whole(page).iter("tr"))
    assert len(rows) == 1 + 3
    assert page.count("<svg") == 3
    for shown in (page, text):
        assert "certificate passed, on 53 samples" in shown
        assert str(finished.folder.network_path) in shown
        assert finished.cache.url in shown
    assert repr(finished) == f"<Run {str(finished.folder.path)!r}: 3 points, 53 samples>"


def test_a_run_whose_blocks_are_missing_is_shown_too(finished, tmp_path):
    import shutil

    shutil.copytree(finished.folder.path, tmp_path / "r")
    sorted((tmp_path / "r" / "cache" / ".actisketch" / "commits").iterdir())[1].unlink()
    cut = open_run(tmp_path / "r")

    page = cut._repr_html_()
    assert "3 of 4 blocks are recorded" in page
    assert "run the job again" in page
    assert len(list(whole(page).iter("tr"))) == 1 + 3
    shutil.rmtree(tmp_path / "r" / "cache")
    assert "no cache" in open_run(tmp_path / "r")._repr_html_()


def test_factors_certificate_and_plan_are_shown(finished, model, data, tmp_path):
    certificate = finished.certificate()
    planned = plan(model, data, output=tmp_path / "p", batch_size=16)
    for thing, words in (
        (finished.factors(), ["pinned", "percentile"]),
        (certificate, ["passed", "residual"]),
        (planned, ["samples in", "memory: "]),
    ):
        page = thing._repr_html_()
        assert page.count("<svg") == len(list(whole(page).iter("tr"))) - 1 == 3
        assert [word for word in words if word not in page] == []
    assert certificate == dict(certificate)
    assert repr(finished.factors()).startswith("factors of 3 points, from the non-zero activations\npoint")
    assert repr(planned).startswith("plan: 53 samples in ")


def test_a_certificate_that_failed_says_so_first(finished):
    values = json.loads(json.dumps(finished.certificate()))
    point = values["points"][1]
    point |= {"max_residual": None, "passed": False}
    failed = Certificate.from_dict(values)

    for shown in (repr(failed), failed._repr_html_()):
        assert re.search(r"FAILED at 1 of 3 points, first .*sample\.channel", shown)
        assert "not finite" in shown
    (row,) = [line for line in repr(failed).splitlines() if line.startswith("sample.channel ")]
    assert row.endswith("FAILED")


def test_a_certificate_in_memory_is_shown_with_the_normalised_activations(small_model, small_data):
    from actisketch.pipeline import SketchSpec, as_source, certify, normalize_model

    normalised = normalize_model(small_model, {"first": 2.0, "second": 3.0, "classes": 1.0})
    options = {"batch_size": 8, "sketch_spec": SketchSpec()}
    page = certify(small_model, normalised, as_source(small_data), **options)._repr_html_()

    assert "normalised activations" in page
    assert page.count("zeros; the other values from 0 to") == 3


def test_a_run_with_exact_factors_is_shown_without_a_pass_over_its_activations(
    model, data, tmp_path, monkeypatch
):
    exact = {**SETTINGS, "factors": {"exact": True}}
    result = run(model, data, output=tmp_path / "r", batch_size=16, normalize=False, settings=exact)
    monkeypatch.setattr("actisketch.storage.Cache.read_block", None)

    assert "percentile" in result._repr_html_()
    result.folder.factors_path.unlink()
    assert "percentile" in result._repr_html_()


def test_a_plot_has_percentiles_and_factor_and_can_be_gone_on_with(finished, values, figures):
    figure, axes = figures.subplots()
    drawn = finished.plot("sample", [50.0, 99.0], ax=axes, color="tab:red")

    expected = values["sample"]
    nonzero = expected[expected != 0]
    assert drawn is axes
    labels = axes.get_legend_handles_labels()[1]
    assert [label.split()[0] for label in labels] == ["p50", "p99"]
    places = [line.get_xdata()[0] for line in axes.lines]
    assert places == pytest.approx(np.percentile(nonzero, [50, 99]), rel=0.02)
    (bars,) = [patch for patch in axes.patches if hasattr(patch, "get_data")]
    assert bars.get_data().values.sum() == pytest.approx(len(nonzero) / expected.size, rel=1e-6)
    axes.set_title("mine")
    figure.canvas.draw()


def test_a_plot_of_a_channel_marks_the_factor_of_the_channel(finished, values, figures):
    axes = finished.plot("sample", [], channel=2)

    expected = values["sample"][..., 2]
    assert axes.figure in [figures.figure(number) for number in figures.get_fignums()]
    (label,) = axes.get_legend_handles_labels()[1]
    assert label.startswith("factor")
    assert axes.lines[0].get_xdata()[0] == pytest.approx(
        np.percentile(expected[expected > 0], 99.9), rel=0.02
    )
    axes.figure.canvas.draw()


def test_factors_are_drawn_beside_the_largest_activation(finished, values, figures):
    axes = finished.plot_factors()
    chosen = finished.plot_factors(
        finished.factors(percentile=50.0, per_channel=False), ax=figures.subplots()[1]
    )

    assert "largest activation" in axes.get_legend_handles_labels()[1]
    maxima = axes.lines[0].get_ydata()
    assert maxima == pytest.approx([array.max() for array in values.values()], rel=1e-5)
    assert "p50 with its interval" in chosen.get_legend_handles_labels()[1]
    for each in (axes, chosen):
        assert [label.get_text() for label in each.get_xticklabels()] == list(values)
        each.figure.canvas.draw()


def test_a_name_between_dollar_signs_is_no_formula(figures):
    from actisketch.pipeline.results.run_plots import draw_distribution
    from actisketch.pipeline.sketch import Sketch

    axes = figures.subplots()[1]
    draw_distribution(axes, Sketch(), name=r"$\frac$", marks={}, factor=None, style={})

    assert r"\$\frac\$" in axes.get_title()
    axes.figure.canvas.draw()


def test_the_data_frame_of_a_run_is_that_of_its_table(finished, values):
    frame = finished.to_dataframe([99.0], nonzero=False)

    one = frame[(frame.point == "sample") & (frame.channel == 1)].set_index("statistic")
    expected = values["sample"][..., 1]
    assert one.value["count"] == expected.size
    assert one.value["max"] == pytest.approx(expected.max(), rel=1e-5)
    found = np.percentile(expected, 99, method="nearest")
    assert one.lo["p99"] * 0.999 <= found <= one.hi["p99"] * 1.001
    assert frame[frame.channel.isna()].point.unique().tolist() == list(finished.points)


def test_the_dataset_is_lazy_checked_and_has_a_name_for_each_axis(finished, values):
    dataset = finished.to_xarray()

    assert list(dataset) == list(values)
    assert {name: len(variable.dims) for name, variable in dataset.items()} == {
        name: array.ndim for name, array in values.items()
    }
    own = [dim for variable in dataset.values() for dim in variable.dims[1:]]
    (samples,) = {variable.dims[0] for variable in dataset.values()}
    assert len(set(own)) == len(own)
    assert not {samples, *own} & set(dataset)
    assert not dataset.coords
    assert dataset["sample"].chunks[0] == (16, 16, 16, 5)
    for name, expected in values.items():
        np.testing.assert_allclose(dataset[name].values, expected, atol=1e-6)
    np.testing.assert_allclose(
        dataset["sample.channel"].mean(samples).values, values["sample.channel"].mean(axis=0), atol=1e-6
    )
    assert dataset["sample"].attrs["layer_type"] == "Conv1D"


def test_a_damaged_chunk_is_not_in_the_dataset(finished, tmp_path):
    import shutil

    from actisketch.storage.errors import FormatError

    shutil.copytree(finished.folder.path, tmp_path / "r")
    chunk = next(path for path in sorted((tmp_path / "r" / "cache").rglob("c.1.*")) if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[::-1])
    dataset = open_run(tmp_path / "r").to_xarray()

    with pytest.raises(FormatError, match="block 1"):
        dataset.compute()


def test_the_digest_of_a_point_is_one_of_the_tdigest_package(finished, values):
    from tdigest import TDigest

    found = finished.tdigest("sample", channel=3)

    expected = values["sample"][..., 3]
    nonzero = expected[expected != 0]
    assert isinstance(found, TDigest)
    assert found.n == len(nonzero)
    assert found.percentile(50) == pytest.approx(np.percentile(nonzero, 50), rel=0.05)
    with pytest.raises(InputError, match="no point 'smple'"):
        finished.tdigest("smple")


def test_a_run_tells_how_many_values_of_each_point_were_left_out(tmp_path):
    class Overflowing(MadeRun):
        def values(self, point, start, stop):
            values = super().values(point, start, stop).copy()
            if point.name == "conv":
                values[:, 0] = np.inf
            return values

    made = (
        Overflowing(tmp_path / "run", changes={"sketch": {"nonfinite": "exclude"}}).begin().record().finish()
    )
    values = made.all_values("conv")
    lines = [re.split("  +", line) for line in str(open_run(made.folder)).splitlines()]
    (heads,) = (line for line in lines if line[0] == "point")
    told = {line[0]: line[heads.index("not finite")] for line in lines if line[0] == "conv"}

    assert told == {"conv": str(np.isinf(values).sum())}
