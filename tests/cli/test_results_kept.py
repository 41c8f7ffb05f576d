"""What lies in the folder of a run is of that run as it is now: stale, damaged and replaced results are made anew."""

import json
import shutil

import numpy as np
import pytest

from actisketch.pipeline import open_run


def contents(folder):
    """The bytes of every result, without what notes the time."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name not in {"run.log", "lock", "run.json"})
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in files}


RESULTS = (
    "statistics.json",
    "factors.json",
    "normalized-sketches.json",
    "normalized.keras",
    "certificate.json",
)


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        *((name, "cut") for name in RESULTS),
        ("normalized-sketches.json", "gone"),
        ("normalized.keras", "one byte"),
        ("factors.json", "one byte"),
    ],
)
def test_a_result_that_is_not_what_the_run_wrote_is_made_anew(call, finished, name, harm):
    path = finished["run"] / name
    whole = path.read_bytes()
    if harm == "gone":
        path.unlink()
    else:
        path.write_bytes(b'{"a' if harm == "cut" else whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
    status = call("status", finished["run"])
    again = call("run", finished["job"])

    assert status.code == again.code == 0, status.err + again.err
    assert "not complete" in status.out
    assert "nothing was recomputed" not in again.out
    if name == "normalized.keras":
        # Keras notes the time in it.
        import keras

        assert keras.saving.load_model(path).count_params() > 0
    else:
        assert path.read_bytes() == whole
    assert "nothing was recomputed" in call("run", finished["job"]).out
    assert "complete" in call("status", finished["run"]).out


@pytest.mark.parametrize("name", ["normalized-sketches.json", "normalized.keras", "certificate.json"])
def test_normalize_makes_anew_what_is_damaged(call, finished, name):
    (finished["run"] / name).write_text('{"a')
    answer = call("normalize", finished["run"])

    assert answer.code == 0, answer.err
    assert "reloaded the normalised network" not in answer.err
    assert open_run(finished["run"]).status().certificate_passed
    assert call("report", finished["run"]).code == 0
    assert "reloaded the normalised network" in call("normalize", finished["run"]).err


@pytest.mark.parametrize("verb", ["normalize", "report"])
def test_damaged_factors_are_named_with_what_makes_them_anew(call, finished, verb):
    (finished["run"] / "factors.json").write_text('{"a')
    answer = call(verb, finished["run"])

    assert answer.code == 4
    assert "factors.json" in answer.err
    assert "run the job again" in answer.err
    assert call("run", finished["job"]).code == 0
    assert call(verb, finished["run"]).code == 0


def test_a_page_or_a_figure_that_is_gone_is_drawn_anew(call, finished):
    call("report", finished["run"])
    figure = sorted((finished["run"] / "report" / "figures").iterdir())[1]
    figure.unlink()
    again = call("report", finished["run"])

    assert again.code == 0, again.err
    assert figure.exists()
    assert "reloaded" in call("report", finished["run"]).err


def test_a_report_elsewhere_says_nothing_of_the_runs_own(call, finished, tmp_path):
    call("report", finished["run"])
    call("report", finished["run"], "--output", tmp_path / "elsewhere")

    assert open_run(finished["run"]).status().has_report


def test_a_run_of_an_earlier_program_opens_and_its_results_are_made_anew_from_the_cache(call, finished):
    manifest = finished["run"] / "run.json"
    tree = json.loads(manifest.read_text())
    tree["stages"] = {name: "0123456789abcdef" for name in tree["stages"]}
    del tree["labels"]
    manifest.write_text(json.dumps(tree))
    before = contents(finished["run"])
    asked = [call(verb, finished["run"]) for verb in ("status", "percentiles", "factors", "export")]
    answer = json.loads(call("--quiet", "run", finished["job"], "--json").out)
    after = contents(finished["run"])

    assert [a.code for a in asked] == [0, 0, 0, 0]
    assert answer["n_blocks_computed"] == 0
    assert {n for n in before if before[n] != after[n]} <= {"normalized.keras"}
    assert "nothing was recomputed" in call("run", finished["job"]).out


def test_a_finished_run_that_was_moved_is_still_finished(call, finished, tmp_path):
    call("report", finished["run"])
    shutil.move(finished["run"], tmp_path / "moved")
    status = open_run(tmp_path / "moved").status()

    assert (status.is_complete, status.has_report, status.out_of_date) == (True, True, ())


def accuracy(answer):
    (line,) = [line for line in answer.out.splitlines() if line.startswith("accuracy")]
    return line


def test_accuracy_is_of_the_labels_that_are_there_now(call, finished, small_data):
    first = call("run", finished["job"])
    again = []
    for shift in (0, 1):
        np.savez(finished["data"], x=small_data, y=(np.arange(len(small_data)) + shift) % 3)
        again.append(call("run", finished["job"]))

    assert accuracy(again[0]) == accuracy(first)
    assert "nothing was recomputed" in again[0].out
    assert accuracy(again[1]) != accuracy(first)


def test_labels_that_are_added_to_a_finished_run_give_accuracy(call, small_files, small_data):
    np.savez(small_files["data"], x=small_data)
    assert "accuracy" not in call("run", small_files["job"]).out
    np.savez(small_files["data"], x=small_data, y=np.arange(len(small_data)) % 3)

    assert accuracy(call("run", small_files["job"]))
