"""One run of llama.cpp through llama-cpp-python: `python decode_llama.py CHECKPOINT Q4_0|Q8_0 PROMPT NEW THREADS` prints JSON tok/s.

Runs in an environment of its own (llama-cpp-python 0.3.36, gguf, numpy). The first run writes CHECKPOINT/<type>.gguf: the same bf16
weights, matrices (the tied head with the embedding, too) in the type, norms in float32, no vocabulary.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np

PREFILLS = 7


def tensors(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(name, float32) of every bf16 tensor of model.safetensors. numpy has no bfloat16: its bits are a float32's upper half."""
    file = folder / "model.safetensors"
    length = int.from_bytes(file.open("rb").read(8), "little")
    header = json.loads(file.open("rb").read(8 + length)[8:])
    data = np.memmap(file, np.uint8, "r", 8 + length)
    for name, facts in header.items():
        if name != "__metadata__":
            begin, end = facts["data_offsets"]
            bits = data[begin:end].view(np.uint16).astype(np.uint32) << 16
            yield name, bits.view(np.float32).reshape(facts["shape"])


def convert(folder: Path, out: Path, kind: gguf.GGMLQuantizationType) -> None:
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(str(out), "ernie4_5")
    layers = config["num_hidden_layers"]
    writer.add_block_count(layers)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"] if "rope_theta" in config else config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.ERNIE4_5, layers)
    for name, tensor in tensors(folder):
        mapped = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if tensor.ndim == 2:
            writer.add_tensor(mapped, gguf.quants.quantize(tensor, kind), raw_dtype=kind)
        else:
            writer.add_tensor(mapped, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main(folder: Path, kind: str, prompt: int, new: int, threads: int) -> None:
    import llama_cpp

    file = folder / f"{kind}.gguf"
    if not file.exists():
        convert(folder, file, gguf.GGMLQuantizationType[kind])
    model = llama_cpp.Llama(str(file), n_ctx=prompt + new + 8, n_threads=threads, n_threads_batch=threads, verbose=False, n_batch=512)
    tokens = [int(token) for token in np.random.default_rng(0).integers(3, 1000, prompt)]
    model.eval(tokens)  # the first run allocates
    prefills = []
    for _ in range(PREFILLS):
        model.reset()
        start = time.perf_counter()
        model.eval(tokens)
        prefills.append(time.perf_counter() - start)
    prefill = statistics.median(prefills)
    vocabulary = model.n_vocab()
    start = time.perf_counter()
    for _ in range(new):
        logits = llama_cpp.llama_get_logits(model.ctx)
        model.eval([int(np.ctypeslib.as_array(logits, (vocabulary,)).argmax())])
    decode = time.perf_counter() - start
    print(json.dumps({"prefill": prompt / prefill, "decode": new / decode}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:6]))
