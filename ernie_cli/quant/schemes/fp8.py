"""8-bit floats (E4M3) for weights (a scale per output channel) and activations (one scale per tensor, from data)."""

from ..scheme import Scheme, WeightFormat

SCHEME = Scheme("fp8", "E4M3 weights and activations, scales from data", WeightFormat("fp8"), activation="fp8")
