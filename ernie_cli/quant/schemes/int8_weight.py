"""8-bit integers for weights alone, a scale per output channel."""

from ..scheme import Scheme, WeightFormat

SCHEME = Scheme("int8-weight", "int8 weights, activations as they are", WeightFormat("int8"), operators=("MatMul", "Gemm", "Conv"))
