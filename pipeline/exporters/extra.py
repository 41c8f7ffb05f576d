"""Import libraries that are extras of this package, and may be missing or too old."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from typing import Any

from ...storage.errors import InputError

__all__ = ["check_release", "import_extra"]


def import_extra(
    module: str, *, extra: str, package: str | None = None, at_least: str = "", needed_by: str = "this export"
) -> Any:
    """Return an imported module.

    Parameters
    ----------
    module : str
        Dotted name.
    extra : str
        The extra of this package that installs it.
    package : str, optional
        Name of the distribution; default: the name of the module.
    at_least : str, optional
        Oldest version that will do, as "1.32".
    needed_by : str
        What is not possible without it, as the error names it.

    Raises
    ------
    InputError
        If it is missing or too old; the message has the command that installs it.
    """
    package = package or module.partition(".")[0]
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"{needed_by} needs the package {package!r}, which cannot be imported ({error}): {_installed_by(extra)}",
            package=package,
            extra=extra,
        ) from None
    if at_least:
        check_release(package, at_least, extra=extra, needed_by=needed_by)
    return found


def check_release(package: str, at_least: str, *, extra: str, needed_by: str = "this export") -> None:
    """Refuse an older release of a package, if it is installed; see `import_extra`.

    Raises
    ------
    InputError
        With both versions.
    """
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return
    if _release(version) < _release(at_least):
        raise InputError(
            f"{needed_by} needs {package} {at_least} or newer, {version} is installed: {_installed_by(extra)}",
            package=package,
            extra=extra,
        )


def _installed_by(extra: str) -> str:
    return f"pip install 'actisketch[{extra}]'"


def _release(version: str) -> tuple[int, ...]:
    """Return the numbers of a version before any suffix: (1, 32, 0) for "1.32.0rc1"."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    return tuple(int(part) for part in numbers[0].split(".")) if numbers else ()
