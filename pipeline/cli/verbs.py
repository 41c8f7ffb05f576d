"""The group of all verbs. A verb turns its arguments into settings, makes one call, and prints the result."""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
from pathlib import Path

import click

from .meant import GIVEN
from .session import Session

__all__ = ["commands"]

# Verbs by the module that defines them; a module is loaded when its verb is called, so that
# `percentiles` never pays for what `run` needs.
_VERBS = {
    "demo": "work",
    "init": "work",
    "plan": "work",
    "run": "work",
    "status": "ask",
    "percentiles": "ask",
    "factors": "ask",
    "sweep": "ask",
    "sensitivity": "ask",
    "compare": "two_runs",
    "normalize": "work",
    "report": "work",
    "verify": "ask",
    "export": "exporting",
    "serve": "serving",
}
# Not listed: it tries a cluster, and no run.
_HIDDEN = {"rehearse": "rehearse"}


class _Verbs(click.Group):
    """Verbs in the order of the work, loaded when called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = _VERBS.get(cmd_name) or _HIDDEN.get(cmd_name)
        if module is None:
            return None
        command: click.Command = getattr(importlib.import_module(f".{module}", __package__), cmd_name)
        if not any(parameter.name == "quiet" for parameter in command.params):
            command.params.append(_quiet_option())
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the verb; for one that there is not, say which is near, as click does for flags."""
        ctx.meta[GIVEN] = tuple(args)
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            near = difflib.get_close_matches(name, _VERBS, n=2, cutoff=0.6)
            near = near or [verb for verb in _VERBS if verb.startswith(name[:3].lower())]
            if path_like := Path(name).suffix or Path(name).exists():
                near = []
            meant = f" Did you mean {' or '.join(near)}?" if near else ""
            if path_like:
                meant = f" Give a verb before the path: actisketch run {name}, actisketch status {name} ..."
            ctx.fail(f"No such command {name!r}.{meant}")
        return super().resolve_command(ctx, args)


def _quiet_option() -> click.Option:
    """Return ``--quiet`` for a verb, so that it may stand before and after the verb."""

    def be_quiet(context: click.Context, _: click.Parameter, value: bool) -> None:
        if value and isinstance(context.obj, Session):
            context.obj.quiet = True

    text = "Show results and errors only, no progress."
    return click.Option(["--quiet"], is_flag=True, expose_value=False, callback=be_quiet, help=text)


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 2 wrong input, 3 the cache is of another model, data or settings, 4 damaged files, "
    "5 over a memory or disk limit, 6 in use by another process, 7 disk or object store refused, 8 certificate failed, "
    "9 blocks are missing, 10 layers too far apart (compare), 130 interrupted (run again to resume).",
)
@click.option("--quiet", is_flag=True, help="Show results and errors only, no progress.")
@click.version_option(importlib.metadata.version("actisketch"), prog_name="actisketch")
@click.pass_context
def commands(context: click.Context, quiet: bool) -> None:
    """Measure the activations of Keras networks, derive scale factors, normalise with a certificate.

    \b
    Start here:
      actisketch demo              the whole flow on data that come with it
      actisketch init job.toml     a commented job file for your own network
      actisketch plan job.toml     what it would need
      actisketch run job.toml      run it; run it again to resume
    """
    context.obj = Session(quiet=quiet)
