"""Verify and repair on the command line: damage, foreign files, blocks that are missing."""

import json

import pytest

from actisketch.pipeline import open_run
from actisketch.storage.errors import FormatError

from ..on_disk import flip


def test_verify_says_to_remove_a_file_that_is_not_the_caches_and_repair_leaves_it(call, small_run):
    junk = small_run / "cache" / "first" / "junk"
    junk.write_text("precious")
    try:
        answers = [call("verify", small_run, *more) for more in ([], ["--repair"], [])]
    finally:
        kept = junk.read_text()
        junk.unlink()

    assert [answer.code for answer in answers] == [4, 4, 4]
    assert kept == "precious"
    assert "junk" in answers[0].out
    for answer in answers:
        assert " contains 1 foreign file, which " in answer.err
        assert (
            "which you have to remove (--repair deletes only files of the cache): 'first/junk'" in answer.err
        )
        assert "damaged" not in answer.err
    assert call("verify", small_run).code == 0


def test_verify_names_a_damaged_chunk_and_repair_computes_just_that_block(call, small_run):
    chunks = sorted((small_run / "cache" / "second").glob("c*"))
    whole = chunks[1].read_bytes()
    flip(chunks[1])
    damaged = call("verify", small_run)
    cache = open_run(small_run).cache
    with pytest.raises(FormatError, match="block 1"):
        cache.read_block("second", cache.blocks[1])
    repaired = call("verify", small_run, "--repair")

    assert damaged.code == 4
    assert "block 1, point 'second'" in damaged.out
    assert repaired.code == 0
    assert "computed 1 damaged block again" in repaired.out
    assert chunks[1].read_bytes() == whole


def test_one_block_is_not_said_to_be_blocks(call, small_files):
    command = ("run", small_files["job"], "--num-samples", 16, "--no-normalize")
    first, again = call(*command), call(*command)
    chunk = small_files["run"] / "cache" / "second" / "c.0.0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    damaged = call("verify", small_files["run"])
    repaired = call("verify", small_files["run"], "--repair")

    assert "recording activations: 16 of 16 samples to do" in first.err
    assert "computed 1 block, reloaded 0 of 1 block;" in first.err
    assert "nothing was recomputed: the only block was reloaded from the cache" in again.out
    assert "1 block of " in damaged.err
    assert "is damaged" in damaged.err
    assert "computed 1 damaged block again" in repaired.out
    assert "1 of 1 block, " in repaired.out


def test_repair_leaves_missing_blocks_and_says_how_many(call, small_run):
    records = sorted((small_run / "cache" / ".actisketch" / "commits").iterdir())
    records[0].unlink()
    chunk = small_run / "cache" / "second" / "c.2.0"
    chunk.write_bytes(chunk.read_bytes()[:-1])
    repaired = call("verify", small_run, "--repair", "--json")
    report = json.loads(repaired.out)

    assert repaired.code == 9
    assert "1 block of 4 not recorded yet" in repaired.err
    assert (report["is_sound"], report["is_complete"], report["n_committed"]) == (True, False, 3)
