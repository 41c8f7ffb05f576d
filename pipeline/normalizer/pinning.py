"""The layers and operations of Keras around which the scale is 1, each with the reason.

A table and no rule: a scale cannot pass them, whatever their settings.
"""

from __future__ import annotations

from typing import Final

from ..graph.kinds import ATTENTION_LAYERS, RECURRENT_LAYERS

__all__ = ["PINNED"]

_CURVED_OPS = [
    *["Clip", "Conv", "Cos", "Dot", "Einsum", "Erf", "Exp", "Expm1", "Log", "Log1p", "Logsumexp", "Matmul"],
    *["Norm", "Normalize", "Power", "Prod", "Reciprocal", "Rsqrt", "Sin", "Sqrt", "Square", "Std"],
    *["Tensordot", "Var", "Where"],
]
_COMPARISONS = [
    *["All", "Any", "Equal", "Greater", "GreaterEqual", "Isfinite", "Isinf", "Isnan", "Less", "LessEqual"],
    *["LogicalAnd", "LogicalNot", "LogicalOr", "LogicalXor", "NotEqual", "Argmax", "Argmin", "Sign"],
]
_TELLING_APART = [
    *["IntegerLookup", "StringLookup", "Hashing", "HashedCrossing", "Discretization", "CategoryEncoding"],
    "TextVectorization",
]

_NORMALISES = "normalises by its own statistics"
_RECURRENT = "recurrent, with bounded functions inside"
_ATTENDS = "attention is not positively homogeneous"
PINNED: Final[dict[str, str]] = {
    **dict.fromkeys(
        ["LayerNormalization", "GroupNormalization", "UnitNormalization", "RMSNormalization"], _NORMALISES
    ),
    "SpectralNormalization": "holds a layer whose weights it normalises",
    "Normalization": "subtracts a mean",
    **dict.fromkeys(RECURRENT_LAYERS, _RECURRENT),
    **dict.fromkeys(ATTENTION_LAYERS, _ATTENDS),
    **dict.fromkeys(_TELLING_APART, "makes whole numbers or codes of its input"),
    "ReversibleEmbedding": "goes both ways with one table",
    "EinsumDense": "its equation is not analysed",
    "Dot": "a product of two values",
    "Masking": "compares with a value",
    **dict.fromkeys([f"ops.{name}" for name in _CURVED_OPS], "not positively homogeneous"),
    # They also make the masks of Embedding and Masking.
    **dict.fromkeys([f"ops.{name}" for name in _COMPARISONS], "compares with a value"),
}
