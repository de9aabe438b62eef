"""8-bit floats (E4M3) for weights alone, a scale per output channel."""

from ..scheme import Scheme, WeightFormat

SCHEME = Scheme("fp8-weight", "E4M3 weights, activations as they are", WeightFormat("fp8"))
