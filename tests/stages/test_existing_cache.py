"""No cache yet, and a place that cannot be one, are told apart."""

from pathlib import Path

import pytest

from actisketch.pipeline.folder.folder import RunFolder
from actisketch.pipeline.settings.loading import validate_job
from actisketch.pipeline.stages.run_cache import existing_cache, open_cache
from actisketch.storage.errors import InputError, NotFoundError


def test_a_run_without_a_cache_has_none(tmp_path: Path) -> None:
    settings, folder = validate_job({"output": str(tmp_path)}), RunFolder(tmp_path)

    assert existing_cache(settings, folder) is None
    with pytest.raises(NotFoundError, match="there is no cache"):
        open_cache(settings, folder)


@pytest.mark.parametrize("url", ["file:///runs/cache?version=2", "file://runs/cache", "file://"])
def test_a_wrong_url_is_an_error_and_not_a_missing_cache(tmp_path: Path, url: str) -> None:
    settings = validate_job({"output": str(tmp_path), "cache": {"url": url}})

    with pytest.raises(InputError, match="give") as caught:
        existing_cache(settings, RunFolder(tmp_path))

    assert not isinstance(caught.value, NotFoundError)
