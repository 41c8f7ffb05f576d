"""A run's folder may come from anybody: no verb and no call runs code because the folder says so."""

import json

import pytest

from actisketch.pipeline import open_run
from actisketch.pipeline.job import run_job
from actisketch.pipeline.rerun import normalize_run, repair_run

OPT_INS = {
    "code": {"custom_objects": "evil.py"},
    "unsafe": {"safe_mode": False},
    "both": {"custom_objects": "evil.py", "safe_mode": False},
}


@pytest.fixture(params=OPT_INS)
def foreign(request, finished):
    """A run whose manifest asks for code; the file says that it ran. With a damaged record, so that there is work."""
    ran = finished["folder"] / "it-ran"
    (finished["folder"] / "evil.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    path = finished["run"] / "run.json"
    manifest = json.loads(path.read_text())
    asked = dict(OPT_INS[request.param])
    if "custom_objects" in asked:
        asked["custom_objects"] = str(finished["folder"] / "evil.py")
    manifest["settings"]["model"] |= asked
    manifest.pop("content_hash", None)
    path.write_text(json.dumps(manifest))
    yield {**finished, "ran": ran, "asked": asked}
    assert not ran.exists()


def flags_of(asked):
    flags = ["--custom-objects"] if "custom_objects" in asked else []
    return [*flags, "--unsafe-model"] if "safe_mode" in asked else flags


@pytest.mark.parametrize("verb", ["verify --repair", "normalize", "normalize --output"])
def test_a_verb_that_needs_the_network_says_what_the_folder_wants_and_asks_for_the_flag(call, foreign, verb):
    name, *more = verb.split()
    answer = call(name, foreign["run"], *more, *([foreign["folder"] / "side"] if "--output" in more else []))

    assert answer.code == 2
    assert "wants code to be run" in answer.err
    assert all(flag in answer.err for flag in flags_of(foreign["asked"]))


@pytest.mark.parametrize("verb", ["status", "percentiles", "factors", "export", "report", "verify"])
def test_a_verb_that_asks_answers_and_runs_nothing(call, foreign, verb):
    assert call(verb, foreign["run"]).code == 0


def test_a_manifest_is_no_job_file(call, foreign):
    assert call("run", foreign["run"] / "run.json").code == 2


@pytest.mark.parametrize("door", [normalize_run, repair_run])
def test_a_call_asks_too(foreign, door):
    with pytest.raises(ValueError, match="safe_mode=False"):
        door(open_run(foreign["run"]))


def test_the_settings_of_an_opened_run_hold_no_opt_in(foreign):
    settings = open_run(foreign["run"]).settings
    run_job(settings)  # the network needs no code: it is reloaded

    assert settings.model.custom_objects is None
    assert settings.model.safe_mode


def test_the_flag_of_the_user_is_enough(call, finished):
    ran = finished["folder"] / "it-ran"
    mine = finished["folder"] / "mine.py"
    mine.write_text(f"open({str(ran)!r}, 'w').close()\n")
    trusting = ["--custom-objects", mine, "--unsafe-model"]
    with_flag = [call("run", finished["job"], *trusting, "--output", finished["folder"] / "mine")]
    ran.unlink()
    chunk = next((finished["folder"] / "mine/cache/first").glob("c.*"))
    chunk.write_bytes(b"damage")
    with_flag.append(call("verify", finished["folder"] / "mine", "--repair", *trusting))

    assert [answer.code for answer in with_flag] == [0, 0], with_flag
    assert ran.exists()
