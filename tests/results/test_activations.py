"""Recorded activations as an array: NumPy's indexing, checked blocks, on every kind of store."""

import pickle
import uuid

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from actisketch.pipeline import run
from actisketch.pipeline.record.recorder import record_missing
from actisketch.pipeline.results.activation_array import Activations
from actisketch.pipeline.sketch import SketchSpec
from actisketch.storage import Cache, CacheSpec
from actisketch.storage.errors import FormatError, IncompleteError, InputError

from ..conftest import BUCKET

N_SAMPLES, BLOCK = 23, 8
SHAPE = (3, 2, 5)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A cache of three blocks, the last shorter; and the values it was recorded from."""
    from ..record.conftest import StandInProducer

    producer = StandInProducer(n_samples=N_SAMPLES)
    folder = tmp_path_factory.mktemp("recorded") / "c"
    spec = CacheSpec(
        points=producer.points, n_samples=N_SAMPLES, batch_size=4, block_samples=BLOCK, identity={}
    )
    with Cache.create_or_resume(folder, spec) as cache:
        record_missing(cache, producer, sketch=SketchSpec())
    return Cache.open(folder), producer.all_values("conv")


@given(index=hnp.basic_indices((N_SAMPLES, *SHAPE), allow_newaxis=True, allow_ellipsis=True))
@settings(max_examples=200)
def test_basic_indexing_is_that_of_numpy(recorded, index):
    cache, values = recorded

    found = Activations(cache, "conv")[index]

    assert np.array_equal(found, values[index])
    assert np.shape(found) == values[index].shape


@given(
    rows=hnp.arrays(np.int64, hnp.array_shapes(max_dims=2, max_side=4), elements=st.integers(-23, 22)),
    last=st.sampled_from([slice(None), slice(None, None, -1), 2, ...]),
)
@settings(max_examples=100)
def test_samples_may_be_chosen_in_any_order_and_twice(recorded, rows, last):
    cache, values = recorded
    activations = Activations(cache, "conv")

    assert np.array_equal(activations[rows], values[rows])
    assert np.array_equal(activations[rows, :, 0, last], values[rows, :, 0, last])
    assert np.array_equal(activations[rows.tolist()], values[rows.tolist()])


@pytest.mark.parametrize(
    "index",
    [
        np.arange(N_SAMPLES) % 3 == 0,
        np.zeros(N_SAMPLES, bool),
        [],
        (3, slice(None), [0, 1]),
        (slice(2, 20, 5), 1, [0, 1], [4, 4]),
        np.int16(-1),
        slice(30, 40),
        (),
        range(20, 3, -4),
        ((0, 5, 2),),
        (slice(None), range(2)),
    ],
    ids=repr,
)
def test_masks_lists_and_their_mixtures(recorded, index):
    cache, values = recorded

    found = Activations(cache, "conv")[index]

    assert np.array_equal(found, values[index])
    assert found.shape == values[index].shape


def test_a_mask_over_several_axes(recorded):
    cache, values = recorded

    assert np.array_equal(Activations(cache, "conv")[values > 0.5], values[values > 0.5])


@pytest.mark.parametrize(
    "index",
    [23, -24, [0, 23], 1.0, "x", (0, 0, 0, 0, 0), (..., ...), True, np.ones(5, bool), [0.5]],
    ids=repr,
)
def test_what_numpy_refuses_is_refused(recorded, index):
    cache, values = recorded

    with pytest.raises((IndexError, TypeError)):
        Activations(cache, "conv")[index]
    if index is not True:  # numpy adds an axis
        with pytest.raises((IndexError, TypeError)):
            values[index]


def test_it_is_an_array_to_numpy_and_dask_and_in_another_process(recorded):
    import dask.array

    cache, values = recorded
    activations = Activations(cache, "conv")
    lazy = dask.array.from_array(activations, chunks=activations.chunks)

    assert np.array_equal(np.asarray(activations), values)
    assert np.asarray(activations, np.float64).dtype == np.float64
    assert np.max(activations) == values.max()
    assert (activations.ndim, activations.size, activations.nbytes) == (4, values.size, values.nbytes)
    assert lazy.chunks[0] == (8, 8, 7)
    assert np.array_equal(lazy[5:20, 1].compute(), values[5:20, 1])
    assert np.array_equal(np.stack(list(activations)), values)
    assert [len(block) for block in activations.blocks()] == [8, 8, 7]
    assert np.array_equal(pickle.loads(pickle.dumps(activations))[::2], values[::2])


def test_what_is_read_may_be_changed_without_changing_what_is_read_next(recorded):
    cache, values = recorded
    activations = Activations(cache, "conv")
    activations[:8][:] = 7.0

    assert np.array_equal(activations[:8], values[:8])


SETTINGS = {"report": {"enabled": False}, "record": {"batch_size": 16, "block_samples": 16}}


@pytest.fixture
def expected(small_model, small_data):
    import keras

    return keras.Model(small_model.inputs, small_model.layers[1].output).predict(small_data, verbose=0)


@pytest.mark.parametrize("kind", ["local", "memory", "s3"])
def test_a_run_on_any_store_gives_its_activations(tmp_path, small_model, small_data, expected, kind, request):
    places = {"memory": f"memory://{uuid.uuid4()}", "s3": f"s3://{BUCKET}/{uuid.uuid4()}"}
    cache = {"url": places[kind]} if kind in places else {}
    if kind == "s3":
        cache["storage_options"] = request.getfixturevalue("s3").options
    result = run(
        small_model, small_data, output=tmp_path / "r", batch_size=8, normalize=False,
        settings={**SETTINGS, "cache": cache},
    )  # fmt: skip

    assert np.allclose(result.activations("second")[10:20], expected[10:20], atol=1e-6)


@pytest.fixture
def local(tmp_path, small_model, small_data):
    options = {"batch_size": 8, "normalize": False, "settings": SETTINGS}
    return run(small_model, small_data, output=tmp_path / "r", **options), tmp_path / "r" / "cache"


def test_chunks_that_were_swapped_or_deleted_are_never_read(local, expected):
    result, cache = local
    first, second, third = (cache / "second" / f"c.{i}.0" for i in range(3))
    stored = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(stored)
    third.unlink()
    activations = result.activations("second")

    for place in (0, 20, 40):
        with pytest.raises(FormatError, match=f"block {place // 16}"):
            activations[place]
    assert np.allclose(activations[48:], expected[48:], atol=1e-6)


def test_blocks_that_are_not_recorded_are_named(local):
    result, cache = local
    sorted((cache / ".actisketch" / "commits").iterdir())[1].unlink()

    with pytest.raises(IncompleteError, match="block 1"):
        result.activations("second")[:]


def test_an_unknown_point_and_a_run_of_sketches_alone(local, tmp_path, small_model, small_data):
    bare = run(
        small_model, small_data, output=tmp_path / "bare", normalize=False,
        settings={"report": {"enabled": False}, "record": {"activations": False}},
    )  # fmt: skip

    with pytest.raises(InputError, match=r"no point 'secnd'.*'second'"):
        local[0].activations("secnd")
    with pytest.raises(InputError, match=r"record\.activations"):
        bare.activations("second")


@pytest.fixture
def dead(tmp_path, small_model, small_data):
    """A run whose second layer gives nothing but zeros."""
    small_model.layers[1].set_weights([np.zeros((8, 7)), -np.ones(7)])
    options = {"normalize": False, "settings": SETTINGS}
    return run(small_model, small_data, output=tmp_path / "r", **options)


@pytest.mark.parametrize("exact", [False, True])
def test_percentiles_of_no_values_are_nan_and_are_shown(dead, exact):
    one = dead.percentile("second", 99.0, exact=exact)
    rows = dead.percentiles([50.0, 99.0], exact=exact)

    assert np.isnan([one.value, one.lo, one.hi]).all()
    assert [(row.point, row.q) for row in rows] == [
        (point, q) for point in ("first", "second", "classes") for q in (50.0, 99.0)
    ]
    assert dead.percentile("second", 99.0, nonzero=False, exact=exact).value == 0.0


@pytest.mark.parametrize("q", ["x", "50", None, 101, float("nan"), [50]])
def test_a_percentile_that_is_no_number_is_refused(dead, q):
    with pytest.raises(InputError, match="a number from 0 to 100"):
        dead.percentiles([50.0, q])
