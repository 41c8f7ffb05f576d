"""`statistics`: the numbers of NumPy, any percentile within its interval, and no folder left behind."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest

from actisketch.pipeline import statistics
from actisketch.pipeline.results.run_dataset import lazy_dataset
from actisketch.pipeline.results.tidy import tidy_frame
from actisketch.storage.errors import InputError

QS = (0.0, 12.5, 50.0, 99.0, 100.0)


@pytest.fixture(scope="module")
def tall():
    keras.utils.set_random_seed(11)
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(7, "relu", name="hidden"),
            keras.layers.Dense(3, name="out"),
        ]
    )


@pytest.fixture(scope="module")
def samples():
    return np.random.default_rng(23).standard_normal((211, 5), dtype=np.float32)


@pytest.fixture(scope="module")
def table(tall, samples):
    return statistics(tall, samples, percentiles=QS, per_channel=True, batch_size=32)


@pytest.fixture(scope="module")
def values(tall, samples):
    """What Keras computes, in batches of the same size."""
    hidden = keras.Model(tall.inputs, tall.layers[0].output).predict(samples, batch_size=32, verbose=0)
    return {"hidden": hidden, "out": tall.predict(samples, batch_size=32, verbose=0)}


def ends(values, q):
    """The two order statistics that np.percentile interpolates between, with room for Keras' rounding."""
    below, above = (np.percentile(values, q, method=method) for method in ("lower", "higher"))
    slack = 1e-5 * np.abs(values).max()
    return below - slack, above + slack


def test_the_numbers_are_those_of_numpy(table, values):
    assert list(table) == ["hidden", "out"]
    for point, expected in values.items():
        row = table[point]
        assert (row.count, row.shape) == (expected.size, expected.shape[1:])
        assert row.zeros == (expected == 0).sum()
        assert row.mean == pytest.approx(expected.astype(np.float64).mean(), abs=1e-6)
        assert row.std == pytest.approx(expected.std(dtype=np.float64), rel=0.01)
        assert (row.min, row.max) == pytest.approx((expected.min(), expected.max()), rel=1e-5)


@pytest.mark.parametrize("q", [*QS, 3.3, 99.9])
@pytest.mark.parametrize("nonzero", [True, False])
def test_any_percentile_has_an_interval_that_contains_the_exact_one(table, values, q, nonzero):
    for point, expected in values.items():
        below, above = ends(expected[expected != 0] if nonzero else expected, q)
        found = table.percentile(point, q, nonzero=nonzero)

        assert below <= found.hi
        assert found.lo <= above
        assert found.lo <= found.value <= found.hi
        if q in QS and nonzero:
            assert table[point].percentiles[q] == found


def test_the_frame_is_tidy_and_has_channels(table, values):
    frame = table.to_dataframe()

    assert list(frame.columns) == ["point", "channel", "statistic", "value", "lo", "hi"]
    names = ["count", "zeros", "mean", "std", "min", "max", "p0", "p12.5", "p50", "p99", "p100"]
    whole = frame[frame.channel.isna()]
    assert whole[whole.point == "hidden"].statistic.tolist() == names
    assert len(frame) == len(names) * (1 + 7 + 1 + 3)
    assert (frame.lo <= frame.value).all()
    assert (frame.value <= frame.hi).all()
    wide = frame[frame.channel.notna()].pivot_table("value", ["point", "channel"], "statistic")
    assert np.allclose(wide.loc["out", "mean"], values["out"].mean(axis=0), atol=1e-6)
    assert np.allclose(wide.loc["hidden", "std"], values["hidden"].std(axis=0), rtol=0.01)
    assert np.array_equal(wide.loc["hidden", "zeros"], (values["hidden"] == 0).sum(axis=0))


def test_it_is_shown_in_a_terminal_and_in_a_notebook(table):
    text, page = repr(table), table._repr_html_()

    assert text.splitlines()[0] == "2 points, 211 samples"
    assert "hidden      7" in text
    assert page.count("<svg") == 2
    assert "percentiles of the non-zero activations" in page


def test_values_that_are_left_out_are_told_of_each_point(tall, samples):
    given = samples.copy()
    given[:7] = np.sign(given[:7]) * np.float32(3e38)
    settings = {"sketch": {"nonfinite": "exclude"}}
    found = statistics(tall, given, batch_size=32, settings=settings)
    hidden = keras.Model(tall.inputs, tall.layers[0].output).predict(given, batch_size=32, verbose=0)
    rows = [line.split() for line in repr(found).splitlines()]
    n_left_out = int((~np.isfinite(hidden)).sum())

    assert n_left_out > 0
    assert found["hidden"].left_out == n_left_out
    assert found["hidden"].count == hidden.size - n_left_out
    assert rows[1][2:5] == ["values", "not", "finite"]
    assert rows[2][3] == str(n_left_out)
    assert ">not finite</th>" in found._repr_html_()


def test_where_all_values_are_finite_no_column_says_so(table):
    assert {row.left_out for row in table.values()} == {0}
    assert "not finite" not in repr(table) + table._repr_html_()


INTERRUPTED = """
import os, shutil, tempfile
import keras, numpy as np
from actisketch.pipeline import statistics

tempfile.tempdir = os.getcwd()
remove, waiting = shutil.rmtree, [KeyboardInterrupt]

def interrupted(*arguments, **options):
    if waiting:
        raise waiting.pop()
    remove(*arguments, **options)

shutil.rmtree = interrupted
model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
try:
    statistics(model, np.ones((5, 3), np.float32))
except KeyboardInterrupt:
    print(len(os.listdir()))
"""


@pytest.mark.slow
def test_a_folder_whose_removal_is_interrupted_is_removed_at_the_end_of_the_program(tmp_path):
    command = [sys.executable, "-c", INTERRUPTED]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    assert done.stdout == "1\n", done.stderr[-2000:]
    assert list(tmp_path.iterdir()) == []


def test_percentiles_that_differ_late_have_names_of_their_own(tall, samples):
    found = statistics(tall, samples, percentiles=[99.99999, 100])
    one = statistics(tall, samples, percentiles=99.99999)

    assert {"p99.99999", "p100"} <= set(found.to_dataframe().statistic)
    assert list(one["out"].percentiles) == [99.99999]
    assert "p99.99999 [lo, hi]" in repr(found)


def test_other_points_are_told_by_name(table):
    assert "hiden" not in table
    assert table.get("hiden") is None
    with pytest.raises(KeyError, match="'hidden'"):
        table["hiden"]
    with pytest.raises(InputError, match=r"no point 'hiden'.*'hidden'"):
        table.percentile("hiden", 50)
    with pytest.raises(InputError, match="a number from 0 to 100"):
        table.percentile("hidden", 101)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"percentiles": [101]}, "0 to 100"),
        ({"percentiles": "99"}, "0 to 100"),
        ({"points": 5}, "points = 5"),
        ({"settings": {"cache": {"url": "s3://bucket"}}}, "no activations are kept"),
        ({"points": ["nothing"]}, "nothing"),
    ],
)
def test_what_cannot_be_done_is_refused(tall, samples, arguments, message):
    with pytest.raises(InputError, match=message):
        statistics(tall, samples, **arguments)


def test_no_folder_is_left_behind(tall, samples, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    seen = []

    def interrupt(event):
        seen.append(list(tmp_path.iterdir()))
        raise KeyboardInterrupt

    statistics(tall, samples, on_event=lambda _: seen.append(list(tmp_path.iterdir())))
    assert any(seen)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="holds nan"):
        statistics(tall, np.full((9, 5), np.nan, np.float32))
    with pytest.raises(KeyboardInterrupt):
        statistics(tall, samples, on_event=interrupt)

    assert seen[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("library", "door"),
    [
        ("pandas", lambda: tidy_frame({}, [], nonzero=True)),
        ("xarray", lambda: lazy_dataset({}, [], attributes={})),
    ],
)
def test_without_a_library_the_error_names_the_extra(library, door, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)

    with pytest.raises(InputError, match=rf"'{library}'.*pip install 'actisketch\[notebook\]'"):
        door()
