"""Tab completes verbs, flags and values: what a shell gets from the command."""

import pytest
from click.shell_completion import BashComplete

from actisketch.pipeline.cli.verbs import commands

from ..service.conftest import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("completed") / "run").folder


def offered(words, begun):
    complete = BashComplete(commands, {}, "actisketch", "_ACTISKETCH_COMPLETE")
    return [item.value for item in complete.get_completions(list(map(str, words)), begun)]


def test_verbs_and_flags_are_offered():
    assert offered([], "st") == ["status"]
    assert offered(["percentiles", "x"], "--qu") == ["--quantile", "--quiet"]


def test_points_of_the_run_are_offered(run):
    assert offered(["percentiles", run, "--point"], "c") == ["conv"]
    assert offered(["sweep", run, "--point"], "") == ["conv", "<b>dense/1</b>"]
    assert offered(["compare", run, run, "--points"], "conv,<") == ["conv,<b>dense/1</b>"]


def test_values_with_a_fixed_choice_are_offered():
    assert offered(["factors", "x", "--method"], "m") == ["max", "mse"]
    assert "tdigest" in offered(["export", "x", "--format"], "t")
    assert offered(["run", "--points"], "l") == ["leaves"]
    assert offered(["compare", "a", "b", "--by"], "") == ["ks", "wasserstein"]


def test_nothing_is_offered_where_there_is_no_run(tmp_path):
    assert offered(["percentiles", tmp_path, "--point"], "c") == []
