"""A run whose blocks are not all recorded has one exit code, whatever is asked; hints repeat the flags."""

import socket
import subprocess
import sys

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


RECORDS = (
    "import sys; from actisketch.storage import Cache; path = sys.argv[1]; "
    "cache = Cache.create_or_resume(path, Cache.open(path).spec); print('holds', flush=True); sys.stdin.read()"
)


@pytest.fixture
def recording(tmp_path):
    """A run with two of its three blocks, and the process that records it now."""
    folder = MadeRun(tmp_path / "run").begin().record(2).folder
    command = [sys.executable, "-c", RECORDS, str(folder / "cache")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"holds\n"
        yield folder, process
        process.stdin.close()


@pytest.mark.parametrize("verb", ["status", "percentiles", "factors", "sweep", "sensitivity", "verify"])
def test_while_a_process_records_a_run_nobody_is_told_to_start_it_again(call, recording, verb):
    folder, process = recording
    answer = call(verb, folder)
    said = " ".join((answer.out + answer.err).split())  # long numbers of processes break lines elsewhere

    assert answer.code == (0 if verb == "status" else 9)
    assert f"process {process.pid} on {socket.gethostname()} is recording (2 of 3 blocks)" in said
    assert "run the job again" not in said


def test_a_process_that_has_ended_leaves_a_run_that_is_to_be_run_again(call, recording):
    folder, process = recording
    process.kill()
    process.wait()

    assert "not complete: run the job again to resume" in call("status", folder).out


def test_blocks_to_come_are_no_damage_of_their_own_line(call, half):
    answer = call("verify", half)
    (summary,) = answer.out.splitlines()

    assert summary.startswith("2 of 3 blocks")
    assert summary.endswith(": sound")
    assert "not recorded yet: 1 of 3 blocks" in answer.err


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("run", "value / divide_by + data.offset; not together with data.scale"),
        ("sensitivity", "lo and hi are the ends of the range"),
        ("export", "as an HDF5 file that nir.read opens"),
    ],
)
def test_the_help_explains_what_it_names(call, verb, words):
    assert words in " ".join(call(verb, "--help").out.split())
