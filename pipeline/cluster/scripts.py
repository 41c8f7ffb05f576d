"""Tell whether local workers can be started from the program that runs.

A worker process runs the main script anew while it starts. Knows Python's ways of starting processes, not Dask's.
"""

from __future__ import annotations

import ast
import multiprocessing
import sys
from pathlib import Path

from ...storage.errors import InputError

__all__ = ["check_main_guard"]

# Names with which a script tells the process that it was started in from those that it starts.
_GUARDS = frozenset({"__name__", "current_process", "parent_process"})


def check_main_guard() -> None:
    """Refuse to start worker processes from a script that starts them again in each of them.

    Raises
    ------
    InputError
        With the script and what to add.
    SystemExit
        In a worker process that is being started: what the script does here has been asked for already, and the process
        that asked for it tells why it failed.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(1)
    main = sys.modules.get("__main__")
    name = getattr(getattr(main, "__spec__", None), "name", "")
    if name == "__main__" or name.endswith(".__main__"):
        return  # `python -m package`: what runs a package is not run anew
    script = getattr(main, "__file__", None)
    if script is None or _has_guard(Path(script)):
        return
    raise InputError(
        f"local workers run the script {Path(script).name!r} anew when they start, and it would start workers again: "
        'put what it does below the line `if __name__ == "__main__":`, or use record.workers = 0',
        script=Path(script).name,
    )


def _has_guard(script: Path) -> bool:
    """Tell whether a script asks in which process it is; True for what is no Python text."""
    try:
        tree = ast.parse(script.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return True
    return any(
        (isinstance(node, ast.Name) and node.id in _GUARDS)
        or (isinstance(node, ast.Attribute) and node.attr in _GUARDS)
        for node in ast.walk(tree)
    )
