"""What lies in the folder of a run is of that run as it is now: stale, damaged and replaced results are made anew."""

import json
import shutil

import numpy as np
import pytest

from actisketch.pipeline import open_run

from ..on_disk import contents, flip

NOTES = ("run.log", "lock", "run.json", "timings.json")  # of the time
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
    elif harm == "cut":
        path.write_bytes(b'{"a')
    else:
        flip(path)
    status = call("status", finished["run"])
    again = call("run", finished["job"])

    assert status.code == again.code == 0, status.err + again.err
    assert "not complete" in status.out
    assert "nothing was recomputed" not in again.out
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
    tree["stages"] = dict.fromkeys(tree["stages"], "0123456789abcdef")
    del tree["labels"], tree["content_hash"]
    manifest.write_text(json.dumps(tree))
    before = contents(finished["run"], without=NOTES)
    asked = [call(verb, finished["run"]) for verb in ("status", "percentiles", "factors", "export")]
    answer = json.loads(call("--quiet", "run", finished["job"], "--json").out)
    after = contents(finished["run"], without=NOTES)

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


def test_results_of_other_settings_are_not_shown_as_those_of_the_run(call, finished):
    call("report", finished["run"])
    answer = call("run", finished["job"], "--percentile", 50, "--no-normalize")
    status = open_run(finished["run"]).status()
    said = call("status", finished["run"]).out
    page = call("report", finished["run"], "--output", finished["folder"] / "again")
    factors = {p.name: p.factor for p in open_run(finished["run"]).written_factors().points}

    assert answer.code == page.code == 0, answer.err + page.err
    assert f"{factors['first']:.4g}" in answer.out
    assert "residual" not in answer.out
    assert "accuracy" not in answer.out
    for line in answer.out.splitlines():
        if line.startswith(("normalised network", "certificate", "report")):
            assert line.endswith("(out of date)")
    assert status.out_of_date == ("certificate", "network", "report")
    assert (status.certificate_passed, status.has_network, status.has_report) == (None, False, False)
    assert status.is_complete
    assert said.count("out of date") == 3
    assert not list((finished["folder"] / "again" / "figures").glob("*-weights.*"))


def test_a_report_of_other_factors_is_not_counted_as_the_runs(call, finished):
    call("report", finished["run"])
    call("run", finished["job"], "--percentile", 98, "--no-report")
    status = open_run(finished["run"]).status()

    assert (status.has_network, status.certificate_passed, status.has_report) == (True, True, False)
    assert status.out_of_date == ("report",)


def test_turning_normalisation_off_keeps_the_network_of_the_same_factors(call, finished):
    call("run", finished["job"], "--no-normalize")

    assert open_run(finished["run"]).status().has_network
    assert "reloaded the normalised network" in call("run", finished["job"]).err


@pytest.mark.parametrize("step", ["save_network", "write_json"])
def test_a_crash_while_results_are_replaced_leaves_no_certificate_of_another_network(
    call, finished, monkeypatch, step
):
    from actisketch.pipeline.stages import normalize as normalizing

    def crash(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(normalizing, step, crash)
        stopped = call("run", finished["job"], "--percentile", 50)
    status = open_run(finished["run"]).status()

    assert stopped.code == 130
    assert not (finished["run"] / "certificate.json").exists()
    assert (status.certificate_passed, status.has_network, status.is_complete) == (None, False, False)
    assert call("run", finished["job"], "--percentile", 50).code == 0
    assert open_run(finished["run"]).status().certificate_passed


OWN = ("run.json", "statistics.json", "factors.json", "certificate.json", "normalized.keras", "sketches.npz")


@pytest.mark.parametrize("name", [*OWN, "run.log", "cache/first/zarr.json"])
@pytest.mark.parametrize("verb", ["factors", "export"])
def test_no_output_replaces_a_file_of_a_run(call, finished, verb, name):
    target = finished["run"] / name
    before = target.read_bytes() if target.exists() else None
    answer = call(verb, finished["run"], "--output", target)

    assert answer.code == 2
    assert "belongs to a run" in answer.err
    if name != "run.log":
        assert (target.read_bytes() if target.exists() else None) == before


def test_no_output_replaces_a_file_of_a_run_by_another_name_of_it(call, finished):
    link = finished["folder"] / "link.json"
    link.symlink_to(finished["run"] / "factors.json")
    answer = call("factors", finished["run"], "--percentile", 50, "--output", link)

    assert answer.code == 2
    assert open_run(finished["run"]).status().has_factors


def test_an_export_into_the_folder_of_a_run_lies_beside_its_files(call, finished):
    before = contents(finished["run"], without=NOTES)
    answer = call("export", finished["run"], "--output", finished["run"])
    factors = call("factors", finished["run"], "--output", finished["run"] / "f50.json")
    after = contents(finished["run"], without=NOTES)

    assert answer.code == factors.code == 0, answer.err
    assert set(after) - set(before) == {"export.json", "f50.json"}
    assert {n: after[n] for n in before} == before
