"""The process of a job looks at each place again before it opens it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

PROGRAM = """
import json, os, shutil, sys
from pathlib import Path
import numpy as np
from actisketch.pipeline.service.jobs.job_places import Permissions
from actisketch.pipeline.service.jobs.processes import JobFolder
from actisketch.pipeline.service.jobs.still_inside import check_again, note_allowed
from actisketch.pipeline.service.run_root import RunRoot

root, outside = Path(sys.argv[1]), Path(sys.argv[2])
folder = JobFolder(root / ".jobs")
note_allowed(folder, RunRoot.of(root), Permissions())
tree = {"output": f"{root}/runs/new", "data": {"path": f"{root}/x.npy"}, "model": {"path": f"{root}/net.keras"}}
from actisketch.pipeline.settings.loading import validate_job
from actisketch.pipeline.settings.template import job_text
folder.job_path.write_text(job_text(validate_job(tree).model_dump(mode="json", exclude_unset=True)))
check_again(folder, ["run", str(folder.job_path)])
np.load(root / "x.npy")
(root / "runs" / "new").mkdir()
(root / "runs" / "new" / "a").write_text("a")
(root / "runs").rename(root / "away")
(root / "runs").symlink_to(outside)
(root / "x.npy").unlink()
(root / "x.npy").symlink_to(outside / "x.npy")
told = []
for act in (
    lambda: np.load(root / "x.npy"),
    lambda: os.open(root / "x.npy", os.O_RDONLY),
    lambda: os.makedirs(root / "runs" / "new" / "cache"),
    lambda: (root / "runs" / "new" / "b").write_text("b"),
    lambda: os.remove(root / "runs" / "new" / "kept"),
    lambda: os.rename(root / "away" / "new" / "a", root / "runs" / "new" / "a"),
    lambda: np.load(outside / "x.npy"),
):
    try:
        act()
        told.append("done")
    except PermissionError as error:
        told.append(error.strerror)
print(json.dumps(told))
"""


@pytest.fixture
def places(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "runs").mkdir(parents=True)
    (root / ".jobs").mkdir()
    (outside / "new").mkdir(parents=True)
    (outside / "new" / "kept").touch()
    (root / "net.keras").touch()
    return root, outside


def test_links_that_are_put_in_place_after_the_check_are_refused(places):
    import numpy as np

    root, outside = places
    for folder in places:
        np.save(folder / "x.npy", np.ones(3))
    # The hook stays until a process ends.
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(root), str(outside)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    # The last is no place of the job: what else a process needs is open to it.
    assert json.loads(done.stdout) == ["it leads out of the folder that is served"] * 6 + ["done"]
    assert sorted(path.name for path in outside.rglob("*")) == ["kept", "new", "x.npy"]
