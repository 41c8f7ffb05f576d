"""The default memory limit, as the command line tells of it; the machines are made up."""

import json
import tomllib

import pytest

from actisketch.pipeline.planning.machine_memory import UsableMemory

from ..on_disk import contents


@pytest.fixture
def machine(monkeypatch):
    """Make this a machine of so many MiB."""

    def make(mib):
        usable = UsableMemory(mib * 2**20, "of this machine")
        monkeypatch.setattr("actisketch.pipeline.planning.memory_limit.usable_memory", lambda: usable)

    return make


def test_plan_tells_the_limit_what_it_is_a_share_of_and_how_to_set_another(call, small_files, machine):
    machine(10 * 2**10)
    shown = call("plan", small_files["job"])
    shared = call("plan", small_files["job"], "--workers", 4)
    found = json.loads(call("plan", small_files["job"], "--json").out)

    assert " of 6.0 GiB allowed, beyond Python and TensorFlow" in shown.out
    assert (
        "\n  the limit is the default, 60 % of the 10.0 GiB of this machine: record.memory_limit (--memory-limit) sets "
        "another\n"
    ) in shown.out
    assert " of 1.5 GiB allowed" in shared.out
    assert "of this machine, shared by 4 workers: record.memory_limit" in shared.out
    assert found["memory_limit"] == found["default_limit"]["nbytes"] == 6 * 2**30
    assert found["default_limit"]["of_nbytes"] == 10 * 2**30


def test_a_limit_that_was_set_is_told_as_it_is(call, small_files, machine):
    machine(10 * 2**10)
    shown = call("plan", small_files["job"], "--memory-limit", "3 GiB")
    found = json.loads(call("plan", small_files["job"], "--memory-limit", "3 GiB", "--json").out)

    assert " of 3.0 GiB allowed" in shown.out
    assert "the limit is" not in shown.out
    assert (found["memory_limit"], found["default_limit"]) == (3 * 2**30, None)


def test_the_job_file_of_init_leaves_the_limit_to_the_machine(call, tmp_path, small_files, machine):
    machine(10 * 2**10)
    path = tmp_path / "mine.toml"
    call("init", path)
    shown = call("plan", path, "--model", small_files["model"], "--data", small_files["data"])

    assert "memory_limit" not in tomllib.loads(path.read_text()).get("record", {})
    assert '#memory_limit = "4 GiB"' in path.read_text()
    assert "60 % of the 10.0 GiB of this machine" in shown.out


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_a_job_that_is_too_large_for_the_machine_is_refused(call, small_files, machine, verb):
    machine(128)
    answer = call(verb, small_files["job"])

    assert answer.code == 5
    assert (
        "record.memory_limit allows 76.8 MiB, the default, 60 % of the 128.0 MiB of this machine"
        in answer.err
    )
    assert "run it on a machine with more memory" in answer.err
    assert not (small_files["run"] / "cache").exists()


def test_a_run_is_resumed_on_a_smaller_machine_and_reloaded_on_one_that_is_too_small(
    call, small_files, machine
):
    machine(2**17)
    assert call("run", small_files["job"]).code == 0
    cache = small_files["run"] / "cache"
    before = contents(cache)
    sorted((cache / ".actisketch" / "commits").iterdir())[1].unlink()
    machine(400)
    resumed = json.loads(call("--quiet", "run", small_files["job"], "--json").out)
    machine(1)
    again = json.loads(call("--quiet", "run", small_files["job"], "--json").out)
    planned = call("plan", small_files["job"])

    assert (resumed["n_blocks"], resumed["n_blocks_computed"]) == (4, 1)
    assert (again["n_blocks"], again["n_blocks_computed"]) == (4, 0)
    assert contents(cache) == before
    assert planned.code == 0, planned.err


def test_plan_refuses_what_run_would_refuse_and_nothing_where_all_is_recorded(call, finished):
    lowered = ["--memory-limit", "1 MiB", "--disk-limit", "1 KB"]

    assert call("plan", finished["job"], *lowered).code == 0
    assert call("run", finished["job"], *lowered).code == 0
    refused = call("plan", finished["job"], *lowered, "--output", finished["folder"] / "another")
    assert refused.code == 5
