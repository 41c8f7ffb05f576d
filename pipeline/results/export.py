"""Statistics, factors and t-digests as text that other programs read.

Knows results. Does not know the cache or where anything is written.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ...storage.errors import InputError
from ..factors.factors_file import Factors
from ..settings.visible import plain_cell
from ..sketch import Digest, to_tdigest_dict

__all__ = ["KINDS", "digests_text", "export_text", "is_normalised"]

KINDS = ("json", "csv", "tdigest", "toolbox", "toolbox-parsed")
ABOUT_ONE = 0.02
"""The factors of a normalised network, measured on other samples of the same kind, are at most this far from 1."""


def export_text(
    kind: str, factors: Factors, *, statistics: Mapping[str, Mapping[str, Any]], names: Mapping[str, Any]
) -> str:
    """Return statistics and factors as text of one of the `KINDS` but "tdigest".

    Parameters
    ----------
    kind : str
    factors : Factors
    statistics : mapping of point name to a row of statistics
    names : mapping
        What :func:`~..graph.toolbox_names` returned when the network was recorded.

    Raises
    ------
    InputError
        For another kind, or factors that the kind cannot hold.
    """
    if kind == "toolbox":
        return _json(_for_toolbox(factors, input_name=names.get("input", "input")))
    if kind == "toolbox-parsed":
        return _json(_for_parsed(factors, names))
    if kind == "json":
        return _json({"statistics": dict(statistics), "factors": factors.to_dict()})
    if kind == "csv":
        return _csv(factors, statistics)
    raise InputError(f"export as {kind!r} is refused: {', '.join(KINDS[:-1])} or {KINDS[-1]}")


def digests_text(digests: Mapping[str, Digest]) -> str:
    """Return t-digests by point as JSON, each in the dict form of the ``tdigest`` package; no centroids if empty."""
    return _json({name: to_tdigest_dict(digest) for name, digest in digests.items()})


def is_normalised(factors: Factors) -> bool:
    """Return whether all factors are about 1, as for a network that was normalised before."""
    found = [p.factor for p in factors.points if p.rule == "percentile" and isinstance(p.factor, float)]
    return bool(found) and all(abs(factor - 1) <= ABOUT_ONE for factor in found)


def _json(tree: Mapping[str, Any]) -> str:
    return json.dumps(tree, indent=1) + "\n"


def _for_toolbox(factors: Factors, *, input_name: str) -> dict[str, float]:
    """Return a number for the input, first, and for each layer by its name in Keras.

    Points of several scales (Concatenate) are left out: the toolbox asks for layers with parameters only.
    """
    if isinstance(factors.input_factor, dict):
        raise InputError(
            "SNN toolbox reads one factor for one input, normalize.input_factor is a table: set a number, or "
            "export as json or csv"
        )
    found = {input_name: factors.input_factor}
    for p in factors.points:
        if isinstance(p.factor, tuple):
            if p.rule == "joined" and not factors.per_channel:
                continue
            raise InputError(
                f"SNN toolbox reads one number for each layer, but {p.name!r} has one for each of its "
                f"{len(p.factor)} channels: set factors.per_channel = false in the job and run it again, which "
                "reloads what is recorded; or export as json or csv",
                point=p.name,
            )
        found[p.name] = p.factor
    return found


def _for_parsed(factors: Factors, names: Mapping[str, Any]) -> dict[str, float]:
    """Return a number for the input, first, and for each layer with weights of the network that the toolbox parsed."""
    parsed: Mapping[str, str | None] = names.get("parsed") or {}
    if not parsed:
        raise InputError(
            "this run does not know the names that SNN toolbox's parser gives, because an earlier program recorded it "
            "or the network has no layer that the parser keeps: run the job again, which reloads what is recorded"
        )
    if names["unparsed"]:
        raise InputError(
            f"SNN toolbox's parser leaves out {', '.join(map(repr, names['unparsed']))}: its network would compute "
            "something else; export as toolbox for a network that is not parsed"
        )
    missing = [name for name, point in parsed.items() if point is None]
    if missing:
        raise InputError(
            f"SNN toolbox asks for a factor of {', '.join(map(repr, missing))}, which the run did not record: record "
            "with --points neurons"
        )
    # The toolbox turns an Add into a convolution: its inputs are no longer tied, and keep their own percentiles.
    untied = [
        replace(p, factor=p.value) if p.rule == "tied" and p.value is not None and p.value > 0 else p
        for p in factors.points
    ]
    known = _for_toolbox(replace(factors, points=tuple(untied)), input_name=names["input"])
    first = {names["input"]: known[names["input"]]}
    return first | {name: known[str(point)] for name, point in parsed.items()}


def _csv(factors: Factors, statistics: Mapping[str, Mapping[str, Any]]) -> str:
    table = io.StringIO()
    names = ["n_values", "n_zeros", "minimum", "maximum", "mean", "std"]
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["point", "shape", *names, "percentile", "value", "lo", "hi", "factor", "rule"])
    for p in factors.points:
        row = statistics[p.name]
        shape = "x".join(str(n) for n in row["shape"])
        factor = " ".join(repr(f) for f in p.factor) if isinstance(p.factor, tuple) else p.factor
        measured = (p.percentile, p.value, p.lo, p.hi)
        writer.writerow(
            [plain_cell(p.name), shape, *(row[name] for name in names), *measured, factor, p.rule]
        )
    return table.getvalue()
