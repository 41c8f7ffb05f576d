"""Exports to where none can be written: one sentence, which is true of an export."""

import os

import pytest

from actisketch.pipeline import open_run


def test_a_toolbox_export_into_what_has_the_name_of_a_file_is_told_so(refused, finished):
    new = finished["folder"] / "new" / "toolbox.out"
    message = refused(finished["run"], "--format", "toolbox", "--output", new, verb="export")

    assert "has the name of a file" in message
    assert "is a file" not in message


@pytest.mark.parametrize(
    ("output", "told", "code"),
    [
        ("/dev/full", "is no file and no folder: name one, or leave --output out for standard output", 2),
        (
            "/proc/x.csv",
            "cannot be written: ",
            7,
        ),
    ],
)
def test_an_export_to_where_no_file_can_be_says_nothing_of_resuming(refused, finished, output, told, code):
    message = refused(finished["run"], "--format", "csv", "--output", output, verb="export", code=code)

    assert told in message
    assert "resume" not in message


@pytest.mark.parametrize(
    "command",
    [
        ("export", "RUN", "--format", "csv", "--output"),
        ("factors", "RUN", "--output"),
        ("normalize", "RUN", "--weights-h5"),
        ("compare", "RUN", "RUN", "--html"),
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("file", ["model", "data"])
def test_the_network_and_the_samples_of_a_run_are_never_replaced(call, finished, command, file):
    settings = open_run(finished["run"]).settings
    original = settings.model.path if file == "model" else settings.data.path
    # Another name of the same file: what would replace it leaves the original to other tests.
    path = finished["folder"] / "mine.h5"
    os.link(original, path)
    before = path.read_bytes()
    answer = call(*(finished["run"] if each == "RUN" else each for each in command), path)

    assert answer.code == 2
    assert f"{str(path)!r} is a file that this is made from, and would be replaced" in answer.err
    assert path.read_bytes() == before
