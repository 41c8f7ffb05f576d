"""The answers of the service: what each number comes with. They make the OpenAPI document.

Knows values. Does not know how they are found.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "ChannelAnswer",
    "ChannelsAnswer",
    "ComparedAnswer",
    "ComparisonAnswer",
    "DigestAnswer",
    "DistanceAnswer",
    "DistancesAnswer",
    "DistributionAnswer",
    "FactorAnswer",
    "FactorsAnswer",
    "LiveAnswer",
    "PercentileAnswer",
    "PercentilesAnswer",
    "PointAnswer",
    "PointsAnswer",
    "ProblemAnswer",
    "Recorded",
    "RunAnswer",
    "RunSummary",
    "RunsAnswer",
    "number",
]

STATES = Literal["running", "complete", "stopped", "damaged"]


def number(value: float | None) -> float | None:
    """Return a number that JSON can hold: None for NaN and infinities."""
    return None if value is None or not math.isfinite(value) else float(value)


class ProblemAnswer(BaseModel):
    """An error, as RFC 9457 has it."""

    model_config = ConfigDict(extra="allow")

    type: str = "about:blank"
    title: str
    status: int
    detail: str = Field(description="What was asked, what was found, and what to do next.")
    kind: str = Field(description="A word for programs, as `not-found`.")
    asked: str = Field(description="The path and the query, cut after 300 characters.")
    request_id: str = Field(description="Also in the access log.")


class Recorded(BaseModel):
    """What an answer is from: while a run goes on, a part of its blocks."""

    n_blocks: int
    n_blocks_done: int
    n_samples: int
    n_samples_done: int = Field(description="The number of samples that every number of the answer is from.")
    is_complete: bool
    damage: list[str] = Field(description="What is damaged, and therefore not part of the answer.")


class RunSummary(BaseModel):
    """A run in a list, from its manifest alone."""

    id: str = Field(description="For URLs: the name with ~1 for each slash and ~0 for each ~.")
    name: str = Field(description="Path of its folder below the root.")
    model: str
    state: STATES = Field(description="`stopped`: something is left to do; running the job again resumes it.")
    n_samples: int | None
    percentile: float | None
    changed_s: float = Field(description="When its manifest was written, seconds since 1970.")
    n_blocks: int | None = Field(description="None if its cache cannot be looked at from here.")
    n_blocks_done: int | None
    n_points: int | None
    activations_nbytes: int | None = Field(
        description="Of the recorded activations before compression; 0 if there are sketches only."
    )


class RunsAnswer(BaseModel):
    """One page of the list of runs."""

    n_total: int = Field(description="Runs that fit, on all pages.")
    offset: int
    limit: int
    is_cut: bool = Field(description="There are more files under the root than are looked at.")
    runs: list[RunSummary]


class RunAnswer(BaseModel):
    """One run."""

    id: str
    name: str
    model: str
    state: STATES
    writer: str | None = Field(description="Who records it now, as `process 12 on head since ...`.")
    recorded: Recorded
    n_points: int
    cache_nbytes: int
    has_factors: bool
    has_network: bool
    has_report: bool
    certificate_passed: bool | None = Field(description="None if there is no certificate that is up to date.")
    out_of_date: list[str] = Field(
        description="Results that were changed, or are of other settings or samples."
    )
    random_layers: list[str] = Field(description="Random at inference: what was recorded is one draw.")
    settings: dict[str, Any]
    versions: dict[str, str] = Field(description="Of the packages that recorded it.")


class LiveAnswer(BaseModel):
    """What goes on in a run now."""

    run: str
    state: STATES
    n_blocks: int
    n_blocks_done: int
    n_samples: int
    n_samples_done: int
    stage: str = Field("", description="Of the job that works, or has failed; empty if there is none.")
    unit: str = Field("", description="Plural of what is counted in this stage.")
    n_done: int = 0
    n_total: int = Field(0, description="0 if nothing is counted.")
    nbytes: int = Field(0, description="Activations before compression, recorded by this job.")
    per_second: float | None = None
    left_s: float | None = Field(None, description="Until the end of the stage.")
    pid: int | None = Field(None, description="Of the process that has told this, on its host.")
    updated_s: float | None = Field(None, description="When the job has told this, seconds since 1970.")
    messages: list[str] = []
    error: str | None = Field(None, description="Why the job has ended.")

    @property
    def event(self) -> str:
        """The name of the event."""
        if self.error is not None:
            return "failed"
        return "complete" if self.state == "complete" else "progress"


class PercentileAnswer(BaseModel):
    """A percentile with an interval that contains the exact order statistics."""

    point: str
    channel: int | None = None
    q: float = Field(description="In percent.")
    value: float | None = Field(description="None where there are no values.")
    lo: float | None
    hi: float | None
    exact: bool
    n_values: int = Field(description="Values that it is the percentile of.")


class PercentilesAnswer(BaseModel):
    """Percentiles of points or channels."""

    run: str
    recorded: Recorded
    nonzero: bool = Field(description="Of the activations that are not zero.")
    percentiles: list[PercentileAnswer]


class PointAnswer(BaseModel):
    """The statistics of one point. Counts and extremes are exact."""

    name: str
    layer_type: str
    activation: str
    shape: list[int]
    n_values: int
    n_zeros: int
    n_nan: int
    n_inf: int
    minimum: float | None
    maximum: float | None
    mean: float | None
    std: float | None = Field(description="Within 1 %, or None.")
    percentile: PercentileAnswer = Field(description="Of the run's own percentile.")
    n_channels: int | None = Field(description="Channels with a sketch of their own.")


class ChannelAnswer(PercentileAnswer):
    """One channel of a point, with one percentile of it."""

    n_zeros: int
    minimum: float | None
    maximum: float | None
    is_dead: bool = Field(description="Zero for every sample.")


class ChannelsAnswer(BaseModel):
    """The channels of a point."""

    run: str
    recorded: Recorded
    nonzero: bool
    point: str
    channels: list[ChannelAnswer]


class PointsAnswer(BaseModel):
    """The statistics of all points, in the order of the network."""

    run: str
    recorded: Recorded
    nonzero: bool
    points: list[PointAnswer]


class FactorAnswer(BaseModel):
    """The factor of one point and where it comes from."""

    model_config = ConfigDict(extra="allow")

    name: str
    factor: float | list[float]
    rule: str
    percentile: float | None
    value: float | None
    lo: float | None
    hi: float | None
    exact: bool
    n_values: int


class FactorsAnswer(BaseModel):
    """Factors, as `actisketch factors` computes them."""

    run: str
    recorded: Recorded
    nonzero: bool
    per_channel: bool
    input_factor: float | dict[str, Any]
    remarks: list[str]
    points: list[FactorAnswer]


class DistributionAnswer(BaseModel):
    """The histogram of a point or of a channel."""

    run: str
    recorded: Recorded
    point: str
    of: str
    channel: int | None
    scale: Literal["linear", "log", "symlog"]
    edges: list[float]
    counts: list[float] = Field(
        description="Values between neighbouring edges, without zeros; a bucket across an edge is split."
    )
    n_values: int
    n_zeros: int
    n_below: float = Field(description="Values too close to zero for a log axis.")
    percentile: PercentileAnswer


class DigestAnswer(BaseModel):
    """A t-digest in the form of the tdigest package: `TDigest().update_from_dict(answer["digest"])`."""

    run: str
    recorded: Recorded
    point: str
    channel: int | None
    nonzero: bool
    digest: dict[str, Any]


class DistanceAnswer(BaseModel):
    """A distance of two distributions; the distance of the values lies within [lo, hi]."""

    value: float | None = Field(description="None where one of the two has no values.")
    lo: float | None
    hi: float | None


class DistancesAnswer(BaseModel):
    """Two distances of the same distributions."""

    kolmogorov_smirnov: DistanceAnswer = Field(
        description="Largest difference of the distribution functions, 0 to 1."
    )
    wasserstein: DistanceAnswer = Field(description="How far values are moved on average, in their units.")


class ComparedAnswer(BaseModel):
    """One point in both runs."""

    point: str
    other: str = Field(description="Its name in the second run.")
    matched_by: Literal["name", "place"]
    first: FactorAnswer
    second: FactorAnswer
    ratio: float | None = Field(description="Second factor divided by first; None with factors of channels.")
    distance: float | None = Field(
        description="Kolmogorov-Smirnov distance of the activations, 0 to 1, as `is_nonzero` says."
    )
    distance_lo: float | None
    distance_hi: float | None = Field(description="The distance of the values lies within [lo, hi].")
    zeros: list[float | None] = Field(description="Shares in the first and the second run.")
    every: DistancesAnswer = Field(description="Of all activations.")
    nonzero: DistancesAnswer = Field(description="Of those that are not zero.")


class ComparisonAnswer(BaseModel):
    """Two runs, or two percentiles of one; the points that differ most stand first."""

    first: str
    second: str
    first_recorded: Recorded
    second_recorded: Recorded
    is_nonzero: bool = Field(
        description="`distance` is of the activations that are not zero; as the first run."
    )
    only_in_first: list[str]
    only_in_second: list[str]
    points: list[ComparedAnswer]
