"""One contender of bench_gpu.py in a process of its own: opens a model once, then plays rounds as it is told.

    python gpu_worker.py '{"kind": "onnxruntime", "path": "out/onnx", "device": "cuda", "batch": 32, "prompt": 128, "new": 64}'

Lines of JSON on stdin ({"batch": 8, "new": 64}) are answered by lines on stdout: {"opened": …} once, then {"prefill": seconds,
"decode": seconds, "chosen": ids} each, or {"failed": why}. A prompt of seeded tokens on every row, then more of them one by one; the
likeliest next token is brought to the host each time, as a reply that streams needs it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

Say = Callable[[dict[str, Any]], None]


class Player(Protocol):
    """A decoder with rows. about: device and what else people should know."""

    about: str
    vocabulary: int

    def prompt(self, tokens: np.ndarray) -> np.ndarray:
        """Forget everything, take int64 [batch, S]; the likeliest next tokens [batch]."""
        ...

    def token(self, tokens: np.ndarray) -> np.ndarray:
        """Append int64 [batch]; the likeliest next ones [batch]."""
        ...


class Ours:
    """A Session of `ernie run`: ONNX Runtime or TensorRT."""

    def __init__(self, path: str, device: str, batch: int, context: int, **_: Any) -> None:
        from ernie_cli.model import Model

        model = Model.open(path)
        backend = importlib.import_module(f"ernie_cli.runtime.{'tensorrt' if model.format == 'engine' else 'onnxruntime'}")
        self.session = backend.open(model, device, batch=batch, context=context)
        self.about, self.vocabulary = self.session.info.device, self.session.info.vocab_size
        captures = getattr(getattr(self.session, "_rows", None), "captures", None)
        if captures is not None and self.about.startswith("cuda"):
            self.about += ", CUDA graphs" if captures.on else ", no CUDA graphs"

    def prompt(self, tokens: np.ndarray) -> np.ndarray:
        self.rows = list(range(len(tokens)))
        for row in range(self.session.info.batch):
            self.session.truncate(row, 0)
        return self.session.step(tokens, self.rows).argmax(-1)

    def token(self, tokens: np.ndarray) -> np.ndarray:
        return self.session.step(tokens[:, None], self.rows).argmax(-1)


class Transformers:
    """The model of transformers, eager with its growing cache, or its single-token step compiled over the static one."""

    def __init__(self, path: str, device: str, context: int, dtype: str, compiled: bool, **_: Any) -> None:
        import torch
        import transformers

        if device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError(f"torch {torch.__version__} sees no GPU")
        transformers.logging.set_verbosity_error()
        self.torch, self.device, self.context = torch, device, context
        model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype), attn_implementation="sdpa")
        self.model = model.to(device).eval()
        self.vocabulary = int(model.config.vocab_size)
        name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
        self.about = f"{name}, transformers {transformers.__version__}, torch {torch.__version__}, {dtype}"
        self.compiled = torch.compile(self._step, mode="reduce-overhead", fullgraph=True) if compiled else None
        self.caches: dict[int, Any] = {}

    def _step(self, ids: Any, positions: Any, cache: Any) -> Any:
        """Likeliest next tokens [B] after ids [B, S] at positions [1, S]."""
        out = self.model(input_ids=ids, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1].argmax(-1)

    def _cache(self, batch: int) -> Any:
        from transformers import DynamicCache, StaticCache

        if self.compiled is None:
            return DynamicCache(config=self.model.config)
        if batch not in self.caches:  # kept: CUDA graphs want its addresses
            self.caches[batch] = StaticCache(config=self.model.config, max_cache_len=self.context)
        self.caches[batch].reset()
        return self.caches[batch]

    def _run(self, step: Any, tokens: np.ndarray) -> np.ndarray:
        torch = self.torch
        with torch.inference_mode():
            ids = torch.from_numpy(np.ascontiguousarray(tokens)).to(self.device)
            positions = torch.arange(self.at, self.at + tokens.shape[1], device=self.device)[None]
            if step is not self._step:
                torch.compiler.cudagraph_mark_step_begin()
            found = step(ids, positions, self.cache).cpu().numpy()
        self.at += tokens.shape[1]
        return found

    def prompt(self, tokens: np.ndarray) -> np.ndarray:
        with self.torch.inference_mode():
            self.at, self.cache = 0, self._cache(len(tokens))
        return self._run(self._step, tokens)

    def token(self, tokens: np.ndarray) -> np.ndarray:
        return self._run(self.compiled or self._step, tokens[:, None])


def play(player: Player, batch: int, prompt: int, new: int) -> dict[str, Any]:
    """Seconds from the prompt to the first token on the host, and of `new` more; and what was chosen on the first row.

    The tokens are the same for every contender, whatever it chose: so are the work and, step by step, the choices.
    """
    tokens = np.random.default_rng(0).integers(0, player.vocabulary, (batch, prompt + new))
    start = time.perf_counter()
    chosen = [player.prompt(tokens[:, :prompt])]
    middle = time.perf_counter()
    for at in range(prompt, prompt + new):
        chosen.append(player.token(tokens[:, at]))
    end = time.perf_counter()
    return {"prefill": middle - start, "decode": end - middle, "chosen": [int(each[0]) for each in chosen]}


def copied(device: str, n_bytes: int = 1 << 30, times: int = 20) -> dict[str, float]:
    """Bytes per second that a copy within the device's memory moves: those read and those written."""
    if device == "cpu":
        return _copied_here(n_bytes // 4, 4)
    import torch

    if not torch.cuda.is_available():
        return _copied_by_cuda(n_bytes, times)
    source = torch.empty(n_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    target.copy_(source)
    begin.record()
    for _ in range(times):
        target.copy_(source)
    end.record()
    torch.cuda.synchronize()
    return {"bandwidth": 2 * n_bytes * times / (begin.elapsed_time(end) / 1e3)}


def _copied_by_cuda(n_bytes: int, times: int) -> dict[str, float]:
    from cuda.bindings import runtime as cuda

    def call(function: Any, *args: Any) -> Any:
        code, *rest = function(*args)
        if code != cuda.cudaError_t.cudaSuccess:
            raise RuntimeError(f"{function.__name__}: {code.name}")
        return rest[0] if rest else None

    source, target = (call(cuda.cudaMalloc, n_bytes) for _ in range(2))
    kind = cuda.cudaMemcpyKind.cudaMemcpyDeviceToDevice
    call(cuda.cudaMemcpy, target, source, n_bytes, kind)
    call(cuda.cudaDeviceSynchronize)
    start = time.perf_counter()
    for _ in range(times):
        call(cuda.cudaMemcpyAsync, target, source, n_bytes, kind, 0)
    call(cuda.cudaDeviceSynchronize)
    return {"bandwidth": 2 * n_bytes * times / (time.perf_counter() - start)}


def _copied_here(n_bytes: int, times: int) -> dict[str, float]:
    """The same of main memory, on all cores."""
    from concurrent.futures import ThreadPoolExecutor

    from ernie_cli import host

    pairs = [(np.ones(n_bytes // host.cores(), np.uint8), np.ones(n_bytes // host.cores(), np.uint8)) for _ in range(host.cores())]
    with ThreadPoolExecutor(len(pairs)) as pool:
        start = time.perf_counter()
        for _ in range(times):
            list(pool.map(lambda pair: np.copyto(*pair), pairs))
        return {"bandwidth": 2 * sum(pair[0].nbytes for pair in pairs) * times / (time.perf_counter() - start)}


def main() -> None:
    private = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not be taken for answers

    def say(words: dict[str, Any]) -> None:
        private.write(json.dumps(words) + "\n")
        private.flush()

    wanted = json.loads(sys.argv[1])
    if wanted["kind"] == "bandwidth":
        return say(guarded(lambda: copied(wanted["device"])))
    kinds: dict[str, Callable[..., Player]] = {"ours": Ours, "transformers": Transformers}
    opened = guarded(lambda: {"player": kinds[wanted["kind"]](**wanted)})
    player = opened.pop("player", None)
    say(opened if player is None else {"opened": player.about})
    for line in sys.stdin if player is not None else ():
        order = json.loads(line)
        say(guarded(lambda order=order: play(player, order["batch"], order["prompt"], order["new"])))
    return None


def guarded(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What `work` gives, or why it gives nothing: a contender that cannot is a finding, not the end of the measurement."""
    try:
        return work()
    except Exception as err:  # noqa: BLE001 - whatever a library raises
        words = [getattr(err, "message", "") or str(err).strip() or type(err).__name__]
        return {"failed": f"{type(err).__name__}: {words[0].splitlines()[0][:300]}"}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    main()
