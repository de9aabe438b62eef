"""Separate q/k/v and gate/up projections (what ernie writes) against fused ones, fp32 on the CPU: decode and prefill tok/s.

    python tests/bench/bench_fused.py --work DIR [--rounds 5]

The fused decoder lives here only: it was measured, and did not pay.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx_ir as ir
import rounds

from ernie_cli import host
from ernie_cli.checkpoint import Checkpoint
from ernie_cli.graph import export
from ernie_cli.graph.builder import WeightSource
from ernie_cli.graph.dense import DenseDecoder

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Joined:
    """A checkpoint that also reads `a+b`: tensors joined along their outputs."""

    checkpoint: Checkpoint

    def __getattr__(self, name: str) -> Any:
        return getattr(self.checkpoint, name)

    def read(self, name: str) -> np.ndarray:
        parts = [self.checkpoint.read(part) for part in name.split("+")]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]


class FusedDecoder(DenseDecoder):
    """One MatMul for q, k and v, one for gate and up, each followed by a Split."""

    def fused(self, name: str, x: ir.Value, parts: dict[str, int]) -> tuple[ir.Value, ...]:
        """x @ [W_1 | W_2 | …], split again; `parts` maps a projection's name to its width."""
        source = WeightSource("+".join(f"{part}.weight" for part in parts), True)
        weight = self.b.weight(f"{name}.weight", (self.config.hidden_size, sum(parts.values())), source)
        joined = self.b.op("MatMul", x, weight, name=name)
        return self.b.ops("Split", joined, self.b.ints(*parts.values()), name=f"{name}.split", outputs=len(parts), axis=-1)

    def attention(self, layer: int, x: ir.Value, cos: ir.Value, sin: ir.Value) -> ir.Value:
        config, name = self.config, f"model.layers.{layer}.self_attn"
        query_width, key_width = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
        widths = {f"{name}.q_proj": query_width, f"{name}.k_proj": key_width, f"{name}.v_proj": key_width}
        query, key, value = self.fused(f"{name}.qkv_proj", x, widths)
        query = self.rotate(f"{name}.q_rope", query, config.num_heads, cos, sin)
        key = self.rotate(f"{name}.k_rope", key, config.num_kv_heads, cos, sin)
        return self.linear(f"{name}.o_proj", self.cache.attend(self.b, layer, query, key, value), query_width, config.hidden_size)

    def mlp(self, name: str, x: ir.Value) -> ir.Value:
        inner = self.config.intermediate_size
        gate, up = self.fused(f"{name}.gate_up_proj", x, {f"{name}.gate_proj": inner, f"{name}.up_proj": inner})
        silu = self.b.op("Mul", gate, self.b.op("Sigmoid", gate, name=f"{name}.sigmoid"), name=f"{name}.silu")
        return self.linear(f"{name}.down_proj", self.b.op("Mul", silu, up, name=f"{name}.gated"), inner, self.config.hidden_size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    checkpoint: Any = Joined(Checkpoint.open(rounds.checkpoint(args.work)))
    contenders = {}
    for name, decoder in {"separate": DenseDecoder, "fused": FusedDecoder}.items():
        out = args.work / f"onnx-{name}"
        out.mkdir(exist_ok=True)
        with mock.patch.object(export, "DenseDecoder", decoder):
            export.export(checkpoint, out, dtype="fp32", kv_cache="static", all_logits=False)
        (out / "config.json").write_bytes((args.work / "checkpoint" / "config.json").read_bytes())
        command = [sys.executable, str(HERE / "decode_ours.py"), str(out), "128", "64", str(host.cores())]
        contenders[name] = lambda command=command: rounds.printed(command)
    results = rounds.take_turns(contenders, args.rounds)
    print(rounds.table(results))
    for key in ("decode", "prefill"):
        print(f"{key}: fused is {results['fused'][key] / results['separate'][key]:.2f}x the separate one")


if __name__ == "__main__":
    main()
