"""Rewrite a network so that its activations are divided by factors, so that it computes the same."""

from .normalizing import NormalizedModel, Rewriting, normalize_in_place, normalize_model
from .propagation import Exceptions, Mode, Pinned
from .solving import Factor, Solution, propagate, solve, tied_groups

__all__ = [
    "Exceptions",
    "Factor",
    "Mode",
    "NormalizedModel",
    "Pinned",
    "Rewriting",
    "Solution",
    "normalize_in_place",
    "normalize_model",
    "propagate",
    "solve",
    "tied_groups",
]
