"""What a message of verify or repair advises is done here, word for word, and ends well."""

import json
import os
import re
import shlex
import shutil

import pytest

from ..on_disk import contents, flip

RECORD = "cache/.actisketch/commits/00000001.16-32.block"
CHUNK = "cache/second/c.1.0"


def make_folder(path):
    path.unlink(missing_ok=True)
    path.mkdir()


def link_to_itself(path):
    path.unlink(missing_ok=True)
    path.symlink_to(path)


def make_pipe(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def other_type(path):
    """The root's copy of an array's document: what zarr.open and xarray go by."""
    path.write_text(path.read_text().replace('"float32"', '"float64"'))


HARMS = {
    "record: folder": (RECORD, make_folder),
    "record: link to itself": (RECORD, link_to_itself),
    "record: pipe": (RECORD, make_pipe),
    "chunk: pipe": (CHUNK, make_pipe),
    "document: pipe": ("cache/second/zarr.json", make_pipe),
    "record: gone bad": (RECORD, flip),
    "record: empty": (RECORD, lambda path: path.write_bytes(b"")),
    "chunk: folder": (CHUNK, make_folder),
    "chunk: link to itself": (CHUNK, link_to_itself),
    "chunk: gone": (CHUNK, lambda path: path.unlink()),
    "document: folder": ("cache/second/zarr.json", make_folder),
    "document: link to itself": ("cache/zarr.json", link_to_itself),
    "document: another type in it": ("cache/zarr.json", other_type),
}


def advised(answer):
    """The commands of a message."""
    return [shlex.split(found)[1:] for found in re.findall(r"`(actisketch [^`]+)`", answer.err)]


@pytest.mark.parametrize(
    "harm", ["record: folder", "record: link to itself", "record: pipe", "record: empty"]
)
def test_a_block_whose_record_cannot_be_read_counts_as_missing(call, finished, harm):
    name, damage = HARMS[harm]
    damage(finished["run"] / name)
    status = call("status", finished["run"])
    answers = [call(verb, finished["run"]) for verb in ("percentiles", "factors", "export")]

    assert (status.code, "certificate  out of date" in status.out) == (0, True), status.err
    assert [answer.code for answer in answers] == [9, 9, 9], answers
    assert all("blocks are not recorded yet" in answer.err for answer in answers)


@pytest.mark.parametrize("harm", HARMS)
def test_verify_advises_repair_and_repair_mends(call, finished, harm):
    before = contents(finished["run"] / "cache")
    name, damage = HARMS[harm]
    damage(finished["run"] / name)
    verified = call("verify", finished["run"])
    (command,) = advised(verified)
    repaired = call(*command)

    assert verified.code == 4
    assert command == ["verify", str(finished["run"]), "--repair"]
    assert repaired.code == 0, repaired.err
    assert call("verify", finished["run"]).code == 0
    assert contents(finished["run"] / "cache") == before
    assert call("run", finished["job"]).code == 0


@pytest.mark.parametrize("harm", ["cut", "empty", "no JSON", "folder", "link"])
@pytest.mark.parametrize("with_more", [False, True])
def test_a_damaged_manifest_is_deleted_as_advised_and_the_cache_is_kept(call, finished, harm, with_more):
    manifest = finished["run"] / "run.json"
    if with_more:  # people keep things beside their results
        call("factors", finished["run"], "--percentile", 98, "--output", finished["run"] / "f98.json")
        shutil.copy(finished["job"], finished["run"] / "my job.toml")
    text = manifest.read_text()
    # What the stages took is measured anew.
    without = ("run.json", "run.log", "lock", "timings.json")
    before = contents(finished["run"], without=without)
    if harm == "folder":
        make_folder(manifest)
    elif harm == "link":
        link_to_itself(manifest)
    else:
        manifest.write_text({"cut": text[: len(text) // 2], "empty": "", "no JSON": "hello"}[harm])
    refused = call("run", finished["job"])
    asked = call("status", finished["run"])
    manifest.rmdir() if harm == "folder" else manifest.unlink()
    again = call("run", finished["job"])
    after = contents(finished["run"], without=without)

    if harm != "link":
        assert refused.code == asked.code == 4
        assert "delete that file and run the job again: the cache is kept" in refused.err
    assert again.code == 0, again.err
    assert "nothing to compute: reloaded" in again.err
    assert json.loads(manifest.read_text())["n_samples"] == 53
    assert after == before


@pytest.mark.parametrize("name", ["factors.json", "report", "cache", "statistics.json"])
def test_a_folder_of_somebody_elses_with_such_a_name_in_it_is_no_run(call, finished, name):
    other = finished["folder"] / "theirs"
    other.mkdir()
    (other / "notes.txt").write_text("precious")
    if "." in name:
        (other / name).write_text('{"mine": 1}')
    else:
        (other / name).mkdir()
    answer = call("run", finished["job"], "--output", other)

    assert answer.code == 2
    assert "contains foreign files" in answer.err
    assert (other / "notes.txt").read_text() == "precious"


def test_foreign_files_are_removed_as_advised(call, finished):
    junk = finished["run"] / "cache" / "first" / "junk"
    junk.write_text("junk")
    named = call("verify", finished["run"])
    junk.unlink()

    assert named.code == 4
    assert "which you have to remove" in named.err
    assert call("verify", finished["run"]).code == 0


def test_a_lost_description_is_restored_or_another_folder_chosen_as_advised(call, finished):
    description = finished["run"] / "cache" / ".actisketch" / "cache.json"
    kept = description.read_bytes()
    description.unlink()
    answers = [call(verb, finished["run"]) for verb in ("verify", "status")] + [call("run", finished["job"])]
    elsewhere = call("run", finished["job"], "--output", finished["folder"] / "another")
    description.write_bytes(kept)

    for answer in answers:
        assert answer.code == 4
        assert "has lost its description" in answer.err
        assert "restore it or choose another folder" in answer.err
    assert elsewhere.code == 0, elsewhere.err
    assert "nothing was recomputed" in call("run", finished["job"]).out


def test_what_is_not_recorded_yet_is_recorded_by_the_job_as_advised(call, finished):
    (finished["run"] / RECORD).unlink()
    named = call("verify", finished["run"])
    again = call("run", finished["job"])

    assert named.code == 9
    assert "run the job again" in named.err
    assert again.code == 0
    assert call("verify", finished["run"]).code == 0
