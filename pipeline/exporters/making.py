"""Make an export of a run: check what was asked of the target before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...storage.errors import InputError
from ..events import OnEvent, ignore_event
from ..factors.factors_file import Factors
from ..settings.job_settings import FactorSettings
from ..settings.loading import given_files
from .exporter import Exported, Exporter, ExportRequest, RecordedRun
from .registry import load_exporter

__all__ = ["check_options", "make_export"]


def make_export(
    run: RecordedRun,
    kind: str,
    *,
    settings: FactorSettings,
    factors_of: Callable[[], Factors],
    options: Mapping[str, Any],
    changed: Sequence[str] = (),
    on_event: OnEvent = ignore_event,
) -> Exported:
    """Return an export in memory.

    Parameters
    ----------
    run : RecordedRun
    kind : str
        Name of an exporter.
    settings : FactorSettings
        How ranges are chosen.
    factors_of : callable
        Gives the factors; called only if the target needs them.
    options : mapping
        Of the target; None counts as not given.
    changed : sequence of str
        The settings of factors that differ from the run's, to refuse them where they change nothing.
    on_event : callable
        Gets the progress of a target that the samples pass through.

    Raises
    ------
    InputError
        For an unknown kind or option, a missing library, and whatever the target cannot hold.
    """
    exporter = load_exporter(kind)
    given = {name: value for name, value in options.items() if value is not None}
    check_options(exporter, kind, given)
    if changed and not exporter.takes_factors:
        raise InputError(f"an export as {kind!r} is not made from percentiles: leave --{min(changed)} out")
    request = ExportRequest(
        run=run, settings=settings, factors_of=factors_of, options=given, on_event=on_event
    )
    if not settings.per_channel or exporter.takes_channels:
        return _made(exporter, request)
    one_range = f"{kind!r} has one range for each tensor, none for channels (factors.per_channel)"
    if "per_channel" in changed:
        raise InputError(f"{one_range}: leave per_channel out")
    made = _made(exporter, request)
    return replace(made, warnings=(*made.warnings, f"{one_range}: these are the ranges of layers"))


def _made(exporter: Exporter, request: ExportRequest) -> Exported:
    paths = [Path(value) for value in request.options.values() if isinstance(value, str | Path)]
    given = (*(path for path in paths if path.is_file()), *given_files(request.run.settings))
    return replace(exporter.make(request), given=given)


def check_options(exporter: Exporter, kind: str, options: Mapping[str, Any]) -> None:
    """Refuse options that the exporter of this name does not take; None counts as not given.

    Raises
    ------
    InputError
        With the first of them.
    """
    for name, value in options.items():
        if value is not None and name not in exporter.options:
            raise InputError(
                f"--{name.replace('_', '-')} is no option of {kind!r}: leave it out", option=name
            )
