"""The hidden verb that tries a cluster: made-up activations through the whole path."""

from __future__ import annotations

from pathlib import Path

from click.testing import CliRunner

from actisketch.pipeline.cli import commands
from actisketch.storage import Cache


def test_the_hidden_verb_records_and_merges_made_up_blocks(tmp_path: Path) -> None:
    sizes = ["--workers", "1", "--blocks", "3", "--block-samples", "5", "--values", "7"]
    done = CliRunner().invoke(commands, ["rehearse", "--cache", str(tmp_path / "c"), *sizes])

    assert done.exit_code == 0, done.output
    assert "3 blocks" in done.output
    assert "on 1 workers" in done.output
    assert f"{3 * 5 * 7} values sketched" in done.output
    with Cache.open(tmp_path / "c") as cache:
        assert cache.missing() == ()


def test_it_is_not_among_the_listed_verbs() -> None:
    assert "rehearse" not in CliRunner().invoke(commands, ["--help"]).output
