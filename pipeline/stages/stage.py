"""What every stage does: reload results that were made from the same things, else compute, write and remember them.

Knows the order of these steps. Does not know what a stage computes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from ..folder.folder import RunFolder

__all__ = ["FileStage", "Stage"]

Result = TypeVar("Result")


class Stage(ABC, Generic[Result]):
    """A step of a job that reloads its results where it can."""

    @abstractmethod
    def is_current(self) -> bool:
        """Tell whether its results exist, are whole, and were made from the same things."""

    @abstractmethod
    def reload(self) -> Result:
        """Return the saved results."""

    @abstractmethod
    def compute(self) -> Result:
        """Compute the results; saved ones are not changed yet."""

    @abstractmethod
    def replace(self, result: Result) -> None:
        """Write the results in place of earlier ones, and remember what they were made from."""

    def reload_or_compute(self) -> Result:
        """Return the results: reloaded if they are current, else computed, written and remembered."""
        if self.is_current():
            return self.reload()
        result = self.compute()
        self.replace(result)
        return result


@dataclass(frozen=True, kw_only=True)
class FileStage(Stage[Result]):
    """A stage whose results are files in the folder of a run; its manifest says what they were made from."""

    name: ClassVar[str]
    """Name of the stage in the manifest."""
    folder: RunFolder
    is_own: bool = True
    """False if the results go to a folder other than the run's: then nothing is reloaded or remembered."""

    @property
    @abstractmethod
    def key(self) -> str:
        """A hash of all that the results follow from: equal keys, equal results."""

    @property
    @abstractmethod
    def files(self) -> Sequence[Path]:
        """The files that must be there to be reloaded."""

    @abstractmethod
    def write(self, result: Result) -> Sequence[Path]:
        """Write the results; return all files that were written."""

    def is_current(self) -> bool:
        """Tell whether the files exist, are unchanged, and were made from what ``key`` names."""
        return self.is_own and self.folder.is_made_from(self.name, self.key, *self.files)

    def replace(self, result: Result) -> None:
        """Write the results; killed half-way, they count as not made."""
        if self.is_own:
            self.folder.forget(self.name)
        written = self.write(result)
        if self.is_own:
            self.folder.mark_made(self.name, self.key, *written)
        self.announce(result, written)

    @abstractmethod
    def announce(self, result: Result, written: Sequence[Path]) -> None:
        """Send events: only now, as results that were announced are kept whatever a listener does."""
