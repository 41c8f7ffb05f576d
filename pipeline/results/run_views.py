"""What a run is seen as: a table in a notebook, plots, a data frame, a dataset, a t-digest of another package.

`Run` inherits these; they use only its public questions.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ...storage.errors import ActisketchError, InputError
from ..display.shown_table import ShownTable
from ..display.small_pictures import distribution_svg
from ..events import counted
from ..exporters import RecordedRun
from ..factors.factors_file import Factors, PointFactor
from ..report.numbers import axes_text, count_text, factor_text, interval_text, number_text, share_text
from ..settings.factor_settings import PERCENTILE
from ..sketch import Percentile, PointSketch, Sketch, to_tdigest
from .activation_array import Activations
from .run_dataset import lazy_dataset
from .run_plots import draw_distribution, draw_factors, given_or_new_axes
from .saved import RunStatus
from .statistics_table import StatisticsTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame
    from tdigest import TDigest
    from xarray import Dataset

__all__ = ["RunViews"]


class _Viewed(RecordedRun, Protocol):
    """The questions of a run that its views ask."""

    def factors(self) -> Factors: ...
    def status(self) -> RunStatus: ...
    def certificate(self) -> Mapping[str, Any] | None: ...
    def activations(self, point: str) -> Activations: ...
    def sketch(self, point: str, *, channel: int | None = ...) -> Sketch: ...


class RunViews:
    """The views of a run."""

    def __repr__(self: _Viewed) -> str:
        # One line: it stands in messages and debuggers. `print(run)` shows the table.
        return (
            f"<Run {str(self.folder.path)!r}: {len(self.points)} points, {self.cache.spec.n_samples} samples>"
        )

    def __str__(self: _Viewed) -> str:
        return _table_of(self).text()

    def table(
        self: _Viewed, percentiles: Sequence[float] = (PERCENTILE,), *, nonzero: bool = True
    ) -> StatisticsTable:
        """Return count, zeros, mean, std, min, max and percentiles of each point as a table to look at and to ask.

        Parameters
        ----------
        percentiles : sequence of float
            In percent.
        nonzero : bool
            Of the activations that are not zero; ``False``: of all.
        """
        return StatisticsTable(
            self.sketches,
            {spec.name: spec.shape for spec in self.cache.spec.points},
            percentiles=percentiles,
            nonzero=nonzero,
            title=f"{counted(len(self.points), 'point')}, {counted(self.cache.spec.n_samples, 'sample')}",
        )

    def to_dataframe(
        self: _Viewed, percentiles: Sequence[float] = (PERCENTILE,), *, nonzero: bool = True
    ) -> DataFrame:
        """Return the statistics as a tidy data frame: point, channel, statistic, value, lo, hi.

        As :meth:`StatisticsTable.to_dataframe`; parameters as :meth:`table`. Needs pandas, which the extra
        ``notebook`` installs.

        Examples
        --------
        >>> frame = open_run("digits").to_dataframe([99.0, 99.9])  # doctest: +SKIP
        >>> frame[frame.statistic == "p99.9"].set_index("point").value  # doctest: +SKIP
        """
        return RunViews.table(self, percentiles, nonzero=nonzero).to_dataframe()

    def to_xarray(self: _Viewed) -> Dataset:
        """Return the recorded activations as a dataset: a variable for each point, read and checked when computed.

        All share the dimension ``sample``; the others have names of their own, ``conv1.1``, ``conv1.channel``. Needs
        xarray, which the extra ``notebook`` installs.

        Raises
        ------
        InputError
            Without xarray, or if the run holds sketches only.

        Examples
        --------
        >>> open_run("digits").to_xarray()["conv1"].mean("sample").compute()  # doctest: +SKIP
        """
        arrays = {point: self.activations(point) for point in self.points}
        facts = {"n_samples": self.cache.spec.n_samples, "cache": self.cache.url}
        return lazy_dataset(arrays, self.cache.spec.points, attributes=facts)

    def tdigest(
        self: _Viewed,
        point: str,
        *,
        channel: int | None = None,
        nonzero: bool = True,
        compression: float = 200.0,
    ) -> TDigest:
        """Return the t-digest of a point as an object of the ``tdigest`` package; parameters as :meth:`Run.digest`.

        Raises
        ------
        InputError
            If there are no values, of which that package has no digest.
        """
        return to_tdigest(self.sketch(point, channel=channel).digest(compression, nonzero=nonzero))

    def plot(
        self: _Viewed,
        point: str,
        percentiles: Sequence[float] = (PERCENTILE,),
        *,
        channel: int | None = None,
        nonzero: bool = True,
        ax: Axes | None = None,
        **style: Any,
    ) -> Axes:
        """Draw the distribution of a point with percentiles and its factor as lines; return the axes to go on with.

        Parameters
        ----------
        point : str
        percentiles : sequence of float
            In percent, to be marked with their intervals.
        channel : int, optional
            One channel of the point, counted from 0, where the run has a sketch for each.
        nonzero : bool
            Percentiles of the activations that are not zero.
        ax : matplotlib.axes.Axes, optional
            Where to draw; default: a new figure of pyplot.
        **style
            Of ``Axes.stairs``: ``color``, ``alpha``.

        Examples
        --------
        >>> axes = open_run("digits").plot("conv1", [99.0, 99.9])  # doctest: +SKIP
        >>> axes.figure.savefig("conv1.pdf")  # doctest: +SKIP
        """
        sketch = self.sketch(point, channel=channel)
        marks = {f"p{q:g}": sketch.percentile(q, nonzero=nonzero) for q in percentiles} if sketch.n else {}
        axes = given_or_new_axes(ax)
        name = point if channel is None else f"{point}, channel {channel}"
        factor = _factor_of(self.factors(), point, channel)
        draw_distribution(axes, sketch, name=name, marks=_seen(marks), factor=factor, style=style)
        return axes

    def plot_factors(self: _Viewed, factors: Factors | None = None, *, ax: Axes | None = None) -> Axes:
        """Draw the factor of each point beside its percentile and its largest activation; return the axes.

        Parameters
        ----------
        factors : Factors, optional
            Default: those of the run's settings.
        ax : matplotlib.axes.Axes, optional
            Where to draw; default: a new figure of pyplot, as wide as the points need.
        """
        factors = self.factors() if factors is None else factors
        unknown = [p.name for p in factors.points if p.name not in self.points]
        if unknown:
            raise InputError(
                f"the factors are of other points than the run's, first {unknown[0]!r}", point=unknown[0]
            )
        axes = given_or_new_axes(ax, width_in=max(6.4, 0.3 * len(factors.points)))
        draw_factors(axes, factors, self.sketches)
        return axes

    def _repr_html_(self: _Viewed) -> str:
        return _table_of(self).html()


def _table_of(run: _Viewed) -> ShownTable:
    try:
        return _whole_table(run)
    except (ActisketchError, OSError) as error:
        # A run whose blocks are missing or damaged is shown too, with what is known of it.
        return _table_without_sketches(run, error)


def _whole_table(run: _Viewed) -> ShownTable:
    factors = run.factors()
    sketches, status, certificate = run.sketches, run.status(), run.certificate()
    specs = run.cache.spec.points
    by_name = {p.name: p for p in factors.points}
    of_certificate = {} if certificate is None else {p["name"]: p for p in certificate["points"]}
    # A copy for each, one after the other: what a sketch keeps when it is asked is larger than its counts.
    rows = [_row(spec.name, spec.shape, sketches[spec.name], by_name[spec.name]) for spec in specs]
    columns = {head: [row[i] for row in rows] for i, head in enumerate(HEADS)}
    if of_certificate:
        columns[">residual"] = [_residual(of_certificate.get(spec.name)) for spec in specs]
    return ShownTable(
        title=f"Run {str(run.folder.path)!r}",
        lines=[*_facts(run, status), *_verdict(certificate)],
        columns=columns,
        pictures=[row[-1] for row in rows],
        more="run.table() and run.to_dataframe() have all",
    )


HEADS = ("point", ">shape", ">values", ">zeros", ">max", ">percentile", "[lo, hi]", ">factor", "rule")


def _row(name: str, shape: Sequence[int], sketch: PointSketch, factor: PointFactor) -> tuple[str, ...]:
    layer = copy.copy(sketch.layer)
    q = "" if factor.percentile is None or factor.value is None else f"p{factor.percentile:g} "
    has_interval = factor.lo is not None and factor.hi is not None
    return (
        name,
        axes_text(shape),
        count_text(layer.n),
        share_text(layer.n_zeros / layer.n if layer.n else None),
        number_text(layer.maximum),
        "-" if factor.value is None else f"{q}{number_text(factor.value, digits=5)}",
        interval_text(factor.lo or 0.0, factor.hi or 0.0) if has_interval else "-",
        factor_text(factor.factors),
        factor.rule,
        distribution_svg(layer, mark=factor.value),
    )


def _residual(item: Mapping[str, Any] | None) -> str:
    if item is None:
        return "-"
    shown = "not finite" if item["max_residual"] is None else number_text(item["max_residual"], digits=2)
    return shown if item["passed"] else f"{shown} !"


def _verdict(certificate: Mapping[str, Any] | None) -> Iterator[str]:
    if certificate is None:
        yield "no certificate: nothing was normalised"
        return
    passed = "certificate passed" if certificate["passed"] else "certificate FAILED: do not use the network"
    yield f"{passed}, on {counted(certificate['n_samples'], 'sample')}"
    before, after = certificate.get("accuracy_before"), certificate.get("accuracy_after")
    if before is not None and after is not None:
        yield f"accuracy {before:.2%} before, {after:.2%} after normalisation"


def _facts(run: _Viewed, status: RunStatus) -> Iterator[str]:
    name = run.folder.manifest().get("model", {}).get("name", "network")
    yield f"{name}: {counted(status.n_points, 'point')}, {counted(status.n_samples, 'sample')}"
    if not status.is_recorded:
        yield f"{status.n_blocks_done} of {status.n_blocks} blocks are recorded: run the job again to resume"
    places = [
        ("report", run.folder.report_path / "index.html", status.has_report),
        ("normalised network", run.folder.network_path, status.has_network),
    ]
    yield "; ".join([f"cache {status.cache}", *(f"{what} {path}" for what, path, has in places if has)])
    if status.out_of_date:
        yield f"out of date: {', '.join(status.out_of_date)}"


def _table_without_sketches(run: _Viewed, error: Exception) -> ShownTable:
    lines, columns = [str(error)], {}
    try:
        specs = run.cache.spec.points
        lines = [*_facts(run, run.status()), *lines]
        columns = {
            "point": [spec.name for spec in specs],
            ">shape": [axes_text(spec.shape) for spec in specs],
        }
    except (ActisketchError, OSError):
        pass  # the first error says what is wrong
    return ShownTable(title=f"Run {str(run.folder.path)!r}", lines=lines, columns=columns)


def _seen(marks: Mapping[str, Percentile]) -> dict[str, Percentile]:
    """Return the percentiles that are numbers: of no values they are NaN."""
    return {label: found for label, found in marks.items() if found.value == found.value}


def _factor_of(factors: Factors, point: str, channel: int | None) -> float | None:
    """Return the factor that the drawn values are divided by, if it is one number."""
    found: Iterable[PointFactor] = (p for p in factors.points if p.name == point)
    (factor,) = found
    if isinstance(factor.factor, tuple):
        return None if channel is None else factor.factor[channel]
    return factor.factor
