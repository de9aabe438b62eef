"""8-bit integers for the keys and values of earlier tokens; weights stay as they are."""

from ..scheme import Scheme

SCHEME = Scheme("int8-kv", "int8 keys and values of earlier tokens, scales from data", None, cache="int8", operators=())
