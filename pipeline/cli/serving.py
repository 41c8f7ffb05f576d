"""The verb that answers questions over HTTP. It never loads TensorFlow."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import click

from ...storage.errors import InputError
from ..settings.sizes import parse_bytes
from .jobs_flags import jobs_options, jobs_tokens_from, queue_from
from .numbers_given import NumberFrom
from .session import Session

__all__ = ["serve"]


@click.command(short_help="Answer questions about the runs in a folder over HTTP.")
@click.argument("root", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8570, show_default=True, help="0: a free port."
)
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    help="File with the tokens of scripts, one a line; another is taken from ACTISKETCH_TOKEN. Needed for addresses "
    "other than loopback.",
)
@click.option(
    "--root-path", default="", metavar="PATH", help="Where a proxy puts the service, as /statistics."
)
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Also answer requests for this name, as that of a proxy; may be given several times.",
)
@click.option(
    "--allow",
    "allowed",
    multiple=True,
    metavar="PLACE",
    help="Also read caches below this folder or URL, which lie outside of ROOT; may be given several times.",
)
@jobs_options
@click.option(
    "--memory-limit", default="1 GiB", show_default=True, help="For the sketches of runs that were asked."
)
@click.option(
    "--time-limit",
    type=NumberFrom(0.1),
    default=120.0,
    show_default=True,
    metavar="SECONDS",
    help="For one question.",
)
@click.pass_obj
def serve(
    session: Session,
    /,
    root: Path,
    host: str,
    port: int,
    token_file: Path | None,
    root_path: str,
    hosts: tuple[str, ...],
    allowed: tuple[str, ...],
    memory_limit: str,
    time_limit: float,
    **jobs: Any,
) -> None:
    """Answer questions about the runs under the folder ROOT over HTTP, also while they go on.

    Changes nothing, unless --allow-jobs is given: then it also starts, watches and ends jobs below ROOT, as processes
    of their own that go on when the service stops.

    Prints the address for a browser, with a key that signs in one browser. Scripts send a token. Each request is logged
    as a line of JSON on standard error.

    \b
    Example:
      actisketch serve runs
      actisketch serve runs --host 0.0.0.0 --token-file token
      actisketch serve runs --allow-jobs
      curl -H "Authorization: Bearer $(cat token)" http://head:8570/api/v1/runs
    """
    try:
        from ..service.access import Access, read_tokens
        from ..service.application import ServiceSettings
        from ..service.run_root import RunRoot
        from ..service.server import Listening, serve_runs
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "prometheus_client", "uvicorn", "starlette"):
            raise
        raise InputError(
            f"the service needs {error.name}, which is not installed: pip install 'actisketch[service]'"
        ) from None
    tokens, told = read_tokens(token_file)
    jobs_tokens, told_of_jobs = jobs_tokens_from(jobs)
    for warning in told + told_of_jobs:
        session.err.print(f"warning: {warning}", markup=False, highlight=False, soft_wrap=True)
    try:
        limit_nbytes = parse_bytes(memory_limit)
    except ValueError as error:
        raise InputError(f"--memory-limit {memory_limit!r} is refused: {error}") from None
    served = RunRoot.of(root, allowed)
    _log_requests(quiet=session.quiet)
    serve_runs(
        served,
        Access(tokens, jobs_tokens=jobs_tokens, key_acts=jobs["allow_jobs"]),
        Listening(host=host, port=port, root_path=root_path),
        settings=ServiceSettings(memory_limit=limit_nbytes, time_limit_s=time_limit, hosts=hosts),
        jobs=queue_from(served, jobs),
        # Without a buffer: who started it waits for the address.
        announce=lambda address: click.echo(address),
    )


def _log_requests(*, quiet: bool) -> None:
    """Write each request as a line of JSON to standard error, and errors as text."""
    lines = logging.StreamHandler()
    lines.setFormatter(logging.Formatter("%(message)s"))
    requests = logging.getLogger("actisketch.access")
    requests.propagate = False
    if not quiet:
        requests.addHandler(lines)
        requests.setLevel(logging.INFO)
    errors = logging.StreamHandler()
    errors.setLevel(logging.WARNING)
    errors.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("actisketch", "uvicorn.error"):
        logging.getLogger(name).addHandler(errors)
