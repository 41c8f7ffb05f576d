"""The command line called in this process: quick, and with TensorFlow imported once."""

import shutil
from dataclasses import dataclass

import numpy as np
import pytest

from ..on_disk import contents


@dataclass
class Answer:
    code: int
    out: str
    err: str


@pytest.fixture
def call(capsys):
    """Run a command line; return exit code and what was printed."""
    from actisketch.pipeline.cli import commands
    from actisketch.pipeline.cli.session import run_command

    def call(*arguments):
        capsys.readouterr()
        code = run_command(commands, [str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return Answer(code, printed.out, printed.err)

    return call


@pytest.fixture
def small_files(tmp_path, small_model, small_data):
    """The small model and data as files, and a job file for them."""
    return write_small_files(tmp_path, small_model, small_data)


def write_small_files(folder, model, data):
    model.save(folder / "small.keras")
    np.savez(folder / "small.npz", x=data, y=np.arange(len(data)) % 3)
    (folder / "job.toml").write_text(
        'output = "run"\n[model]\npath = "small.keras"\n[data]\npath = "small.npz"\n'
        "[record]\nbatch_size = 8\nblock_samples = 16\n[report]\nenabled = false\n"
    )
    return files_in(folder)


def files_in(folder):
    names = {"model": "small.keras", "data": "small.npz", "job": "job.toml", "run": "run"}
    return {"folder": folder, **{key: folder / name for key, name in names.items()}}


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory, small_parts):
    """A folder with the small files and a finished run of them; copied for each test that wants one."""
    import keras

    from actisketch.pipeline.cli import commands
    from actisketch.pipeline.cli.session import run_command

    folder = tmp_path_factory.mktemp("finished") / "small"
    folder.mkdir()
    make_model, make_data = small_parts
    files = write_small_files(folder, make_model(keras), make_data())
    assert run_command(commands, ["--quiet", "run", str(files["job"])]) == 0
    return folder


@pytest.fixture
def finished(tmp_path, finished_once):
    """The small files and a finished run of them, to be changed at will."""
    shutil.copytree(finished_once, tmp_path, dirs_exist_ok=True)
    return files_in(tmp_path)


@pytest.fixture
def refused(call, tmp_path):
    """Run with these flags; it must be refused, say so in one sentence and leave no trace."""

    def refused(*arguments, code=2, verb="run"):
        before = contents(tmp_path, without=())
        answer = call(verb, *arguments)

        assert answer.code == code, (answer.code, answer.err)
        assert "Traceback" not in answer.err + answer.out
        assert answer.err.startswith("actisketch: ")
        # One sentence; a mismatch lists what differs, a line each, below it.
        assert all(line.startswith("  ") for line in answer.err.splitlines()[1:])
        assert contents(tmp_path, without=()) == before
        return answer.err

    return refused


@pytest.fixture
def small_run(finished):
    """The folder of a finished run of the small network."""
    return finished["run"]
