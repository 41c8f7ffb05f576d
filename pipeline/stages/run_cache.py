"""From the settings of a run to its cache."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...storage import Cache, is_url
from ...storage.errors import InputError, NotFoundError
from ...storage.options import StorageOptions, is_in_environment, variables_of
from ..folder.folder import RunFolder
from ..settings.job_settings import JobSettings

__all__ = ["cache_url", "existing_cache", "open_cache"]


def cache_url(settings: JobSettings, folder: RunFolder) -> str:
    """Return where the cache of a job is."""
    return settings.cache.url or str(folder.cache_path)


def open_cache(settings: JobSettings, folder: RunFolder) -> Cache:
    """Return the cache of a job, open for reading.

    Raises
    ------
    NotFoundError
        If there is none.
    InputError
        If the URL is wrong, or a secret that it was made with is not given.
    """
    url, options = cache_url(settings, folder), settings.cache.storage_options
    if is_url(url):
        _check_secrets(folder, url, options)
    return Cache.open(url, storage_options=options)


def _check_secrets(folder: RunFolder, url: str, options: Mapping[str, Any]) -> None:
    """Refuse to ask a store without the secrets it was written with: its answer would not say what is missing."""
    given = StorageOptions(options).secrets()
    missing = [
        n for n in folder.manifest().get("withheld", []) if n not in given and not is_in_environment(n, url)
    ]
    if not missing:
        return
    variables = [names[0] for name in missing if (names := variables_of(name, url))]
    environment = f"set {' and '.join(variables)} in the environment, or " if variables else ""
    raise InputError(
        f"cache.storage_options.{missing[0]} is missing: the run was made with {', '.join(map(repr, missing))}, and "
        f"its folder keeps no secrets: {environment}give them again with the job (`actisketch run JOB`), or in "
        "Python with open_run(..., storage_options={...})",
        missing=tuple(missing),
    )


def existing_cache(settings: JobSettings, folder: RunFolder) -> Cache | None:
    """Return the cache of a job if there is one, open for reading."""
    try:
        return open_cache(settings, folder)
    except NotFoundError:
        return None
