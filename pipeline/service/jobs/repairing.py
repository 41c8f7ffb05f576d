"""Whether damaged blocks of a run may be computed again from here: its manifest may name any model and data.

Knows runs and settings. Does not know jobs.
"""

from __future__ import annotations

from ....storage.errors import InputError
from ...results.run import open_run
from ..run_root import RunRoot, check_steering, id_of
from .job_places import Permissions, check_places

__all__ = ["check_repair"]


def check_repair(name: str, root: RunRoot, allowed: Permissions) -> list[str]:
    """Return the flags that ``actisketch verify --repair`` needs for a run.

    Raises
    ------
    NotFoundError, FormatError
        If there is no run, or it cannot be read.
    InputError
        If its network, samples or cache lie outside of the root, or it needs code that the operator has not allowed.
    """
    folder = root.folder_of(id_of(name))
    root.check_inside(folder, None)
    run = open_run(folder)
    settings = run.settings.model_copy(update={"output": str(folder)})
    check_places(settings, root, allowed)
    if settings.cache.url is not None:
        check_steering(settings.cache.url, settings.cache.storage_options, allowed.urls, flag="--allow-url")
    asked = run.asked_model
    if not asked.safe_mode or asked.custom_objects is not None:
        if not allowed.code:
            raise InputError(
                "the network of this run needs code of its own, which is refused: the operator can allow it with "
                "--allow-code"
            )
        if asked.custom_objects is not None:
            check_places(settings.model_copy(update={"model": asked}), root, allowed)
    code = [] if asked.custom_objects is None else ["--custom-objects", asked.custom_objects]
    return code + ([] if asked.safe_mode else ["--unsafe-model"])
