"""Calls for a few lines of a notebook: activations as arrays, statistics as a table, without naming a folder."""

from .activation_values import ActivationsByPoint, activations
from .quick_statistics import statistics

__all__ = ["ActivationsByPoint", "activations", "statistics"]
