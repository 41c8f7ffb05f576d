"""Write the JSON documents of a cache: Zarr's own and the description of the cache.

Zarr's documents are made by zarr-python in memory, so that they are what zarr-python writes, and then put
into the store like everything else: whole and synced. zarr is imported here only, and only to create.
"""

from __future__ import annotations

import json
import warnings
from typing import Any

from .codecs import BLOSC_LEVEL, CODECS, crc32c
from .errors import FormatError
from .keys import dimension_names
from .parsing import parse_json
from .spec import ITEM_NBYTES, CacheSpec, PointSpec
from .typed import table

__all__ = [
    "FORMAT_VERSION",
    "describe",
    "is_document_of",
    "parse_description",
    "zarr_documents",
    "zarr_is_current",
]

FORMAT_VERSION = 1
_KIND = "actisketch cache"


def describe(spec: CacheSpec) -> bytes:
    """Return the description of the cache, with a checksum of itself."""
    body = {"kind": _KIND, "format": FORMAT_VERSION, "spec": spec.to_dict(), "keys": spec.keys}
    return json.dumps({**body, "crc32c": crc32c(_canonical(body))}, indent=1).encode()


def parse_description(stored: bytes, place: str) -> CacheSpec:
    """Return the spec that `describe` wrote; FormatError says what is wrong."""
    try:
        document: dict[str, Any] = parse_json(stored)
        kind, version = document.pop("kind"), document.pop("format")
        crc = document.pop("crc32c")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FormatError(
            f"the description of the cache {place!r} is damaged: {error}; restore it or choose another folder"
        ) from error
    if kind != _KIND:
        raise FormatError(f"{place!r} holds a {kind!r:.60}, not an {_KIND!r}: choose another folder")
    if version != FORMAT_VERSION:
        raise FormatError(
            f"the cache {place!r} has format {version!r:.60}, this program reads {FORMAT_VERSION}: "
            "update actisketch"
        )
    if crc != crc32c(_canonical({"kind": kind, "format": version, **document})):
        raise FormatError(
            f"the description of the cache {place!r} is damaged (checksum): restore it or choose another folder"
        )
    spec = CacheSpec.from_dict(table(document.get("spec"), "the description of the cache"))
    if spec.keys != document.get("keys"):
        raise FormatError(
            f"the cache {place!r} names its arrays in another way than this program: update actisketch"
        )
    return spec


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def zarr_documents(spec: CacheSpec) -> dict[str, bytes]:
    """Return every ``zarr.json`` of the cache by key; the root's, which repeats the others, comes last."""
    import zarr
    from zarr.storage import MemoryStore

    documents: dict[str, Any] = {}
    with warnings.catch_warnings():
        # Consolidated metadata: a convention that zarr-python and xarray read but v3 has not adopted.
        warnings.simplefilter("ignore")
        root = zarr.create_group(MemoryStore(documents), zarr_format=3, attributes=_attributes(spec))
        for point in spec.points if spec.keeps_activations else ():
            _create(root, spec, point)
        zarr.consolidate_metadata(root.store, zarr_format=3)
    found = {key: value.to_bytes() for key, value in documents.items()}
    return {key: found[key] for key in sorted(found, key=lambda key: (key == "zarr.json", key))}


def _attributes(spec: CacheSpec) -> dict[str, Any]:
    facts = {
        "format": FORMAT_VERSION,
        "n_samples": spec.n_samples,
        "points": spec.keys,
        "recorded": spec.keeps_activations,
    }
    return {"actisketch": facts}


def zarr_is_current(stored: bytes | None, spec: CacheSpec) -> bool:
    """Whether the root's ``zarr.json``, written last, tells that all documents stand as `spec` wants them."""
    try:
        attributes = parse_json(stored or b"")["attributes"]
    except (ValueError, KeyError, TypeError):
        return False
    return bool(attributes == _attributes(spec))


def is_document_of(stored: bytes, spec: CacheSpec, key: str) -> bool:
    """Whether an array's ``zarr.json`` names the point that has this key, whatever else it says."""
    try:
        return bool(spec.keys.get(parse_json(stored)["attributes"]["point"]) == key)
    except (ValueError, KeyError, TypeError):
        return False


def _create(root: Any, spec: CacheSpec, point: PointSpec) -> None:
    from zarr.codecs import BloscCodec, Crc32cCodec

    key = spec.keys[point.name]
    shape = (spec.n_samples, *point.shape)
    channel = point.channel_axis % len(shape) if point.shape else None
    codecs: list[Any] = [Crc32cCodec()]
    if (name := CODECS[spec.codec]) is not None:
        size = ITEM_NBYTES[spec.dtype]
        codecs.insert(
            0, BloscCodec(typesize=size, cname=name, clevel=BLOSC_LEVEL, shuffle="shuffle", blocksize=0)
        )
    root.create_array(
        key,
        shape=shape,
        chunks=(spec.chunk_samples[point.name], *point.shape),
        dtype=spec.dtype,
        compressors=codecs,
        filters=None,
        # What is missing reads as NaN, never as a plausible zero.
        fill_value=float("nan"),
        # "c.7.0.0.0": no folder per chunk to create and to flush.
        chunk_key_encoding={"name": "default", "separator": "."},
        dimension_names=dimension_names(key, len(shape), channel),
        attributes={**point.meta, "point": point.name, "channel_axis": channel},
    )
