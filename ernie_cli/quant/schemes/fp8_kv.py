"""8-bit floats (E4M3) for the keys and values of earlier tokens; weights stay as they are."""

from ..scheme import Scheme

SCHEME = Scheme("fp8-kv", "E4M3 keys and values of earlier tokens, scales from data", None, cache="fp8", operators=())
