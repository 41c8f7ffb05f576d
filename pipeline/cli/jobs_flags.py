"""The flags of `actisketch serve` that allow jobs, and the queue that results from them."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ...storage.errors import InputError

if TYPE_CHECKING:
    from ..service.jobs.job_queue import JobQueue
    from ..service.run_root import RunRoot

__all__ = ["jobs_options", "jobs_tokens_from", "queue_from"]

Command = TypeVar("Command", bound=Callable[..., Any])

OPTIONS = (
    click.option(
        "--allow-jobs", is_flag=True, help="Also start, watch and end jobs below ROOT, for those who may."
    ),
    click.option(
        "--jobs-token-file",
        type=click.Path(path_type=Path),
        help="File with the tokens of scripts that may act, one a line; another is taken from ACTISKETCH_JOBS_TOKEN. "
        "Those of --token-file only read.",
    ),
    click.option(
        "--max-jobs",
        type=click.IntRange(1, 64),
        default=1,
        show_default=True,
        help="Jobs that work at the same time.",
    ),
    click.option(
        "--auto-resume", is_flag=True, help="Queue jobs again that ended without a word, three times."
    ),
    click.option(
        "--allow-url",
        "job_urls",
        multiple=True,
        metavar="URL",
        help="Jobs may use samples and caches in stores at or below this URL; may be given several times.",
    ),
    click.option(
        "--allow-scheduler",
        "schedulers",
        multiple=True,
        metavar="ADDRESS",
        help="Jobs may use this Dask scheduler; may be given several times.",
    ),
    click.option(
        "--allow-code",
        is_flag=True,
        help="Jobs may run code of their own: custom objects, models that contain code.",
    ),
)


def jobs_options(command: Command) -> Command:
    """Add the flags."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def jobs_tokens_from(flags: Mapping[str, Any]) -> tuple[tuple[str, ...], list[str]]:
    """Return the tokens that may act, and warnings.

    Raises
    ------
    InputError
        If jobs are not allowed but something is given that only they need; or as `read_tokens`.
    """
    from ..service.access import JOBS_TOKEN_VARIABLE, read_tokens

    if not flags["allow_jobs"]:
        given = [
            name
            for name in ("jobs_token_file", "auto_resume", "job_urls", "schedulers", "allow_code")
            if flags[name]
        ]
        if given:
            flag = {"job_urls": "allow-url", "schedulers": "allow-scheduler"}.get(
                given[0], given[0].replace("_", "-")
            )
            raise InputError(f"--{flag} is for jobs: give --allow-jobs too, or leave it out")
        return (), []
    return read_tokens(flags["jobs_token_file"], os.environ, JOBS_TOKEN_VARIABLE)


def queue_from(root: RunRoot, flags: Mapping[str, Any]) -> JobQueue | None:
    """Return the queue of jobs of a folder; None if jobs are not allowed.

    Raises
    ------
    InputError
        If there is no TensorFlow for them.
    """
    from ..service.jobs.job_places import Permissions
    from ..service.jobs.job_queue import JobQueue

    if not flags["allow_jobs"]:
        return None
    if importlib.util.find_spec("tensorflow") is None:
        raise InputError(
            "--allow-jobs: jobs need TensorFlow, which is not installed here: install it, or serve without jobs"
        )
    allowed = Permissions(urls=flags["job_urls"], schedulers=flags["schedulers"], code=flags["allow_code"])
    return JobQueue(root, allowed, n_at_once=flags["max_jobs"], auto_resume=flags["auto_resume"])
