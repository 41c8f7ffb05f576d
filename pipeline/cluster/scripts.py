"""Check whether the running program can start local workers.

A worker process runs the main script again while it starts. Knows how Python starts processes, not how Dask does.
"""

from __future__ import annotations

import ast
import multiprocessing
import sys
from pathlib import Path

from ...storage.errors import InputError

__all__ = ["check_main_guard"]

# Names with which a script distinguishes its own process from those that it starts.
_GUARDS = frozenset({"__name__", "current_process", "parent_process"})


def check_main_guard() -> None:
    """Refuse to start worker processes from a script that starts them again in each of them.

    Raises
    ------
    InputError
        With the script and what to add.
    SystemExit
        In a worker process that is starting: the process that started it does the work of the script already, and says
        why this one failed.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(1)
    main = sys.modules.get("__main__")
    name = getattr(getattr(main, "__spec__", None), "name", "")
    if name == "__main__" or name.endswith(".__main__"):
        return  # `python -m package`: this is not run again
    script = getattr(main, "__file__", None)
    if script is None or _has_guard(Path(script)):
        return
    raise InputError(
        f"local workers run the script {Path(script).name!r} again when they start, and it would start workers again: "
        'put what it does below the line `if __name__ == "__main__":`, or use record.workers = 0',
        script=Path(script).name,
    )


def _has_guard(script: Path) -> bool:
    """Return whether a script checks in which process it is; True for what is not Python text."""
    try:
        tree = ast.parse(script.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return True
    return any(
        (isinstance(node, ast.Name) and node.id in _GUARDS)
        or (isinstance(node, ast.Attribute) and node.attr in _GUARDS)
        for node in ast.walk(tree)
    )
