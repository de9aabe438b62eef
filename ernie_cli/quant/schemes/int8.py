"""8-bit integers for weights (a scale per output channel) and activations (one scale per tensor, from data)."""

from ..scheme import Scheme, WeightFormat

SCHEME = Scheme(
    "int8",
    "int8 weights and activations, scales from data",
    WeightFormat("int8"),
    activation="int8",
    operators=("MatMul", "Gemm", "Conv", "ConvTranspose"),
)
