"""The addresses of the service: which question each asks.

Knows HTTP and questions. Does not know how runs are opened or who may ask.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request
from fastapi.responses import Response, StreamingResponse

from ...storage.errors import InputError
from .answers import (
    ChannelsAnswer,
    ComparisonAnswer,
    DigestAnswer,
    DistributionAnswer,
    FactorsAnswer,
    LiveAnswer,
    PercentilesAnswer,
    PointsAnswer,
    ProblemAnswer,
    RunAnswer,
    RunsAnswer,
)
from .desk import Desk, Made, Make
from .distributions import DistributionQuestion, Subject, distribution_of, distribution_picture
from .downloads import TextFile, certificate_of, exported, network_of
from .live import Live, id_of_state
from .open_runs import OpenRun
from .questions import channels_of_point, comparison_of, digest_of, factors_answer, percentiles_of, points_of
from .workers import Stop

__all__ = ["PROBLEM", "make_router", "refuse_unknown"]

MOST_RUNS = 500
MOST_QS = 100
MOST_POINTS = 1000
MOST_BINS = 2000

Percent = Annotated[float, Query(ge=0, le=100, allow_inf_nan=False)]
Percents = Annotated[
    list[Annotated[float, Query(ge=0, le=100, allow_inf_nan=False)]], Query(min_length=1, max_length=MOST_QS)
]
OptionalPercent = Annotated[float | None, Query(ge=0, le=100, allow_inf_nan=False)]
Channel = Annotated[int | None, Query(ge=0, lt=2**31, description="Counted from 0; default: all together.")]
Nonzero = Annotated[bool | None, Query(description="Without the zeros; default: as the run.")]
Exact = Annotated[bool, Query(description="From the recorded activations, in one pass: may take minutes.")]
Name = Annotated[str, Query(max_length=1000)]

PROBLEM = {
    "model": ProblemAnswer,
    "description": "What was asked, what was found, what to do.",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemAnswer"}}},
}


def files_of(*media_types: str) -> dict[str, Any]:
    """Return how the document says that an answer is a file of one of these types."""
    return {"content": {each: {"schema": {"type": "string", "format": "binary"}} for each in media_types}}


def refuse_unknown(request: Request) -> None:
    """Refuse a question with a parameter that its address does not take: a wrong letter would change the answer."""
    known = [field.alias for field in request.scope["route"].dependant.query_params]
    unknown = [name for name in request.query_params if name not in known]
    if unknown:
        takes = ", ".join(known) or "none"
        raise InputError(f"there is no parameter {unknown[0][:100]!r} here: this address takes {takes}")


def _distribution(
    opened: OpenRun, stop: Stop, *, kind: Literal["json", "png", "svg"], asked: DistributionQuestion
) -> Made:
    if kind == "json":
        return distribution_of(opened, asked)
    content = distribution_picture(opened, asked, kind)
    return TextFile(name="", media_type="image/png" if kind == "png" else "image/svg+xml", content=content)


def _add_live(router: APIRouter, live: Live) -> None:
    """Add the addresses that tell what goes on now."""

    @router.get("/runs/{run}/live", response_model=LiveAnswer, summary="What goes on now")
    async def show_live(run: str) -> Response:
        """Return stage, blocks, pace, time left and error of the job that works on a run, whoever started it."""
        state = await live.state(run)
        return Response(state.model_dump_json(), media_type="application/json")

    @router.get(
        "/runs/{run}/events",
        summary="What goes on, as it happens",
        response_class=StreamingResponse,
        responses={
            200: {
                "description": "Events `progress`, `failed`, `complete` with the data of `/live`; `problem`.",
                "content": {"text/event-stream": {"schema": {"type": "string"}}},
            },
            204: {"description": "The run is complete, and the client knows it: EventSource stops."},
        },
    )
    async def follow(
        request: Request, run: str, last_event_id: Annotated[str | None, Header(max_length=200)] = None
    ) -> Response:
        """Send an event whenever something changes. A client that comes back goes on after its Last-Event-ID."""
        state = await live.state(run)  # an unknown run is refused before the stream begins
        if state.event == "complete" and id_of_state(state) == last_event_id:
            return Response(status_code=204)
        live.check_room()
        events = live.events(run, last_event_id, request.is_disconnected)
        return StreamingResponse(
            events,
            media_type="text/event-stream",
            # Proxies would wait for more.
            headers={"x-accel-buffering": "no"},
        )


def make_router(desk: Desk, live: Live) -> APIRouter:
    """Return the addresses below ``/api/v1``; ``desk`` answers, ``live`` watches."""
    router = APIRouter(
        prefix="/api/v1",
        responses={"4XX": PROBLEM, "5XX": PROBLEM},
        dependencies=[Depends(refuse_unknown)],
    )
    _add_live(router, live)

    @router.get("/runs", response_model=RunsAnswer, summary="The runs under the root")
    async def list_runs(
        request: Request,
        name: Annotated[str | None, Query(max_length=1000, description="Part of the name.")] = None,
        model: Annotated[str | None, Query(max_length=1000, description="Part of the name.")] = None,
        state: Literal["running", "complete", "stopped", "damaged"] | None = None,
        sort: Annotated[str, Query(pattern="^-?(name|model|state|samples|changed)$")] = "-changed",
        offset: Annotated[int, Query(ge=0, lt=2**31)] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST_RUNS)] = 100,
    ) -> Response:
        """Return one page. Runs are found by their manifests; folders behind links are not looked at."""
        chosen = {"name": name, "model": model, "state": state, "sort": sort}
        return await desk.listed(request, chosen, offset=offset, limit=limit)

    @router.get("/runs/{run}", response_model=RunAnswer, summary="One run")
    async def show_run(request: Request, run: str) -> Response:
        """Return state, settings, versions, what there is and what is damaged or out of date."""
        return await desk.shown(request, run)

    @router.get("/runs/{run}/points", response_model=PointsAnswer, summary="The statistics of all points")
    async def show_points(
        request: Request, run: str, q: OptionalPercent = None, nonzero: Nonzero = None
    ) -> Response:
        """Return counts, extremes, mean, standard deviation and one percentile of each point."""
        return await desk.answer(request, run, partial(points_of, q=q, nonzero=nonzero))

    @router.get("/runs/{run}/percentile", response_model=PercentilesAnswer, summary="Any percentile")
    async def show_percentile(
        request: Request,
        run: str,
        q: Percents,
        point: Annotated[
            list[Name] | None, Query(max_length=MOST_POINTS, description="Default: all points.")
        ] = None,
        channel: Channel = None,
        nonzero: Nonzero = None,
        exact: Exact = False,
    ) -> Response:
        """Return percentiles with the intervals that contain them; `q` and `point` may be given several times."""
        make = partial(percentiles_of, points=point, qs=q, channel=channel, nonzero=nonzero, exact=exact)
        return await desk.answer(request, run, make, exact=exact)

    @router.get(
        "/runs/{run}/factors",
        response_model=FactorsAnswer,
        summary="Scale factors",
        responses={200: files_of("text/csv", "application/octet-stream")},
    )
    async def show_factors(
        request: Request,
        run: str,
        percentile: OptionalPercent = None,
        method: Annotated[
            str | None, Query(max_length=100, description="How ranges are chosen; default: as the run.")
        ] = None,
        bits: Annotated[int | None, Query(ge=1, le=64, description="Of the whole numbers.")] = None,
        symmetric: bool | None = None,
        schedule: Annotated[float | None, Query(ge=0, le=100, allow_inf_nan=False)] = None,
        per_channel: bool | None = None,
        nonzero: Nonzero = None,
        exact: bool | None = None,
        format: Annotated[str, Query(max_length=100, description="As of `actisketch export`.")] = "json",
        partial_run: Annotated[
            bool, Query(alias="partial", description="Also a file of a run that is not complete.")
        ] = False,
    ) -> Response:
        """Return the factors for these settings, or a file for another program (`format`)."""
        asked = {
            "percentile": percentile,
            "method": method,
            "bits": bits,
            "symmetric": symmetric,
            "schedule": schedule,
            "per_channel": per_channel,
            "nonzero": nonzero,
            "exact": exact,
        }
        changes = {name: value for name, value in asked.items() if value is not None}
        make: Make = partial(factors_answer, changes=changes)
        if format != "json":
            make = partial(exported, kind=format, changes=changes, partial_run=partial_run)
        return await desk.answer(request, run, make, exact=exact)

    @router.get(
        "/runs/{run}/distribution",
        response_model=DistributionAnswer,
        summary="The distribution of a point",
        responses={200: files_of("image/png", "image/svg+xml")},
    )
    async def show_distribution(
        request: Request,
        run: str,
        point: Name,
        of: Subject = "activations",
        channel: Channel = None,
        log: Annotated[bool, Query(description="A logarithmic axis.")] = False,
        bins: Annotated[int | None, Query(ge=1, le=MOST_BINS)] = None,
        q: OptionalPercent = None,
        nonzero: Nonzero = None,
        format: Literal["json", "png", "svg"] = "json",
    ) -> Response:
        """Return a histogram with a percentile marked, as numbers or as a picture."""
        asked = DistributionQuestion(
            point=point, of=of, channel=channel, bins=bins, q=q, nonzero=nonzero, is_log=log
        )
        make = partial(_distribution, kind=format, asked=asked)
        return await desk.answer(request, run, make)

    @router.get("/runs/{run}/digest", response_model=DigestAnswer, summary="The t-digest of a point")
    async def show_digest(
        request: Request,
        run: str,
        point: Name,
        channel: Channel = None,
        nonzero: Nonzero = None,
        compression: Annotated[float, Query(ge=10, le=10_000, allow_inf_nan=False)] = 200.0,
    ) -> Response:
        """Return a t-digest in the form that the tdigest package reads."""
        return await desk.answer(
            request,
            run,
            lambda opened, stop: digest_of(
                opened, point, channel=channel, nonzero=nonzero, compression=compression
            ),
        )

    @router.get("/runs/{run}/channels", response_model=ChannelsAnswer, summary="The channels of a point")
    async def show_channels(
        request: Request, run: str, point: Name, q: OptionalPercent = None, nonzero: Nonzero = None
    ) -> Response:
        """Return counts, extremes and one percentile of each channel, where the run has sketches of channels."""
        return await desk.answer(
            request, run, lambda opened, stop: channels_of_point(opened, point, q=q, nonzero=nonzero)
        )

    @router.get("/runs/{run}/certificate", response_model=dict[str, Any], summary="The certificate")
    async def show_certificate(request: Request, run: str) -> Response:
        """Return the certificate of the normalised network as it was written."""
        return await desk.answer(request, run, lambda opened, stop: certificate_of(opened))

    @router.get(
        "/runs/{run}/network",
        summary="The normalised network",
        response_class=Response,
        responses={200: files_of("application/octet-stream")},
    )
    async def get_network(request: Request, run: str) -> Response:
        """Return the file of the normalised network."""
        return await desk.answer(request, run, lambda opened, stop: network_of(opened))

    @router.get("/compare", response_model=ComparisonAnswer, summary="Two runs, or two percentiles of one")
    async def compare(
        request: Request,
        a: Name,
        b: Name,
        percentile: OptionalPercent = None,
        second_percentile: OptionalPercent = None,
    ) -> Response:
        """Return the factors and the distance of each point that both runs have; those furthest apart first."""
        return await desk.compared(
            request,
            a,
            b,
            partial(comparison_of, percentile=percentile, second_percentile=second_percentile),
        )

    return router
