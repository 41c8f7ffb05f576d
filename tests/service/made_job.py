"""A job without a network, in place of `actisketch run`: it records a made run block by block, slowly.

Beside its run it notes each process that began, and `twice` if one began while another worked. The number of samples,
which it has no use for, says how it behaves: 7 dies (of the
signal whose number is the offset), 11 does not listen to signals, 13 fails, 17 dies when it has
finished.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[2]))

from actisketch.pipeline.events import BlockDone, StageStarted
from actisketch.pipeline.service.jobs.processes import JobFolder
from actisketch.pipeline.service.jobs.work_as_job import run_claimed
from actisketch.pipeline.settings.loading import load_job
from actisketch.storage.errors import InputError

if TYPE_CHECKING:
    from tests.service.made_runs import MadeRun

# How long a block takes; the file `hold` beside the run makes the next one wait for ever.
BLOCK_S = 0.02


def made(output: Path, settings: object) -> MadeRun:
    """The run of a job."""
    from tests.service.made_runs import MadeRun  # numpy and numba: not for jobs that only fail

    run = MadeRun(output)
    run.settings = settings  # as they were submitted
    return run


def note_begin(output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    began = output.with_name(f"{output.name}.began")
    earlier = [int(pid) for pid in began.read_text().split()] if began.exists() else []
    for pid in earlier:
        if Path(f"/proc/{pid}/cmdline").exists() and b"made_job" in Path(f"/proc/{pid}/cmdline").read_bytes():
            output.with_name(f"{output.name}.twice").touch()
    with began.open("a") as file:
        file.write(f"{os.getpid()}\n")


def work(folder: JobFolder) -> int:
    arguments = json.loads(folder.arguments_path.read_text())
    settings = load_job(arguments[1])
    output = Path(settings.output)
    hold = output.with_name(f"{output.name}.hold")
    note_begin(output)
    print("working", *sorted(name for name in os.environ if name.startswith("ACTISKETCH")), flush=True)
    if settings.data.num_samples == 13:
        if not output.with_name(f"{output.name}.mute").exists():
            print("actisketch: no data at 'there': it is not here", flush=True)
        return InputError.exit_code
    if settings.data.num_samples == 7:
        os.kill(os.getpid(), int(settings.data.offset) or signal.SIGKILL)
    if settings.data.num_samples == 11:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    from actisketch.pipeline.folder.progress_file import progress_told

    run = made(output, settings).begin()
    with progress_told(run.run, lambda event: None) as listen:
        record(run, listen, hold)
        run.finish()
    if settings.data.num_samples == 17:
        os.kill(os.getpid(), signal.SIGKILL)
    return 0


def record(run: MadeRun, listen: Callable[[object], None], hold: Path) -> None:
    listen(StageStarted(stage="record", n_total=run.n_samples, unit="samples"))
    for block in range(run.spec.n_blocks):
        run.record(1)
        listen(BlockDone(block=block, n_samples=6, nbytes=0))
        time.sleep(BLOCK_S)
        while hold.exists():
            time.sleep(0.01)


if __name__ == "__main__":
    sys.exit(run_claimed(sys.argv[1:], work))
