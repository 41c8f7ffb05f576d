"""What a run is seen as: a table in a notebook, plots, a data frame, a dataset, a t-digest of another package.

`Run` inherits these; they use only its public questions. What draws is imported where it is used: a question is
answered as fast as without views.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...storage.errors import InputError
from ..events import counted
from ..factors.factors_file import Factors
from ..settings.factor_settings import PERCENTILE
from ..sketch import Percentile, to_tdigest
from .percentile_rows import as_percents, percent_label
from .viewed_run import ViewedRun, factors_at_hand

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame
    from tdigest import TDigest
    from xarray import Dataset

    from ..display.shown_table import ShownTable
    from .statistics_table import StatisticsTable

__all__ = ["RunViews"]


class RunViews:
    """The views of a run."""

    def __repr__(self: ViewedRun) -> str:
        # One line: it stands in messages and debuggers. `print(run)` shows the table.
        return (
            f"<Run {str(self.folder.path)!r}: {counted(len(self.points), 'point')}, "
            f"{counted(self.cache.spec.n_samples, 'sample')}>"
        )

    def __str__(self: ViewedRun) -> str:
        return _table_of(self).text()

    def table(
        self: ViewedRun, percentiles: float | Sequence[float] = (PERCENTILE,), *, nonzero: bool = True
    ) -> StatisticsTable:
        """Return count, zeros, mean, std, min, max and percentiles of each point as a table to look at and to ask.

        Parameters
        ----------
        percentiles : float or sequence of float
            In percent.
        nonzero : bool
            Of the activations that are not zero; ``False``: of all.
        """
        from .statistics_table import StatisticsTable

        return StatisticsTable(
            self.sketches,
            {spec.name: spec.shape for spec in self.cache.spec.points},
            percentiles=percentiles,
            nonzero=nonzero,
            title=f"{counted(len(self.points), 'point')}, {counted(self.cache.spec.n_samples, 'sample')}",
        )

    def to_dataframe(
        self: ViewedRun, percentiles: float | Sequence[float] = (PERCENTILE,), *, nonzero: bool = True
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

    def to_xarray(self: ViewedRun) -> Dataset:
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
        from .run_dataset import lazy_dataset

        arrays = {point: self.activations(point) for point in self.points}
        facts = {"n_samples": self.cache.spec.n_samples, "cache": self.cache.url}
        return lazy_dataset(arrays, self.cache.spec.points, attributes=facts)

    def tdigest(
        self: ViewedRun,
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
        self: ViewedRun,
        point: str,
        percentiles: float | Sequence[float] = (PERCENTILE,),
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
        percentiles : float or sequence of float
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
        from .run_plots import draw_distribution, given_or_new_axes

        percentiles = as_percents(percentiles)
        sketch = self.sketch(point, channel=channel)
        marks = (
            {percent_label(q): sketch.percentile(q, nonzero=nonzero) for q in percentiles} if sketch.n else {}
        )
        axes = given_or_new_axes(ax)
        name = point if channel is None else f"{point}, channel {channel}"
        factor = _factor_of(factors_at_hand(self), point, channel)
        draw_distribution(axes, sketch, name=name, marks=_seen(marks), factor=factor, style=style)
        return axes

    def plot_factors(self: ViewedRun, factors: Factors | None = None, *, ax: Axes | None = None) -> Axes:
        """Draw the factor of each point beside its percentile and its largest activation; return the axes.

        Parameters
        ----------
        factors : Factors, optional
            Default: those of the run's settings.
        ax : matplotlib.axes.Axes, optional
            Where to draw; default: a new figure of pyplot, as wide as the points need.
        """
        from .run_plots import draw_factors, given_or_new_axes

        factors = factors_at_hand(self) if factors is None else factors
        unknown = [p.name for p in factors.points if p.name not in self.points]
        if unknown:
            raise InputError(
                f"the factors are of other points than the run's, first {unknown[0]!r}", point=unknown[0]
            )
        axes = given_or_new_axes(ax, width_in=max(6.4, 0.3 * len(factors.points)))
        draw_factors(axes, factors, self.sketches)
        return axes

    def _repr_html_(self: ViewedRun) -> str:
        return _table_of(self).html()


def _table_of(run: ViewedRun) -> ShownTable:
    from .run_table import run_table

    return run_table(run)


def _seen(marks: Mapping[str, Percentile]) -> dict[str, Percentile]:
    """Return the percentiles that are numbers: of no values they are NaN."""
    return {label: found for label, found in marks.items() if found.value == found.value}


def _factor_of(factors: Factors, point: str, channel: int | None) -> float | None:
    """Return the factor that the drawn values are divided by, if it is one number."""
    (factor,) = (p for p in factors.points if p.name == point)
    if isinstance(factor.factor, tuple):
        return None if channel is None else factor.factor[channel]
    return factor.factor
