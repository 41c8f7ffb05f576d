"""The command line. Its entry imports nothing before it can answer Ctrl-C: imports take up to half a second."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .verbs import commands as commands

__all__ = ["commands", "main"]


def __getattr__(name: str) -> Any:
    if name != "commands":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .verbs import commands

    return commands


def main() -> None:
    """Run the command line of this process and exit."""
    try:
        from .session import run_command
        from .verbs import commands
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(run_command(commands))
