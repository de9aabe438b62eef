"""4-bit integers for weights alone, a scale per block along the summed axis."""

from ..scheme import Scheme, WeightFormat

SCHEME = Scheme("int4", "int4 weights in blocks, activations as they are", WeightFormat("int4", 32))
