"""A run whose blocks are not all recorded has one exit code, whatever is asked; hints repeat the flags."""

import pytest

from ..service.conftest import MadeRun, make_run


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    return MadeRun(tmp_path_factory.mktemp("half") / "run").begin().record(2).folder


VERBS = "percentiles factors sweep sensitivity verify export report normalize"


@pytest.mark.parametrize("verb", VERBS.split())
def test_every_verb_that_needs_all_blocks_ends_with_the_same_code(call, half, verb):
    answer = call(verb, half)

    assert answer.code == 9
    assert "Traceback" not in answer.err
    assert "1 of 3 blocks" in answer.err + answer.out or "2 of 3" in answer.out


@pytest.mark.parametrize("left", ["cache", "progress.json"])
@pytest.mark.parametrize("verb", ["status", "compare", *VERBS.split()])
def test_a_job_that_was_stopped_before_its_first_block_is_incomplete_too(call, tmp_path, verb, left):
    begun = MadeRun(tmp_path / "run").begin().folder
    (begun / "progress.json").write_text("{}")
    (begun / "run.json").unlink()
    if left == "cache":
        (begun / "progress.json").unlink()
    else:
        (begun / "cache").rename(tmp_path / "elsewhere")
    answer = call(verb, *([begun] * (2 if verb == "compare" else 1)))

    assert answer.code == 9
    assert f"nothing is recorded of {str(begun)!r} yet" in answer.err
    assert "run the job again to resume" in answer.err


def test_status_answers_what_it_is_asked(call, half):
    answer = call("status", half)

    assert answer.code == 0
    assert "not complete: run the job again to resume" in answer.out
    assert "2 of 3" in answer.out


def test_a_hint_has_the_flags_that_were_given(call, tmp_path):
    (tmp_path / "net.keras").touch()
    network = call("run", tmp_path / "net.keras", "--data", "x.npz", "--divide-by", 255)
    (tmp_path / "job.toml").write_text('output = "r"\n')
    run = call("percentiles", tmp_path / "job.toml", "-q", 9, "--json")

    assert f"`actisketch run --model {tmp_path / 'net.keras'} --data x.npz --divide-by 255`" in network.err
    assert f"`actisketch percentiles {tmp_path / 'r'} -q 9 --json`" in run.err


def test_the_advice_to_repair_has_the_flags_that_were_given(call, tmp_path):
    made = make_run(tmp_path / "run")
    chunk = next(path for path in (made.folder / "cache" / "conv").iterdir() if path.name.startswith("c."))
    chunk.write_bytes(b"\xff" + chunk.read_bytes()[1:])
    answer = call("verify", made.folder, "--unsafe-model")

    assert answer.code == 4
    assert f"`actisketch verify {made.folder} --unsafe-model --repair`" in answer.err
