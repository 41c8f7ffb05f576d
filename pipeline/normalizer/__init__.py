"""Rewrite a network so that its activations are divided by factors, and prove that it computes the same."""

from .certificate import Certificate, OutputCertificate, PointCertificate
from .certifying import DEFAULT_TOLERANCE, certify
from .normalizing import NormalizedModel, normalize_in_place, normalize_model
from .propagation import Exceptions, Mode, Pinned
from .solving import Factor, Solution, propagate, solve, tied_groups

__all__ = [
    "DEFAULT_TOLERANCE",
    "Certificate",
    "Exceptions",
    "Factor",
    "Mode",
    "NormalizedModel",
    "OutputCertificate",
    "Pinned",
    "PointCertificate",
    "Solution",
    "certify",
    "normalize_in_place",
    "normalize_model",
    "propagate",
    "solve",
    "tied_groups",
]
