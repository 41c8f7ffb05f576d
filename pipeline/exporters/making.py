"""Make an export of a run: check what was asked of the target before anything is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...storage.errors import InputError
from ..factors.factors_file import Factors
from ..settings.job_settings import FactorSettings
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
    return exporter.make(ExportRequest(run=run, settings=settings, factors_of=factors_of, options=given))


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
