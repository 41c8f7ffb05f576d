"""The questions of a run that its views ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ..exporters import RecordedRun
from ..factors.factors_file import Factors
from ..sketch import Sketch
from .activation_array import Activations
from .saved import RunStatus

__all__ = ["ViewedRun", "factors_at_hand"]


class ViewedRun(RecordedRun, Protocol):
    """The part of :class:`~.run.Run` that its views use; see there."""

    def factors(self, **changes: Any) -> Factors:
        """Return scale factors."""

    def status(self) -> RunStatus:
        """Return how far the run is."""

    def certificate(self) -> Mapping[str, Any] | None:
        """Return the certificate as plain values, if there is one that is up to date."""

    def activations(self, point: str) -> Activations:
        """Return the recorded activations of a point."""

    def sketch(self, point: str, *, channel: int | None = ...) -> Sketch:
        """Return the sketch of a point, or of one channel of it."""


def factors_at_hand(run: ViewedRun) -> Factors:
    """Return the run's factors; if it has not written any yet, those that need no pass over the activations."""
    if run.status().has_factors:
        return Factors.load(run.folder.factors_path)
    return run.factors(exact=False)
