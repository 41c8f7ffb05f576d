"""The handwritten digits and the small trained network that the demo runs on.

The digits are the 1,797 8x8 images that scikit-learn carries (``sklearn.datasets.load_digits``): the test part of
"Optical Recognition of Handwritten Digits" by E. Alpaydin and C. Kaynak (1998), UCI Machine Learning Repository,
doi:10.24432/C50P49, licensed CC BY 4.0. In the checkout, ``tests/train_digits.py`` makes both files.
"""

from __future__ import annotations

from pathlib import Path

from ..settings.job_settings import JobSettings
from ..settings.loading import validate_job

__all__ = ["GREY_LEVELS", "demo_settings"]

GREY_LEVELS = 16.0
"""Pixel values of the digits run from 0 to 16."""


def demo_settings(output: str | Path) -> JobSettings:
    """Return the job of the demo, with its results in ``output``."""
    folder = Path(__file__).parent
    return validate_job(
        {
            "output": str(Path(output).absolute()),
            "model": {"path": str(folder / "digits.keras")},
            "data": {
                "path": str(folder / "digits.npz"),
                "divide_by": GREY_LEVELS,
                "inputs": "x",
                "labels": "y",
            },
            "record": {"batch_size": 64},
        },
        origin="the demo",
    )
