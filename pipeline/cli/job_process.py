"""The process of a job of the service: `actisketch run` or `actisketch verify --repair`, noted when it begins and ends.

Started by the service with the path of the table of jobs, the id of the job and the number of the attempt.
"""

from __future__ import annotations

import json
import sys

from ...storage.errors import ActisketchError
from ..service.jobs.processes import JobFolder
from ..service.jobs.still_inside import check_again
from ..service.jobs.work_as_job import run_claimed

__all__: list[str] = []


def _work(folder: JobFolder) -> int:
    from ..record.model import import_keras
    from .session import run_command
    from .verbs import commands

    arguments = json.loads(folder.arguments_path.read_text(encoding="utf-8"))
    try:
        import_keras()  # takes seconds, in which somebody could change what was checked before
        check_again(folder, arguments)
    except ActisketchError as error:
        print(f"actisketch: {error}", file=sys.stderr)
        return error.exit_code
    # The command that resumes the job is told to whoever reads the log.
    sys.argv = ["actisketch", *arguments]
    return run_command(commands, arguments)


if __name__ == "__main__":
    sys.exit(run_claimed(sys.argv[1:], _work))
