"""The settings from statistics to ranges and scale factors, the table ``[factors]``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from .setting_table import SettingTable

__all__ = ["MOST_ENTROPY_BITS", "PERCENTILE", "FactorSettings", "OverrideSettings", "RangeMethod"]

PERCENTILE = 99.9
LOWEST_USUAL_PERCENTILE = 50.0
MOST_ENTROPY_BITS = 10
"""2^9 levels for the sizes of the values: at least four bins each."""

RangeMethod = Literal["percentile", "max", "mse", "entropy"]


def _percent(value: float) -> float:
    if not 0 < value <= 100:
        raise ValueError("a percentile is above 0 and at most 100, which is the maximum")
    return value


Percent = Annotated[float, AfterValidator(_percent)]


class OverrideSettings(SettingTable):
    """A percentile, or a fixed factor, for some points."""

    percentile: Percent | None = None
    factor: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> OverrideSettings:
        if (self.percentile is None) == (self.factor is None):
            raise ValueError("give either percentile or factor")
        return self


class FactorSettings(SettingTable):
    """From statistics to scale factors."""

    percentile: Percent = PERCENTILE
    """The factor of a point is this percentile of its activations; 100 is the maximum."""
    method: RangeMethod = "percentile"
    """How ranges are chosen: "percentile", "max", "mse" or "entropy", for low precision.

    "mse" minimises the mean squared error of rounding to so many bits, "entropy" the Kullback-Leibler divergence as
    TensorRT described it. Both are computed from the sketches.
    """
    bits: Annotated[int, Field(ge=2, le=16)] = 8
    """Bits of the whole numbers that "mse" and "entropy" choose a range for."""
    symmetric: bool = False
    """For "mse": levels on both sides of zero, as signed integers have, for every point."""
    nonzero: bool = True
    """Percentiles of the activations that are not zero, as SNN toolbox; otherwise of all."""
    schedule: Annotated[float, Field(ge=0, lt=100)] = 0.0
    """Percentage points subtracted for each point: point i gets percentile - i * schedule."""
    exact: bool = False
    """Refine every percentile to the exact one from the cache."""
    accept_rounding: bool = False
    """Accept exact percentiles of rounded activations, from a cache of float16."""
    per_channel: bool = False
    """A factor for each channel instead of one for the point."""
    groups: Literal["largest", "merged"] = "largest"
    """Factor of points that an Add joins: their "largest", or that of all values, "merged"."""
    floor: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-6
    """A smaller percentile means a dead point or channel, which gets a safe factor."""
    overrides: dict[str, OverrideSettings] = Field(
        default_factory=dict, examples=[{"fc*": {"percentile": 99.0}, "conv1": {"factor": 2.0}}]
    )
    """A percentile or a factor by name or pattern; the first match wins."""

    @model_validator(mode="after")
    def _method_fits(self) -> FactorSettings:
        if self.method != "percentile" and self.schedule:
            raise ValueError(f"schedule is of percentiles: leave it out with method = {self.method!r}")
        if self.method in ("mse", "entropy") and self.exact:
            raise ValueError(f"method = {self.method!r} chooses ranges from sketches: leave out exact")
        if self.method == "entropy" and self.bits > MOST_ENTROPY_BITS:
            raise ValueError(
                f"method = 'entropy' compares histograms of 2,049 to 4,096 bins: bits may be at most "
                f"{MOST_ENTROPY_BITS}"
            )
        return self

    def that_count(self) -> dict[str, Any]:
        """Return the settings that affect the factors, for keys: those of a method only with that method."""
        unused = {
            "percentile": {"method", "bits", "symmetric"},
            "max": {"bits", "symmetric"},
            "mse": set(),
            "entropy": {"symmetric"},
        }
        return self.model_dump(exclude=unused[self.method])

    def warnings(self) -> Iterator[str]:
        """Yield a sentence for each percentile that is so low that it was probably meant as a fraction."""
        named = {"factors.percentile": self.percentile}
        for name, each in self.overrides.items():
            named[f"factors.overrides.{name}.percentile"] = each.percentile or 100.0
        for name, value in named.items():
            if value < LOWEST_USUAL_PERCENTILE:
                yield (
                    f"{name} = {value:g} is in percent: most activations would be larger than their factor; the usual "
                    f"value is {PERCENTILE}"
                )
