"""Rewrite a network so that its activations are divided by factors, so that it computes the same."""

from .normalizing import NormalizedModel, Rewriting, normalize_in_place, normalize_model
from .propagation import Exceptions, Mode, Pinned, Propagation
from .solving import Factor, Solution, held_scales, propagate, solve, without_factor
from .variables import tied_scales

__all__ = [
    "Exceptions",
    "Factor",
    "Mode",
    "NormalizedModel",
    "Pinned",
    "Propagation",
    "Rewriting",
    "Solution",
    "held_scales",
    "normalize_in_place",
    "normalize_model",
    "propagate",
    "solve",
    "tied_scales",
    "without_factor",
]
