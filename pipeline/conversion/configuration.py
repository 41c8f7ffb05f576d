"""Read SNN toolbox's settings from a ConfigParser into typed values; nothing is evaluated as code."""

from __future__ import annotations

import ast
from collections.abc import Collection
from configparser import ConfigParser, NoOptionError, NoSectionError
from dataclasses import dataclass
from pathlib import Path

from ...storage.errors import InputError

__all__ = ["ToolboxSettings", "percentile_of", "read_settings", "uses_schedule"]

MAX_PERCENT = 100.0
PLOT_ACTIVATIONS = "normalization_activations"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolboxSettings:
    """The settings of SNN toolbox that the seven functions need."""

    folder: Path
    """``path`` of the call, else ``log_dir_of_current_run``/normalization."""
    percentile_text: str
    """The percentile as the settings write it: it names the file of the factors."""
    batch_size: int
    plots: bool
    """Whether ``[output] plot_vars`` holds ``normalization_activations``."""
    simple_labels: bool
    overwrite: bool
    num_samples: int | None
    """``[normalization] num_samples``: the number of samples to take from a ``dataflow``."""

    @property
    def factors_path(self) -> Path:
        """The file of the factors."""
        return self.folder / f"{self.percentile_text}.json"

    @property
    def activations_folder(self) -> Path:
        """The folder of the activations."""
        return self.folder / "activations"


def read_settings(config: ConfigParser, *, path: str | Path | None = None) -> ToolboxSettings:
    """Return the checked settings.

    Raises
    ------
    InputError
        If a setting is missing or invalid.
    """
    percentile_of(config)
    n_wanted = config.get("normalization", "num_samples", fallback="").strip()
    folder = Path(path) if path is not None else Path(_text(config, "paths", "log_dir_of_current_run"))
    return ToolboxSettings(
        folder=folder if path is not None else folder / "normalization",
        percentile_text=_text(config, "normalization", "percentile"),
        batch_size=_count(_text(config, "simulation", "batch_size"), "simulation", "batch_size"),
        plots=PLOT_ACTIVATIONS in _names(config.get("output", "plot_vars", fallback="{}")),
        simple_labels=_flag(config, "output", "use_simple_labels", fallback=True),
        overwrite=_flag(config, "output", "overwrite", fallback=True),
        num_samples=None if not n_wanted else _count(n_wanted, "normalization", "num_samples"),
    )


def percentile_of(config: ConfigParser) -> float:
    """Return ``[normalization] percentile``, in percent.

    Raises
    ------
    InputError
        If it is missing or not a number from 0 to 100.
    """
    text = _text(config, "normalization", "percentile")
    try:
        percentile = float(text)
    except ValueError:
        percentile = -1.0
    if not 0.0 <= percentile <= MAX_PERCENT:
        raise InputError(f"[normalization] percentile is {text!r}: set a number from 0 to 100")
    return percentile


def uses_schedule(config: ConfigParser) -> bool:
    """Return ``[normalization] normalization_schedule``."""
    return _flag(config, "normalization", "normalization_schedule", fallback=False)


def _text(config: ConfigParser, section: str, option: str) -> str:
    try:
        return config.get(section, option)
    except (NoSectionError, NoOptionError) as error:
        raise InputError(f"the settings lack [{section}] {option}: set it", setting=option) from error


def _flag(config: ConfigParser, section: str, option: str, *, fallback: bool) -> bool:
    try:
        return config.getboolean(section, option, fallback=fallback)
    except ValueError as error:
        raise InputError(f"[{section}] {option} must be True or False: {error}", setting=option) from error


def _count(text: str, section: str, option: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise InputError(f"[{section}] {option} is {text!r}: set a whole number above 0", setting=option)
    return int(text)


def _names(text: str) -> Collection[str]:
    """Parse ``plot_vars``, a literal set, list or tuple of names, which the toolbox evaluates as code."""
    try:
        names = ast.literal_eval(text.strip() or "{}")
    except (ValueError, SyntaxError) as error:
        raise InputError(
            f"[output] plot_vars is {text!r}: set it to a set of names, such as {{'{PLOT_ACTIVATIONS}'}}",
            setting="plot_vars",
        ) from error
    if isinstance(names, str):
        return {names}
    if isinstance(names, (set, list, tuple, dict)):
        return {str(name) for name in names}
    raise InputError(f"[output] plot_vars is {text!r}: set it to a set of names", setting="plot_vars")
