"""Rewrite a network so that its activations are divided by factors, and prove that it computes the same."""

from .certificate import Certificate, OutputCertificate, PointCertificate
from .certifying import DEFAULT_TOLERANCE, Examiner, certify
from .doubts import Doubt, Measured
from .examination import Examination, examination_nbytes
from .findings import Findings, add_up
from .normalizing import NormalizedModel, Rewriting, normalize_in_place, normalize_model
from .propagation import Exceptions, Mode, Pinned
from .solving import Factor, Solution, propagate, solve, tied_groups

__all__ = [
    "DEFAULT_TOLERANCE",
    "Certificate",
    "Doubt",
    "Examination",
    "Examiner",
    "Exceptions",
    "Factor",
    "Findings",
    "Measured",
    "Mode",
    "NormalizedModel",
    "OutputCertificate",
    "Pinned",
    "PointCertificate",
    "Rewriting",
    "Solution",
    "add_up",
    "certify",
    "examination_nbytes",
    "normalize_in_place",
    "normalize_model",
    "propagate",
    "solve",
    "tied_groups",
]
