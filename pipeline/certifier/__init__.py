"""Prove that a rewritten network computes what the original does: compare both on samples, and judge."""

from .certificate import Certificate, CertificateValues, OutputCertificate, PointCertificate
from .comparison import DEFAULT_TOLERANCE, Comparer, Comparison, ComparisonSettings
from .comparison_memory import comparison_nbytes
from .doubts import Doubt, Measured
from .judgement import certify, judge
from .recorded import reading_nbytes
from .totals import ComparisonTotals

__all__ = [
    "DEFAULT_TOLERANCE",
    "Certificate",
    "CertificateValues",
    "Comparer",
    "Comparison",
    "ComparisonSettings",
    "ComparisonTotals",
    "Doubt",
    "Measured",
    "OutputCertificate",
    "PointCertificate",
    "certify",
    "comparison_nbytes",
    "judge",
    "reading_nbytes",
]
