"""No table of the command line ever cuts a number or loses a column of names, however narrow the terminal is."""

import re
import sys

import keras
import numpy as np
import pytest

from .conftest import files_in, write_small_files

VERBS = {
    "run": ("run", "{job}"),
    "plan": ("plan", "{job}"),
    "status": ("status", "{run}"),
    "percentiles": ("percentiles", "{run}"),
    "exact percentiles": ("percentiles", "{run}", "--exact"),
    "percentiles of channels": ("percentiles", "{run}", "--per-channel", "-q", "99"),
    "factors": ("factors", "{run}"),
    "sweep": ("sweep", "{run}"),
    "sweep of points": ("sweep", "{run}", "--point", "*"),
    "sensitivity": ("sensitivity", "{run}"),
    "compare": ("compare", "{run}", "{other}", "-q", "50", "-q", "99.9"),
    "compare channels": ("compare", "{run}", "{other}", "--per-channel"),
    "export": ("export", "{run}", "--format", "nir", "--output", "{folder}/net.nir"),
    "normalize": ("normalize", "{run}", "--percentile", "99"),
    "init": ("init", "{folder}/new.toml", "--force"),
}
NAMES = ("encoder_first_block_dense", "b", "classifier")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two runs of a network with a long name in it, on samples of different sizes."""
    from actisketch.pipeline.cli import commands
    from actisketch.pipeline.cli.session import run_command

    keras.utils.set_random_seed(3)
    layers = [keras.layers.Dense(5, activation="relu", name=name) for name in NAMES]
    folder, data = tmp_path_factory.mktemp("narrow"), np.random.default_rng(3).normal(size=(40, 6))
    model = keras.Sequential([keras.Input((6,)), *layers])
    files = write_small_files(folder, model, data.astype("float32"))
    job = files["job"].read_text() + "[sketch]\nper_channel = true\n"
    files["job"].write_text(job)
    assert run_command(commands, ["--quiet", "run", str(files["job"])]) == 0
    np.savez(folder / "other.npz", x=(data**3).astype("float32"))
    other = job.replace('"run"', '"other"').replace("small.npz", "other.npz")
    (folder / "other.toml").write_text(other)
    assert run_command(commands, ["--quiet", "run", str(folder / "other.toml"), "--no-normalize"]) == 0
    # Its first call says how many batches it read, its later calls that nothing was computed again.
    arguments = [part.format(**files) for part in VERBS["normalize"]]
    assert run_command(commands, ["--quiet", *arguments]) == 0
    return {**files_in(folder), "other": folder / "other", "printed": {}}


@pytest.fixture
def shown(call, made, monkeypatch):
    """Return what a verb prints in a pipe, or in a terminal, of this width."""

    def shown(verb, width, is_terminal):
        if verb == "export":
            pytest.importorskip("nir")
        if (verb, width, is_terminal) in made["printed"]:
            return made["printed"][verb, width, is_terminal]
        monkeypatch.setenv("COLUMNS", str(width))
        monkeypatch.setenv("LINES", "25")
        monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
        answer = call("--quiet", *(part.format(**made) for part in VERBS[verb]))
        assert answer.code == 0, answer.err
        text = re.sub(r"\x1b\[[0-9;]*m|in [\d.]+ ms", "", answer.out)
        made["printed"][verb, width, is_terminal] = text
        return text

    return shown


def numbers_in(text):
    """Return the words that begin with a digit."""
    return sorted(re.findall(r"(?<![\w.])-?\d[\d.,e+-]*", text))


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_pipe_gets_every_number_and_name_whole(shown, verb, width):
    assert shown(verb, width, False) == shown(verb, 200, False)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "run"])
@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_narrow_terminal_shows_the_numbers_of_a_wide_one(shown, verb, width):
    assert numbers_in(shown(verb, width, True)) == numbers_in(shown(verb, 200, True))


@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_the_table_of_a_run_leaves_out_columns_but_never_digits(shown, width):
    narrow, wide = shown("run", width, True), shown("run", 200, True)

    assert set(numbers_in(narrow)) <= set(numbers_in(wide))
    assert "factor" in narrow
    assert all(re.search(rf"^{name[:10]}", narrow, re.MULTILINE) for name in NAMES)


@pytest.mark.parametrize("verb", ["compare", "percentiles", "factors", "sensitivity", "plan"])
@pytest.mark.parametrize("width", [20, 40, 60, 80])
def test_every_layer_keeps_its_name_in_a_narrow_terminal(shown, verb, width):
    text = shown(verb, width, True)

    assert all(re.search(rf"^{name[:10]}", text, re.MULTILINE) for name in NAMES)


@pytest.mark.parametrize("columns", ["0", "", "many"])
def test_columns_that_are_no_width_cut_nothing(call, finished, monkeypatch, columns):
    monkeypatch.delenv("COLUMNS", raising=False)
    expected = call("percentiles", finished["run"], "-q", "99")
    monkeypatch.setenv("COLUMNS", columns)

    assert expected.out
    assert call("percentiles", finished["run"], "-q", "99") == expected
