"""A network with an Add, as a user of the command line meets it: caches of earlier programs, one set of factors."""

import json

import keras
import numpy as np
import pytest

from actisketch.pipeline import open_run
from actisketch.pipeline.factors.merged_file import merged_key
from actisketch.pipeline.factors.ties import Ties
from actisketch.pipeline.stages.factors import FactorsStage

layers = keras.layers


def make_network():
    """A residual block: what the stem gives, what is added to it, a ReLU."""
    keras.utils.set_random_seed(43)
    x = keras.Input((6,))
    stem = layers.Dense(8, activation="relu", name="stem")(x)
    total = layers.Add(name="sum")([stem, layers.Dense(8, activation="relu", name="branch")(stem)])
    model = keras.Model(
        x, layers.Dense(3, activation="softmax", name="classes")(layers.ReLU(name="relu")(total))
    )
    model.get_layer("branch").kernel.assign(model.get_layer("branch").kernel * 3)
    return model


@pytest.fixture
def residual(tmp_path):
    """A residual network, samples, and a job file for them."""
    make_network().save(tmp_path / "net.keras")
    np.save(tmp_path / "x.npy", np.random.default_rng(43).random((67, 6), dtype=np.float32))
    (tmp_path / "job.toml").write_text(
        'output = "run"\n[model]\npath = "net.keras"\n[data]\npath = "x.npy"\n[report]\nenabled = false\n'
    )
    return tmp_path


def cache_of(folder):
    return {path: path.read_bytes() for path in (folder / "cache").rglob("*") if path.is_file()}


def test_a_cache_without_the_merges_says_how_to_go_on_with_it_and_that_works(call, residual):
    job, folder = residual / "job.toml", residual / "run"
    # What an earlier program recorded by default.
    assert call("run", job, "--points", "parameters").code == 0
    before = cache_of(folder)

    for verb in ("plan", "run"):
        refused = call(verb, job)
        assert refused.code == 3
        assert "without 'sum'" in refused.err
        assert "record.points = 'parameters' (--points parameters)" in refused.err
        assert "another output folder" in refused.err
    assert cache_of(folder) == before

    assert "nothing was recomputed" in call("run", job, "--points", "parameters").out
    assert call("normalize", folder).code == 0
    assert cache_of(folder) == before
    new = call("run", job, "--output", residual / "new")
    assert new.code == 0, new.err
    assert "sum" in new.out


def certified(folder):
    """The factors by which a network is really divided, by point."""
    tree = json.loads((folder / "certificate.json").read_text())
    assert tree["passed"]
    return {point["name"]: point["factor"] for point in tree["points"]}


def largest(factors):
    """The largest factor of each point of a factors file, or of what prints one."""
    return {point["name"]: np.max(point["factor"]) for point in factors["points"]}


def pinned_network():
    """A LayerNormalization, which pins the layer before it, and a gate, which is pinned as well."""
    keras.utils.set_random_seed(47)
    x = keras.Input((6,))
    a = layers.LayerNormalization(name="norm")(layers.Dense(8, activation="relu", name="a")(x))
    b = layers.Dense(8, activation="relu", name="b")(a)
    gate = layers.Dense(8, activation="sigmoid", name="gate")(a)
    y = layers.Dense(4, activation="relu", name="c")(layers.Multiply(name="gated")([b, gate]))
    return keras.Model(x, layers.Dense(3, activation="softmax", name="classes")(y))


def shared_network():
    """One layer called twice: its calls share a scale."""
    keras.utils.set_random_seed(53)
    x, shared = keras.Input((6,)), layers.Dense(6, activation="relu", name="shared")
    y = layers.Concatenate(name="both")([shared(x), shared(shared(x))])
    return keras.Model(x, layers.Dense(3, activation="softmax", name="classes")(y))


NETWORKS = {"an Add": make_network, "what pins": pinned_network, "a shared layer": shared_network}


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_folder_has_one_set_of_factors_whenever_it_is_normalised(call, residual, network, per_channel):
    job, folder = residual / "job.toml", residual / "run"
    NETWORKS[network]().save(residual / "net.keras")
    if per_channel:
        job.write_text(job.read_text() + "[sketch]\nper_channel = true\n[factors]\nper_channel = true\n")
    assert call("run", job, "--no-normalize").code == 0
    recorded = (folder / "factors.json").read_bytes()
    assert call("normalize", folder).code == 0
    used = certified(folder)

    assert (folder / "factors.json").read_bytes() == recorded
    assert largest(json.loads(recorded)) == pytest.approx(used)
    assert largest(json.loads(call("factors", folder, "--json").out)) == pytest.approx(used)
    exported = json.loads(call("export", folder, "--format", "json").out)
    assert largest(exported["factors"]) == pytest.approx(used)
    status = json.loads(call("status", folder, "--json").out)
    assert (status["has_factors"], status["certificate_passed"], status["out_of_date"]) == (True, True, [])
    assert "nothing was recomputed" in call("run", job).out


def as_written_before(folder):
    """Leave the factors as an earlier program did without normalising: each point's own."""
    run = open_run(folder)
    run.folder.update_manifest({"ties": Ties().to_dict()})
    FactorsStage(
        folder=run.folder, cache=run.cache, settings=run.settings, recorded=merged_key(run.cache)
    ).reload_or_compute()


def test_normalising_the_folder_of_an_earlier_program_writes_back_what_it_ties(call, residual):
    folder = residual / "run"
    assert call("run", residual / "job.toml", "--no-normalize").code == 0
    tied = (folder / "factors.json").read_bytes()
    as_written_before(folder)
    untied = largest(json.loads((folder / "factors.json").read_text()))
    assert call("normalize", folder).code == 0

    assert len(set(untied.values())) == 4
    assert (folder / "factors.json").read_bytes() == tied
    assert largest(json.loads(tied)) == pytest.approx(certified(folder))
    assert largest(json.loads(call("factors", folder, "--json").out)) == pytest.approx(certified(folder))
    assert json.loads(call("status", folder, "--json").out)["out_of_date"] == []


def test_factors_of_ones_own_are_written_beside_their_network_as_it_uses_them(call, residual):
    folder, mine = residual / "run", residual / "mine.json"
    assert call("run", residual / "job.toml").code == 0
    tree = json.loads((folder / "factors.json").read_text())
    del tree["content_hash"]  # as the message about changed files says
    for point, factor in zip(tree["points"], (2.0, 7.0, 3.0, 5.0), strict=True):
        point["factor"] = factor
    mine.write_text(json.dumps(tree))
    assert call("normalize", folder, "--factors", mine).code == 0
    side = json.loads((folder / "with-mine" / "factors.json").read_text())

    assert largest(side) == certified(folder / "with-mine")
    assert largest(side) == {"stem": 7.0, "branch": 7.0, "sum": 7.0, "classes": 1.0}
    assert [point["rule"] for point in side["points"]] == ["tied", "tied", "tied", "pinned"]


def test_a_network_that_cannot_be_normalised_is_recorded_and_refused_when_it_should_be(call, residual):
    x = keras.Input((6,))
    y = layers.Lambda(lambda v: v * v, name="square")(layers.Dense(8, activation="relu", name="a")(x))
    keras.Model(x, layers.Dense(3, name="out")(y)).save(residual / "net.keras")
    job, folder = residual / "job.toml", residual / "run"
    assert call("run", job, "--no-normalize", "--unsafe-model").code == 0
    before = (folder / "factors.json").read_bytes()
    refused = call("normalize", folder, "--unsafe-model")

    assert refused.code == 2
    assert "'square'" in refused.err
    assert (folder / "factors.json").read_bytes() == before
    assert not (folder / "certificate.json").exists()
