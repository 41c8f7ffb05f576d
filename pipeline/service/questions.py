"""From a question about a run to its answer: one call of the run each, as the command line makes.

Knows runs and answers. Does not know HTTP.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ...storage.claim import writer_of
from ..factors.exact_source import channels_of
from ..factors.factors_file import PointFactor
from ..results.compared_runs import compare_recorded
from ..results.percentile_rows import PercentileRow
from ..results.run import Run
from ..results.so_far import RunSoFar
from ..sketch import Distance, Distances, Sketch, to_tdigest_dict
from .answers import (
    ChannelAnswer,
    ChannelsAnswer,
    ComparedAnswer,
    ComparisonAnswer,
    DigestAnswer,
    DistanceAnswer,
    DistancesAnswer,
    FactorAnswer,
    FactorsAnswer,
    PercentileAnswer,
    PercentilesAnswer,
    PointAnswer,
    PointsAnswer,
    Recorded,
    RunAnswer,
    number,
)
from .catalogue import RunState, checked_state
from .open_runs import OpenRun
from .workers import Stop

__all__ = [
    "channels_of_point",
    "comparison_of",
    "digest_of",
    "factors_answer",
    "is_nonzero",
    "percentile_in",
    "percentiles_of",
    "points_of",
    "reading",
    "reads_activations",
    "recorded_of",
    "run_answer",
]


def recorded_of(opened: OpenRun) -> Recorded:
    """Return what the answers are from."""
    so_far = opened.so_far
    return Recorded(
        n_blocks=so_far.n_blocks,
        n_blocks_done=so_far.n_blocks_done,
        n_samples=so_far.n_samples,
        n_samples_done=so_far.n_samples_done,
        is_complete=so_far.is_complete,
        damage=list(so_far.damage),
    )


def is_nonzero(run: Run, nonzero: bool | None) -> bool:
    """Return whether zeros are left out: as asked, or as the run."""
    return run.settings.factors.nonzero if nonzero is None else nonzero


def run_answer(opened: OpenRun, *, name: str, state: RunState) -> RunAnswer:
    """Return what is known of a run as a whole. Reads its results and compares their hashes."""
    run = opened.run
    status, holder = run.status(), writer_of(run.folder.cache_path)
    writer = None
    if holder is not None:
        since = datetime.fromtimestamp(holder.since_s, UTC).isoformat(timespec="seconds")
        writer = f"process {holder.pid} on {holder.host} since {since}"
    manifest = opened.manifest
    return RunAnswer(
        id=opened.id,
        name=name,
        model=_writable(str(manifest.get("model", {}).get("name", ""))),
        state=checked_state(state, lambda: status),
        writer=writer,
        recorded=recorded_of(opened),
        n_points=status.n_points,
        cache_nbytes=status.cache_nbytes,
        has_factors=status.has_factors,
        has_network=status.has_network,
        has_report=status.has_report,
        certificate_passed=status.certificate_passed,
        out_of_date=list(status.out_of_date),
        random_layers=list(status.random_layers),
        settings=_writable(run.settings.model_dump(mode="json", exclude={"output"})),
        versions=_writable(manifest.get("versions", {})),
    )


def _writable(tree: Any) -> Any:
    """Return JSON values with half a pair of code units, which UTF-8 does not have, as an escape sequence."""
    if isinstance(tree, str):
        return tree.encode("utf-8", "backslashreplace").decode()
    if isinstance(tree, dict):
        return {_writable(name): _writable(value) for name, value in tree.items()}
    return [_writable(value) for value in tree] if isinstance(tree, list) else tree


def reads_activations(opened: OpenRun, exact: bool | None) -> bool:
    """Whether a question reads recorded activations: as asked, or as the run's own settings say."""
    return opened.run.settings.factors.exact if exact is None else exact


def reading(opened: OpenRun, stop: Stop, exact: bool | None) -> Run:
    """Return the run, which stops to read activations when ``stop`` says so."""
    run = opened.run
    if reads_activations(opened, exact):
        return RunSoFar(run, run.cache.watched(stop.check), run.sketches)
    return run


def percentiles_of(
    opened: OpenRun,
    stop: Stop,
    *,
    points: Sequence[str] | None,
    qs: Sequence[float],
    channel: int | None,
    nonzero: bool | None,
    exact: bool,
) -> PercentilesAnswer:
    """Return percentiles of points, or of one channel of each; what is asked twice is answered once."""
    run = reading(opened, stop, exact)
    without_zeros = is_nonzero(run, nonzero)
    names, qs = list(dict.fromkeys(points or run.points)), list(dict.fromkeys(qs))
    sketches = {}
    for name in names:
        stop.check()
        sketches[name] = run.sketch(name, channel=channel)  # refuses what is not there
    answers: list[PercentileAnswer] = []
    if exact:
        rows = run.percentiles(
            qs, points=names, nonzero=without_zeros, exact=True, per_channel=channel is not None
        )
        chosen = [row for row in rows if row.channel == channel]
        answers = [_row_answer(row, _count(sketches[row.point], without_zeros)) for row in chosen]
    else:
        for name, sketch in sketches.items():
            for q in qs:
                stop.check()
                answers.append(percentile_in(sketch, name, q, nonzero=without_zeros, channel=channel))
    return PercentilesAnswer(
        run=opened.id, recorded=recorded_of(opened), nonzero=without_zeros, percentiles=answers
    )


def percentile_in(
    sketch: Sketch, point: str, q: float, *, nonzero: bool, channel: int | None = None
) -> PercentileAnswer:
    """Return one percentile from a sketch."""
    found = sketch.percentile(q, nonzero=nonzero)
    row = PercentileRow(
        point=point, channel=channel, q=q, value=found.value, lo=found.lo, hi=found.hi, exact=False
    )
    return _row_answer(row, _count(sketch, nonzero))


def _row_answer(row: PercentileRow, n_values: int) -> PercentileAnswer:
    return PercentileAnswer(
        point=row.point,
        channel=row.channel,
        q=row.q,
        value=number(row.value),
        lo=number(row.lo),
        hi=number(row.hi),
        exact=row.exact,
        n_values=n_values,
    )


def _count(sketch: Sketch, nonzero: bool) -> int:
    return sketch.n_nonzero if nonzero else sketch.n


def points_of(opened: OpenRun, stop: Stop, *, q: float | None, nonzero: bool | None) -> PointsAnswer:
    """Return the statistics of all points."""
    run = opened.run
    without_zeros, q = is_nonzero(run, nonzero), run.settings.factors.percentile if q is None else q
    table, answers = run.statistics(), []
    for spec in run.cache.spec.points:
        stop.check()
        channels = run.sketches[spec.name].channels
        answers.append(
            PointAnswer(
                name=spec.name,
                layer_type=str(spec.meta.get("layer_type", "")),
                activation=str(spec.meta.get("activation", "")),
                percentile=percentile_in(run.sketch(spec.name), spec.name, q, nonzero=without_zeros),
                n_channels=None if channels is None else channels.n_channels,
                **table[spec.name],
            )
        )
    return PointsAnswer(run=opened.id, recorded=recorded_of(opened), nonzero=without_zeros, points=answers)


def channels_of_point(
    opened: OpenRun, point: str, *, q: float | None, nonzero: bool | None
) -> ChannelsAnswer:
    """Return every channel of a point with one percentile of it; InputError if channels were not sketched."""
    run = opened.run
    without_zeros, q = is_nonzero(run, nonzero), run.settings.factors.percentile if q is None else q
    rows = run.percentiles([q], points=[point], nonzero=without_zeros, per_channel=True)
    sketch = channels_of(run.sketches[point], point)
    columns = zip(rows, sketch.n, sketch.n_zeros, sketch.minimum, sketch.maximum, strict=True)
    answers = [
        ChannelAnswer(
            **_row_answer(row, int(n - n_zeros if without_zeros else n)).model_dump(),
            n_zeros=int(n_zeros),
            minimum=number(least),
            maximum=number(most),
            is_dead=bool(n == n_zeros),
        )
        for row, n, n_zeros, least, most in columns
    ]
    return ChannelsAnswer(
        run=opened.id, recorded=recorded_of(opened), nonzero=without_zeros, point=point, channels=answers
    )


def factors_answer(opened: OpenRun, stop: Stop, *, changes: Mapping[str, Any]) -> FactorsAnswer:
    """Return factors for the run's settings with these changes."""
    run = reading(opened, stop, changes.get("exact"))
    factors = run.factors(**changes)
    remarks = run.with_factors(changes).factors.warnings()
    return FactorsAnswer(
        run=opened.id,
        recorded=recorded_of(opened),
        nonzero=factors.nonzero,
        per_channel=factors.per_channel,
        input_factor=factors.input_factor,
        remarks=list(remarks),
        points=[_factor_answer(run, point, nonzero=factors.nonzero) for point in factors.points],
    )


def _factor_answer(run: Run, point: PointFactor, *, nonzero: bool) -> FactorAnswer:
    facts = dataclasses.asdict(point)
    numbers = {name: number(facts[name]) for name in ("percentile", "value", "lo", "hi")}
    factor = list(point.factor) if isinstance(point.factor, tuple) else point.factor
    n_values = _count(run.sketches[point.name].layer, nonzero)
    return FactorAnswer(**{**facts, **numbers, "factor": factor, "n_values": n_values})


def digest_of(
    opened: OpenRun, point: str, *, channel: int | None, nonzero: bool | None, compression: float
) -> DigestAnswer:
    """Return the t-digest of a point or of a channel."""
    without_zeros = is_nonzero(opened.run, nonzero)
    digest = opened.run.digest(point, channel=channel, nonzero=without_zeros, compression=compression)
    return DigestAnswer(
        run=opened.id,
        recorded=recorded_of(opened),
        point=point,
        channel=channel,
        nonzero=without_zeros,
        digest=to_tdigest_dict(digest),
    )


def comparison_of(
    first: OpenRun, second: OpenRun, stop: Stop, *, percentile: float | None, second_percentile: float | None
) -> ComparisonAnswer:
    """Return two runs, or two percentiles of one, point by point."""
    a, b = first.run, second.run
    found = compare_recorded(
        first.so_far,
        second.so_far,
        percentile=percentile,
        second_percentile=second_percentile,
        check=stop.check,
    )
    rows = [
        ComparedAnswer(
            point=row.point,
            other=row.other,
            matched_by=row.matched_by,
            first=_factor_answer(a, row.first, nonzero=a.settings.factors.nonzero),
            second=_factor_answer(b, row.second, nonzero=b.settings.factors.nonzero),
            ratio=number(row.ratio),
            distance=number(found.distance(row).value),
            distance_lo=number(found.distance(row).lo),
            distance_hi=number(found.distance(row).hi),
            zeros=[number(share) for share in row.zeros],
            every=_distances_answer(row.every),
            nonzero=_distances_answer(row.nonzero),
        )
        for row in found.points
    ]
    return ComparisonAnswer(
        first=first.id,
        second=second.id,
        first_recorded=recorded_of(first),
        second_recorded=recorded_of(second),
        is_nonzero=found.nonzero,
        only_in_first=list(found.only_in_first),
        only_in_second=list(found.only_in_second),
        points=rows,
    )


def _distances_answer(found: Distances) -> DistancesAnswer:
    return DistancesAnswer(
        kolmogorov_smirnov=_distance_answer(found.kolmogorov_smirnov),
        wasserstein=_distance_answer(found.wasserstein),
    )


def _distance_answer(found: Distance) -> DistanceAnswer:
    return DistanceAnswer(value=number(found.value), lo=number(found.lo), hi=number(found.hi))
