"""``sketches.npz`` is made from the records: whatever befalls it, the answers stay and the next run makes it again."""

import random
import shutil

import pytest

from actisketch.pipeline.cli import session


def replace_by_a_folder(path):
    path.unlink()
    path.mkdir()


def mark_encrypted(path):
    """Set the flag of an encrypted member: zipfile raises a RuntimeError then."""
    whole = bytearray(path.read_bytes())
    at = whole.index(b"PK\x01\x02")
    whole[at + 8] |= 1
    path.write_bytes(whole)


def unknown_method(path):
    """A compression that nobody knows: a NotImplementedError."""
    whole = bytearray(path.read_bytes())
    at = whole.index(b"PK\x01\x02")
    whole[at + 10] = 99
    path.write_bytes(whole)


HARMS = {
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-30]),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "folder": replace_by_a_folder,
    "itself": lambda path: (path.unlink(), path.symlink_to(path)),
    "text": lambda path: path.write_text("no zip"),
    "encrypted": mark_encrypted,
    "method": unknown_method,
}


def answers(call, run):
    asked = [
        call("percentiles", run, "-q", 99.9, "-q", 50),
        call("factors", run, "--percentile", 98, "--json"),
        call("export", run),
        call("status", run, "--json"),
    ]
    return [(answer.code, answer.out) for answer in asked]


@pytest.mark.parametrize("harm", HARMS)
def test_answers_stay_and_a_run_makes_the_file_again(call, finished, harm):
    path = finished["run"] / "sketches.npz"
    whole, before = path.read_bytes(), answers(call, finished["run"])
    HARMS[harm](path)
    during = answers(call, finished["run"])
    healed = call("run", finished["job"])

    assert all(code == 0 for code, _ in before)
    assert during == before
    assert healed.code == 0, healed.err
    assert path.read_bytes() == whole
    assert not path.is_symlink()
    assert "nothing was recomputed" not in healed.out
    assert "nothing was recomputed" in call("run", finished["job"]).out


def test_no_flipped_bit_of_it_changes_an_answer(call, finished):
    """The directory at the zip's end and 120 places before it, one bit each."""
    path, chance = finished["run"] / "sketches.npz", random.Random(31)
    whole = path.read_bytes()
    (_, before) = answers(call, finished["run"])[0]
    directory = whole.index(b"PK\x01\x02")
    places = [*range(directory, len(whole), 3), *(chance.randrange(directory) for _ in range(120))]
    for place in places:
        harmed = bytearray(whole)
        harmed[place] ^= 1 << chance.randrange(8)
        path.write_bytes(harmed)
        answer = call("percentiles", finished["run"], "-q", 99.9, "-q", 50)
        assert (answer.code, answer.out) == (0, before), place

    print(f"{len(places)} flipped bits of sketches.npz, no other answer")


def test_an_input_that_ends_too_early_is_no_interrupt(call, finished, monkeypatch):
    """click takes an EOFError for Ctrl-D at a prompt, and there is no prompt: hidden, nobody would know of it."""
    from actisketch.pipeline.cli import ask

    def ends(_):
        raise EOFError("No data left in file")

    monkeypatch.setattr(ask, "open_run", ends)
    with pytest.raises(EOFError, match="No data left"):
        session.run_command(
            __import__("actisketch.pipeline.cli", fromlist=["commands"]).commands, ["status", "x"]
        )


def test_what_a_killed_process_left_half_written_is_removed_by_the_next_run(call, finished, tmp_path):
    import os
    import socket
    import subprocess
    import sys

    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    host, pid = socket.gethostname(), int(dead.stdout)
    run, report = finished["run"], finished["run"] / "report"
    call("report", run)
    gone = [
        run / f".run@{host}.{pid}.partial.json",
        run / f".normalized@{host}.{pid}.partial.keras",
        run / f".sketches@{host}.{pid}.partial.npz",
        run / "cache" / ".actisketch" / "tmp" / f"{host}.{pid}.5",
        run / "cache" / ".actisketch" / "probe-0123456789abcdef",
        run / "cache" / ".actisketch" / "probe-0123456789abcdef-fedcba9876543210",
        report / f".report@{host}.{pid}.partial-x1y2" / "index.html",
        run / ".old.4194303.partial.json",
    ]
    kept = [
        run / f".factors@{host}.{os.getppid()}.partial.json",
        run / f".factors@elsewhere.{pid}.partial.json",
        run / ".hidden.json",
    ]
    for path in (*gone, *kept):
        path.parent.mkdir(exist_ok=True)
        path.write_text("half")
    os.utime(gone[-1], (0, 0))
    verified = call("verify", run)
    answer = call("run", finished["job"])

    assert verified.code == 0, verified.err
    assert answer.code == 0, answer.err
    assert [path for path in gone if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []
    assert not gone[6].parent.exists()
    assert "nothing was recomputed" in answer.out


def test_what_a_killed_normalize_left_half_written_does_not_refuse_the_next(call, finished):
    call("factors", finished["run"], "--percentile", 98, "--output", finished["folder"] / "f98.json")
    folder = finished["run"] / "with-f98"
    folder.mkdir()
    shutil.copy(finished["run"] / "factors.json", folder / ".factors@elsewhere.17.partial.json")
    answer = call("normalize", finished["run"], "--factors", finished["folder"] / "f98.json")

    assert answer.code == 0, answer.err
    assert (folder / "normalized.keras").exists()
