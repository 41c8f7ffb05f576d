"""Exports to where none can be written: one sentence, which is true of an export."""

import pytest


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
