"""What the normaliser's tests share."""

from ..normalizer.conftest import certified, peaks, randomize

__all__ = ["certified", "peaks", "randomize"]
