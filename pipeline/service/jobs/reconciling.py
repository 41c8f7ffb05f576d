"""Tell from what is left of a process how its job has ended.

Knows a row, exit codes and the folder of the run. Changes nothing, and notes only what was there before.
"""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from ....storage.errors import ActisketchError
from ...folder.folder import RunFolder
from ...folder.progress_file import read_progress
from ...settings.job_settings import JobSettings
from ...settings.visible import visible
from ..catalogue import wanted_stages
from .job_table import Job, JobState
from .processes import JobFolder, head_of_log
from .work_as_job import INTERRUPTED

__all__ = ["has_finished", "how_it_ended", "note_before"]

RESUME = "finished blocks are kept, resuming goes on from there"
LONGEST_MESSAGE = 1000


def how_it_ended(
    job: Job, returned: int | None, *, is_finished: bool, folder: JobFolder
) -> tuple[JobState, str]:
    """Return the state of a job whose process is gone, and a sentence about it.

    Parameters
    ----------
    job : Job
        Read after its process was gone.
    returned : int, optional
        What the system says of the process, if it was a child of this one: minus a signal, or an exit code.
    is_finished : bool
        Whether the folder of the run says that this attempt came to its end.
    folder : JobFolder
    """
    code = job.exit_code if job.exit_code is not None else returned
    if code == 0 or (job.exit_code is None and is_finished):
        return "complete", ""
    if job.state == "cancelling":
        return "cancelled", f"cancelled: {RESUME}"
    if code == INTERRUPTED:
        return "interrupted", f"it was told to stop from elsewhere: {RESUME}"
    if job.exit_code is None:
        how = ", as after kill -9"
        if code is not None:
            # Those for real time have no names.
            name = next((each.name for each in signal.Signals if each == -code), f"signal {-code}")
            how = f" ({name})" if code < 0 else f" (exit code {code})"
        return "interrupted", f"its process is gone without a word{how}: {RESUME}"
    return "failed", _last_error(job, folder) or f"it ended with exit code {code}: its log says why"


def note_before(job: Job, output: Path, folder: JobFolder) -> None:
    """Note, before the process of a job is started, which manifest its run has.

    Raises
    ------
    OSError
        If the disk refuses.
    """
    try:
        manifest = _which(RunFolder(output).manifest_path.stat())
    except (FileNotFoundError, NotADirectoryError):
        manifest = None
    folder.before_path.write_text(json.dumps([job.attempt, manifest]), encoding="utf-8")


def _which(manifest: os.stat_result) -> list[int]:
    """Return what changes when a manifest is replaced, also by the same content, and however the clock is set."""
    return [manifest.st_ino, manifest.st_mtime_ns]


def _is_of_this_attempt(manifest: os.stat_result, job: Job, folder: JobFolder) -> bool:
    try:
        attempt, before = json.loads(folder.before_path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        attempt = None
    if attempt != job.attempt:  # an earlier version has started the process, and left the clock only
        return job.claimed_s is not None and manifest.st_mtime >= job.claimed_s
    return bool(before != _which(manifest))


def has_finished(job: Job, output: Path, settings: JobSettings, folder: JobFolder) -> bool:
    """Whether the results of a job are there, written by its last attempt, which has left nothing undone.

    An attempt that works keeps a progress file from its first stage on, and removes it only at a good end.
    """
    run = RunFolder(output)
    if job.kind != "run" or os.path.lexists(run.progress_path) or read_progress(output) is not None:
        return False
    try:
        is_of_this_attempt = _is_of_this_attempt(run.manifest_path.stat(), job, folder)
        manifest = run.manifest()
    except (OSError, ActisketchError):
        return False
    asked = settings.model_dump(mode="json", exclude={"output"})
    noted = {name: value for name, value in manifest.get("settings", {}).items() if name != "output"}
    return is_of_this_attempt and noted == asked and wanted_stages(noted) <= manifest.get("stages", {}).keys()


def _last_error(job: Job, folder: JobFolder) -> str:
    """Return what the command line said last in this attempt, with the lines that belong to it."""
    text, _ = folder.log_end(16_384)
    _, _, of_attempt = f"\n{text}".rpartition(f"\n{head_of_log(job)}")
    _, found, said = of_attempt.rpartition("\nactisketch: ")
    return visible(said.strip()[:LONGEST_MESSAGE], kept="\n") if found else ""
