"""What a job would need, as `actisketch plan` says in a process of its own: planning loads TensorFlow.

Knows settings and processes. Does not know requests.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from ....storage.errors import InputError, OverBudgetError
from ...settings.job_settings import JobSettings
from ...settings.template import job_text
from ...settings.visible import visible
from ..access import JOBS_TOKEN_VARIABLE, TOKEN_VARIABLE
from ..workers import Stop

__all__ = ["PLAN_PREFIX", "planned"]

PLAN_PREFIX = "plan-"
"""Of folders that a service that was killed may leave."""

# How long a client may be gone, or the time be over, before the process is killed.
CHECK_S = 0.2
LONGEST_SAID = 2000


def planned(settings: JobSettings, folder: Path, stop: Stop) -> tuple[dict[str, Any], str | None, list[str]]:
    """Return a plan, why it would be refused now (None: it would not), and the warnings.

    Parameters
    ----------
    settings : JobSettings
        Checked, with absolute paths.
    folder : Path
        Private to this program; empty afterwards as it was before.
    stop : Stop
        Ends the process.

    Raises
    ------
    InputError
        If there can be no plan; the message is that of the command line.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix=PLAN_PREFIX) as place:
        job = Path(place) / "job.toml"
        job.write_text(job_text(settings.model_dump(mode="json", exclude_unset=True)), encoding="utf-8")
        code, out, said = _called(["plan", str(job), "--json"], stop)
        said = said.replace(str(job), "the job")
    warnings = [line.removeprefix("warning: ") for line in said.splitlines() if line.startswith("warning: ")]
    _, is_refused, refusal = f"\n{said}".rpartition("\nactisketch: ")
    refusal = visible(refusal.strip()[:LONGEST_SAID], kept="\n")
    if code not in (0, OverBudgetError.exit_code) or not out.strip():
        raise InputError(
            refusal if is_refused else f"the plan could not be made: `actisketch plan` ended with {code}"
        )
    return json.loads(out), refusal if code else None, [visible(each) for each in warnings]


def _called(arguments: list[str], stop: Stop) -> tuple[int, str, str]:
    """Return exit code, output and errors of a command line; it is killed if ``stop`` says so."""
    environment = {
        name: value for name, value in os.environ.items() if name not in (TOKEN_VARIABLE, JOBS_TOKEN_VARIABLE)
    }
    with subprocess.Popen(
        [sys.executable, "-m", "actisketch.pipeline", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,
    ) as process:
        try:
            while True:
                stop.check()
                with suppress(subprocess.TimeoutExpired):
                    out, said = process.communicate(timeout=CHECK_S)
                    return process.returncode, out, said
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
