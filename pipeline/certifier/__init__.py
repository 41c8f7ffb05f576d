"""Prove that a rewritten network computes what the original does: compare both, value by value, and add up."""

from .certificate import Certificate, OutputCertificate, PointCertificate
from .comparison import Examination, examination_nbytes
from .doubts import Doubt, Measured
from .judgement import DEFAULT_TOLERANCE, Examiner, certify, examine_here
from .totals import Findings, add_up

__all__ = [
    "DEFAULT_TOLERANCE",
    "Certificate",
    "Doubt",
    "Examination",
    "Examiner",
    "Findings",
    "Measured",
    "OutputCertificate",
    "PointCertificate",
    "add_up",
    "certify",
    "examination_nbytes",
    "examine_here",
]
