"""Every file of a finished run in turn is damaged in every way: named, or made again to the same bytes.

What a message advises is done, and must end well. Never a traceback, never another answer.
"""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from ..on_disk import contents

# What happened, and what stages took: it cannot be made again.
NOTES = ("run.log", "lock", "timings.json")
DOCUMENTED = {0, 2, 3, 4, 5, 6, 7, 8, 9}
KINDS = {
    "run.json": ["run.json"],
    "results": [
        "statistics.json",
        "factors.json",
        "certificate.json",
        "normalized-sketches.json",
        "normalized.keras",
        "sketches.npz",
        "run.log",
        "timings.json",
    ],
    "report": ["report/index.html", "report/figures/overview.svg", "report/figures/001-first-weights.svg"],
    "cache": [
        "cache/zarr.json",
        "cache/first/zarr.json",
        "cache/first/c.1.0",
        "cache/.actisketch/commits/00000002.32-48.block",
        "cache/.actisketch/lock",
    ],
    "description": ["cache/.actisketch/cache.json"],
}


def cut(path, other):
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def flip(path, other):
    whole = bytearray(path.read_bytes() or b"\0")
    whole[len(whole) // 2] ^= 0b100
    path.write_bytes(whole)


def empty(path, other):
    path.write_bytes(b"")


def remove(path, other):
    path.unlink()


def folder(path, other):
    path.unlink()
    path.mkdir()


def itself(path, other):
    path.unlink()
    path.symlink_to(path)


def link(path, other):
    """To what another run has there."""
    path.unlink()
    path.symlink_to(other)


def copied(path, other):
    shutil.copy(other, path)


IN_THE_WAY = re.compile(r"'([^']+)'(?:: [A-Za-z ]+)*; (?:a folder stands.*move it|it is a link.*remove it)")
HARMS = [cut, flip, empty, remove, folder, itself, link, copied]


@pytest.fixture(scope="module")
def two(tmp_path_factory, finished_once):
    """Finished runs of the same network with reports; the other has other samples and another percentile."""
    from actisketch.pipeline.cli import commands
    from actisketch.pipeline.cli.session import run_command

    home = tmp_path_factory.mktemp("two")
    shutil.copytree(finished_once, home, dirs_exist_ok=True)
    job, run = home / "job.toml", home / "run"
    assert run_command(commands, ["--quiet", "run", str(job), "--report"]) == 0
    more = ["--num-samples", "50", "--percentile", "98", "--report", "--output", str(home / "other")]
    assert run_command(commands, ["--quiet", "run", str(job), *more]) == 0
    shutil.copytree(run, home / "whole")
    return home


class Run:
    """A run that is harmed, asked, and mended as it says."""

    def __init__(self, home, call):
        self.path, self.whole, self.job = home / "run", home / "whole", home / "job.toml"
        self.said = []

        def told(*arguments):
            answer = call(*arguments)
            self.said.append(f"{arguments[0]}: {answer.code} {answer.err}")
            assert answer.code in DOCUMENTED, answer.err
            assert "Traceback" not in answer.err, answer.err
            assert answer.code == 0 or answer.err.strip(), arguments
            return answer

        self.call = told

    def reset(self):
        shutil.rmtree(self.path)
        shutil.copytree(self.whole, self.path)
        self.said.clear()
        for moved in self.path.parent.glob("moved-*"):
            moved.rmdir() if moved.is_dir() and not moved.is_symlink() else moved.unlink()

    def answers(self):
        """What is asked of the files as they are: each answer, or None where it was refused."""
        asked = [
            ("percentiles", self.path, "-q", 99.9, "-q", 50),
            ("percentiles", self.path, "-q", 99.9, "--exact"),
            ("factors", self.path, "--percentile", 98),
            ("export", self.path),
        ]
        found = [self.call(*arguments) for arguments in asked]
        return [None if a.code else re.sub(r"in [0-9]+ ms", "", a.out) for a in found]

    def job_again(self):
        return self.call("run", self.job, "--report")

    def mend(self):
        """Do what the messages advise until the job ends well; return what was done."""
        done = []
        for _ in range(4):
            verified = self.call("verify", self.path)
            if "--repair" in verified.err and "repair" not in done:
                assert self.call("verify", self.path, "--repair").code in {0, 9}, self.said
                done.append("repair")
            answer = self.job_again()
            if answer.code == 0:
                return [*done, "run"]
            done.append(self.follow(answer.err))
        raise AssertionError(f"advice that leads nowhere: {self.said}")

    def follow(self, advice):
        if "delete that file" in advice:
            path = self.path / "run.json"
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
            return "delete"
        if found := IN_THE_WAY.search(advice):
            path = Path(found[1])
            path.rename(self.path.parent / f"moved-{path.name}")
            return "move"
        if "restore it or choose another folder" in advice:
            path = self.path / "cache/.actisketch/cache.json"
            path.unlink(missing_ok=True)
            shutil.copy(self.whole / "cache/.actisketch/cache.json", path)
            return "restore"
        if "and would be replaced: choose another folder, or move it" in advice:
            (self.path / "report/index.html").rename(self.path.parent / "moved-index.html")
            return "move"
        if "--repair" in advice or "verify with repair" in advice:
            assert self.call("verify", self.path, "--repair").code in {0, 9}, self.said
            return "repair"
        raise AssertionError(f"no advice: {advice}\n{self.said}")


@pytest.mark.slow
@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_every_damage_of_every_file_is_named_or_mended_to_the_same_bytes(two, call, harm, capsys):
    run = Run(two, call)
    run.reset()
    before, right = contents(run.path, without=NOTES), run.answers()
    assert None not in right
    counts = Counter()
    for name in [name for names in KINDS.values() for name in names]:
        run.reset()
        other = two / "other" / name
        if name.endswith(("c.1.0", ".block")):
            other = run.path / name.replace("c.1.0", "c.0.0").replace("00000002.32-48", "00000001.16-32")
        harm(run.path / name, other)
        for answer, expected in zip(run.answers(), right, strict=True):
            if name == "run.json" and harm in (link, copied) and answer is not None:
                # A whole manifest of the same network: what is asked is answered by its settings, and says so.
                answer = answer if '"percentile": 98.0' not in answer else expected
            assert answer in (None, expected), (harm.__name__, name)
            counts["refused" if answer is None else "answered"] += 1
        for verb in ("status", "verify", "report", "normalize"):
            run.call(verb, run.path)
        done = run.mend()
        counts[" + ".join(done)] += 1

        assert contents(run.path, without=NOTES).keys() == before.keys(), (name, run.said)
        after = contents(run.path, without=NOTES)
        differs = [n for n in before if after[n] != before[n] and n not in {"normalized.keras", "run.json"}]
        # Keras notes the time in its file, and the manifest the digest of that.
        assert differs in ([], ["report/index.html"]), (name, run.said)
        assert run.answers() == right
        assert "nothing was recomputed" in run.job_again().out
        assert json.loads((run.path / "run.json").read_text())["n_samples"] == 53
    with capsys.disabled():
        print(f"\n{harm.__name__}: {dict(counts)}")
