"""From a request to its response: the run is opened, the question is answered in a thread, the answer gets its ETag.

Knows HTTP. Does not know what is asked.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from fastapi import Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from ...storage import Cache, sample_nbytes
from ...storage.errors import ActisketchError
from ..folder.folder import RunFolder, content_key
from .answers import RunsAnswer, RunSummary, number
from .catalogue import Catalogue, CatalogueRow, chosen_rows
from .downloads import OpenFile, TextFile
from .open_runs import OpenRun, OpenRuns
from .questions import reads_activations, run_answer
from .run_root import RunRoot, path_in_id
from .workers import Stop, Workers

__all__ = ["Desk", "Made", "Make"]

Made = BaseModel | dict[str, Any] | TextFile | OpenFile
Make = Callable[[OpenRun, Stop], Made]

# Always ask again; the ETag says whether the answer is still the same.
CACHED = {"cache-control": "private, no-cache"}
PROGRAM = importlib.metadata.version("actisketch")


class Desk:
    """Answers requests.

    Parameters
    ----------
    root : RunRoot
    runs : OpenRuns
    catalogue : Catalogue
    quick, long, listing : Workers
        Threads for answers from sketches, for those that read activations, and for the list of runs.
    """

    def __init__(
        self,
        root: RunRoot,
        runs: OpenRuns,
        catalogue: Catalogue,
        *,
        quick: Workers,
        long: Workers,
        listing: Workers,
    ) -> None:
        self._root, self._runs, self._catalogue = root, runs, catalogue
        self._quick, self._long, self._listing = quick, long, listing

    async def answer(
        self, request: Request, run_id: str, make: Make, *, exact: bool | None = False
    ) -> Response:
        """Return the answer that ``make`` gives of a run, or 304 if the client has it already.

        With ``exact`` activations are read; None: if the run's own settings say so.
        """
        opened = await self._runs.get(run_id)
        etag = _etag(request, opened.key)
        headers = {**CACHED, "etag": etag, **_marks(opened)}
        if _is_known(request, etag):
            return Response(status_code=304, headers=headers)
        workers = self._long if reads_activations(opened, exact) else self._quick
        made = await workers.run(lambda stop: _packed(make(opened, stop)), request.is_disconnected)
        return _response(made, headers)

    async def shown(self, request: Request, run_id: str) -> Response:
        """Return what is known of a run as a whole."""

        def make(opened: OpenRun, _: Stop) -> Made:
            name = path_in_id(run_id)
            row = self._catalogue.row(name)
            return run_answer(opened, name=name, state="damaged" if row is None else row.state)

        # The state changes without anything being recorded: there is no ETag before it is known.
        opened = await self._runs.get(run_id)
        packed = await self._quick.run(lambda stop: _packed(make(opened, stop)), request.is_disconnected)
        return _hashed(request, packed, _marks(opened))

    async def compared(
        self, request: Request, first_id: str, second_id: str, make: Callable[[OpenRun, OpenRun, Stop], Made]
    ) -> Response:
        """Return the answer that ``make`` gives of two runs."""
        first, second = await self._runs.get(first_id), await self._runs.get(second_id)
        etag = _etag(request, first.key, second.key)
        headers = {**CACHED, "etag": etag}
        if _is_known(request, etag):
            return Response(status_code=304, headers=headers)
        is_long = reads_activations(first, None) or reads_activations(second, None)
        workers = self._long if is_long else self._quick
        packed = await workers.run(lambda stop: _packed(make(first, second, stop)), request.is_disconnected)
        return _response(packed, headers)

    async def listed(self, request: Request, chosen: dict[str, Any], *, offset: int, limit: int) -> Response:
        """Return a page of the list of runs."""

        def make(_: Stop) -> Packed:
            rows, is_cut = self._catalogue.rows()
            fitting = chosen_rows(rows, **chosen)
            page = [self._summary(row) for row in fitting[offset : offset + limit]]
            answer = RunsAnswer(n_total=len(fitting), offset=offset, limit=limit, is_cut=is_cut, runs=page)
            return _packed(answer)

        return _hashed(request, await self._listing.run(make, request.is_disconnected), {})

    def _summary(self, row: CatalogueRow) -> RunSummary:
        facts = {name: value for name, value in asdict(row).items() if name != "has_own_cache"}
        return RunSummary(**{**facts, "percentile": number(row.percentile)}, **self._blocks(row))

    def _blocks(self, row: CatalogueRow) -> dict[str, Any]:
        """Return how much of a run is recorded; Nones if its cache is not a folder beside its manifest."""
        nothing: dict[str, Any] = dict.fromkeys(
            ("n_blocks", "n_blocks_done", "n_points", "activations_nbytes")
        )
        if not row.has_own_cache or row.state == "damaged":
            return nothing
        try:
            folder = self._root.folder_of(row.id)
            self._root.check_inside(folder, None, with_arrays=False)
            cache = Cache.open(RunFolder(folder).cache_path)
            spec = cache.spec
            missing = () if row.state == "complete" else cache.missing()
        except (ActisketchError, OSError):
            return nothing
        n_samples = spec.n_samples - sum(block.n_samples for block in missing)
        nbytes = sample_nbytes(spec.points, spec.dtype) if spec.keeps_activations else 0
        return {
            "n_blocks": spec.n_blocks,
            "n_blocks_done": spec.n_blocks - len(missing),
            "n_points": len(spec.points),
            "activations_nbytes": n_samples * nbytes,
        }


Packed = TextFile | OpenFile


def _packed(made: Made) -> Packed:
    """Return an answer as bytes, which are made in the thread too; without a name, it is no file to keep."""
    if isinstance(made, TextFile | OpenFile):
        return made
    if isinstance(made, BaseModel):
        content = made.model_dump_json().encode()
    else:
        content = json.dumps(made, allow_nan=False).encode()
    return TextFile(name="", media_type="application/json", content=content)


def _response(packed: Packed, headers: dict[str, str]) -> Response:
    if packed.name:
        headers["content-disposition"] = f'attachment; filename="{packed.name}"'
    if isinstance(packed, OpenFile):
        headers["content-length"] = str(packed.nbytes)
        return _FileResponse(packed, headers)
    if packed.remarks:
        headers["actisketch-remarks"] = json.dumps(packed.remarks)
    if packed.media_type == "image/svg+xml":
        # The picture's own styles, and nothing else.
        headers["content-security-policy"] = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
    return Response(packed.content, headers=headers, media_type=packed.media_type)


class _FileResponse(StreamingResponse):
    """Sends a file in parts and closes it, also if the client leaves before the first."""

    def __init__(self, opened: OpenFile, headers: dict[str, str]) -> None:
        super().__init__(opened.parts(), headers=headers, media_type=opened.media_type)
        self._opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._opened.close()


def _hashed(request: Request, packed: Packed, headers: dict[str, str]) -> Response:
    """Return an answer whose ETag is its own hash: of what is known only when it is made."""
    content = b"" if isinstance(packed, OpenFile) else packed.content
    etag = f'"{hashlib.blake2b(content, digest_size=16).hexdigest()}"'
    kept = {**CACHED, "etag": etag, **headers}
    if _is_known(request, etag):
        return Response(status_code=304, headers=kept)
    return _response(packed, kept)


def _marks(opened: OpenRun) -> dict[str, str]:
    """Return the headers that say how much of the run an answer is from, also of files and pictures."""
    so_far = opened.so_far
    marks = {"actisketch-blocks": f"{so_far.n_blocks_done} of {so_far.n_blocks}"}
    return marks | ({"actisketch-damaged": str(len(so_far.damage))} if so_far.damage else {})


def _etag(request: Request, *keys: str) -> str:
    # The order of names does not matter, that of the values of one name does.
    asked = sorted(request.query_params.multi_items(), key=lambda item: item[0])
    return f'"{content_key(PROGRAM, keys, request.scope["path"], asked)}"'


def _is_known(request: Request, etag: str) -> bool:
    known = [each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")]
    return etag in known or known == ["*"]
