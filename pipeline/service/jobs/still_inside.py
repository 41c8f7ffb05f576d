"""Check in the process of a job, as late as can be, that its places still lie below the folder that is served.

The service has checked them before. Since then somebody may have put a link in the place of a file or a folder.
"""

from __future__ import annotations

import errno
import glob
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from ....storage import is_url
from ...results.run import open_run
from ...settings.job_settings import JobSettings
from ...settings.loading import load_job
from ..run_root import RunRoot
from .job_places import Permissions, check_places, given_places
from .processes import JobFolder
from .repairing import check_repair

__all__ = ["check_again", "note_allowed"]

# What Python tells of before it is done, where the name itself counts: it may be a link.
OPENED = ("open",)
# The same, where only the folder counts.
CHANGED = ("os.mkdir", "os.remove", "os.rmdir", "os.rename")


def note_allowed(folder: JobFolder, root: RunRoot, allowed: Permissions) -> None:
    """Write for the process of a job what the operator allows."""
    text = json.dumps({"root": str(root.path), "caches": list(root.allowed), "jobs": asdict(allowed)})
    folder.allowed_path.write_text(text, encoding="utf-8")


def check_again(folder: JobFolder, arguments: Sequence[str]) -> None:
    """Check the places of this process's job again, and from now on each before it is opened.

    Parameters
    ----------
    folder : JobFolder
        Of the job.
    arguments : sequence of str
        What the command line will be called with.

    Raises
    ------
    InputError
        If a place leads out of the root now.
    """
    noted = json.loads(folder.allowed_path.read_text(encoding="utf-8"))
    root, allowed = RunRoot(path=Path(noted["root"]), allowed=noted["caches"]), Permissions(**noted["jobs"])
    if arguments[0] == "run":
        settings = load_job(arguments[1])
        check_places(settings, root, allowed)
    else:
        output = Path(arguments[1])
        check_repair(str(output.relative_to(root.path)), root, allowed)
        settings = open_run(output).settings.model_copy(update={"output": str(output)})
    _refuse_ways_out(settings, root)


def _refuse_ways_out(settings: JobSettings, root: RunRoot) -> None:
    """Refuse, until this process ends, to open what has the name of a place of the job and lies outside of the root.

    Python asks before it opens, so a moment is left; and libraries in C open files without asking.
    """
    places = [f"{place.rstrip('/')}/" for _, place in given_places(settings) if _is_path(place)]
    inside = f"{str(root.path).rstrip('/')}/"

    def ask(event: str, arguments: tuple[object, ...]) -> None:
        if event not in OPENED and event not in CHANGED:
            return
        for name in arguments[:2] if event == "os.rename" else arguments[:1]:
            if not isinstance(name, str | bytes | os.PathLike):
                continue  # a file that is open already
            path = os.path.abspath(os.fsdecode(name))
            if not f"{path}/".startswith(tuple(places)):
                continue
            real = os.path.realpath(path if event in OPENED else os.path.dirname(path))
            if not f"{real}/".startswith(inside):
                raise PermissionError(errno.EACCES, "it leads out of the folder that is served", path)

    sys.addaudithook(ask)


def _is_path(place: str) -> bool:
    return not is_url(place) and not glob.has_magic(place)
