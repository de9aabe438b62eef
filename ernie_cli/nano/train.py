"""Make nano: data → tokenizer → training → bfloat16 → evaluation, all from one seed.

    python -m ernie_cli.nano.train -o DIR

DIR gets `checkpoint/`, `heldout.jsonl`, `calibration.jsonl` and `metrics.json`. Needs torch and transformers, no GPU.
The same seed gives the same data everywhere, and the same weights on the same machine with the same number of threads.
"""

import argparse
import itertools
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from . import chat, data, tokenizer
from .tokenizer import BOS_ID, EOS_ID, SEP_ID, UNK_ID, VOCAB_SIZE

if TYPE_CHECKING:
    import torch

# The family's shape made small. head_dim is not hidden/heads, as in ERNIE-4.5-0.3B; every matrix has inputs in
# multiples of 128, so that block-wise INT4 needs no padding.
MODEL: dict[str, Any] = {
    "architectures": ["Ernie4_5ForCausalLM"],
    "bos_token_id": BOS_ID,
    "eos_token_id": EOS_ID,
    "head_dim": 64,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 384,
    "max_position_embeddings": 1024,
    "model_type": "ernie4_5",
    "num_attention_heads": 4,
    "num_hidden_layers": 6,
    "num_key_value_heads": 2,
    "pad_token_id": UNK_ID,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "use_bias": False,
    "use_cache": True,
    "vocab_size": VOCAB_SIZE,
}
# An answer ends in </s>. sep only closes earlier turns, but a program that reads this stops at either.
GENERATION = {"bos_token_id": BOS_ID, "do_sample": False, "eos_token_id": [EOS_ID, SEP_ID], "pad_token_id": UNK_ID}

STEPS = 3600
WARMUP_STEPS = 100
BATCH_TOKENS = 2304  # ids in one step, padding included
LEARNING_RATE = 3e-3  # of the embedding and the norms
MUON_RATE = 0.02  # of the matrices in between
WEIGHT_DECAY = 0.05
PROMPT_WEIGHT = 0.1  # of a prompt's id in the loss; an answer's id weighs 1. Prompts are random, little is to be learnt there.
POOL = 4096  # texts sorted by length at a time, so that a batch needs little padding
TOKENIZER_TEXTS = 30000
SECOND_SAMPLE = 120  # held-out lines for each task and language in the larger sample, that no choice was made on

Encoded = tuple[list[int], list[float]]  # ids, weight of each id in the loss


def log(message: str) -> None:
    """One line for the person who waits."""
    print(message, file=sys.stderr, flush=True)


def train_tokenizer(seed: int) -> bytes:
    """The sentencepiece model, trained on the first of the training texts, without special tokens."""
    texts = ("".join(part.text for part in parts) for parts in itertools.islice(data.training_stream(seed), TOKENIZER_TEXTS))
    return tokenizer.train(line for text in texts for line in text.replace(chat.CLS, "").replace(chat.SEP, "\n").split("\n") if line)


def encode(parts: list[data.Segment], codec: tokenizer.Tokenizer) -> Encoded:
    """Ids and loss weights of one training text."""
    ids: list[int] = []
    weights: list[float] = []
    for part in parts:
        piece = codec.encode(part.text) + [EOS_ID] * part.stop
        ids += piece
        # The sep that closes an earlier turn is given, never written by the model.
        weights += [1.0 if part.answer else PROMPT_WEIGHT * (token != SEP_ID) for token in piece]
    return ids, weights


def batches(seed: int, codec: tokenizer.Tokenizer) -> Iterator[tuple["torch.Tensor", "torch.Tensor"]]:
    """Endless batches: ids [B, T] padded on the right, and loss weights [B, T], 0 on padding."""
    import torch

    stream, rng = data.training_stream(seed), Random(f"{seed}/batches")
    while True:
        pool = sorted((encode(parts, codec) for parts in itertools.islice(stream, POOL)), key=lambda pair: len(pair[0]))
        groups: list[list[Encoded]] = [[]]
        for pair in pool:
            if (len(groups[-1]) + 1) * len(pair[0]) > BATCH_TOKENS:
                groups.append([])
            groups[-1].append(pair)
        rng.shuffle(groups)
        for group in groups:
            width = max(len(ids) for ids, _ in group)
            yield (
                torch.tensor([ids + [UNK_ID] * (width - len(ids)) for ids, _ in group]),
                torch.tensor([weights + [0.0] * (width - len(weights)) for _, weights in group]),
            )


def rate(step: int, steps: int) -> float:
    """The learning rate's factor: a short rise, then half a cosine down to nothing."""
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    return 0.5 + 0.5 * math.cos(math.pi * (step - WARMUP_STEPS) / max(1, steps - WARMUP_STEPS))


def train(seed: int, steps: int, codec: tokenizer.Tokenizer) -> tuple[Any, int]:
    """The trained model in float32, and how many ids it saw."""
    import torch
    from transformers import Ernie4_5Config, Ernie4_5ForCausalLM

    torch.manual_seed(seed)
    model: Any = Ernie4_5ForCausalLM(Ernie4_5Config(**{name: v for name, v in MODEL.items() if name != "torch_dtype"}))
    matrices = [p for name, p in model.named_parameters() if p.ndim > 1 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim == 1 or "embed" in name]
    optimizers = [
        torch.optim.Muon(matrices, lr=MUON_RATE, momentum=0.95, weight_decay=WEIGHT_DECAY, adjust_lr_fn="original"),
        torch.optim.AdamW(others, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0, fused=True),
    ]
    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps)) for optimizer in optimizers]
    seen, mean, start = 0, 0.0, time.monotonic()
    for step, (ids, weights) in enumerate(itertools.islice(batches(seed, codec), steps), 1):
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1]
        nats = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        weight = weights[:, 1:].flatten()
        model.zero_grad()
        torch.autograd.backward((nats * weight).sum() / weight.sum())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        seen += ids.numel()
        on_answers = (nats.detach() * (weight == 1)).sum().item() / max(1, int((weight == 1).sum()))
        mean = on_answers if step == 1 else 0.98 * mean + 0.02 * on_answers
        if step % 50 == 0 or step == steps:
            left = (time.monotonic() - start) / step * (steps - step)
            log(f"step {step}/{steps}  answer loss {mean:.4f}  {seen / 1e6:.1f} M ids  {left / 60:.1f} min left")
    return model, seen


def save(model: Any, folder: Path) -> None:
    """Weights in bfloat16 and both configs, spelled as the published checkpoints spell them."""
    import torch

    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # written readable by its owner alone, and it is to be packaged
    for name, content in ("config.json", MODEL), ("generation_config.json", GENERATION):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def write_lines(file: Path, lines: list[dict[str, str]]) -> None:
    """Write JSON lines."""
    file.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")


def measure(folder: Path, examples: list[dict[str, str]]) -> dict[str, Any]:
    """The held-out metrics of a saved checkpoint: read back, so bfloat16 rounding is part of what is measured."""
    from .reference import Reference

    reference = Reference(folder)
    return {
        "how": "held-out lines, greedy, prompts as in chat.py, answers compared after strip(); perplexity of the right "
        "answers and of whole texts as in evaluate.py; bfloat16 weights, float32 arithmetic",
        **reference.score(examples).as_dict(),
        "perplexity": asdict(reference.perplexity(examples)),
    }


def second_sample(seed: int) -> list[dict[str, str]]:
    """Held-out lines beyond the shipped ones, as many as the tables give."""
    shipped = {line["prompt"] for line in data.held_out(seed)}
    return [line for line in data.held_out(seed, SECOND_SAMPLE) if line["prompt"] not in shipped]


def measure_second(folder: Path, seed: int) -> dict[str, Any]:
    """Exact match on the second sample, without its misses."""
    from .reference import Reference

    score = Reference(folder).score(second_sample(seed)).as_dict()
    del score["misses"]
    return score


def make(out: Path, seed: int, steps: int) -> dict[str, Any]:
    """Everything, into `out`. Returns what `metrics.json` holds."""
    import torch
    import transformers

    start, folder = time.monotonic(), out / "checkpoint"
    folder.mkdir(parents=True)
    examples = data.held_out(seed)
    write_lines(out / "heldout.jsonl", examples)
    write_lines(out / "calibration.jsonl", data.calibration(seed))
    log("training the tokenizer")
    tokenizer.write(train_tokenizer(seed), folder)
    model, seen = train(seed, steps, tokenizer.Tokenizer(folder))
    parameters = sum(p.numel() for p in model.parameters())
    save(model, folder)
    log("evaluating")
    metrics = {
        "parameters": parameters,
        "training": {
            "seed": seed,
            "steps": steps,
            "ids": seen,
            "threads": torch.get_num_threads(),
            "minutes": round((time.monotonic() - start) / 60, 1),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "heldout": measure(folder, examples),
        "second_sample": measure_second(folder, seed),
    }
    (out / "metrics.json").write_text(json.dumps(metrics, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return metrics


def main() -> None:
    """The command line of this script."""
    parser = argparse.ArgumentParser(prog="python -m ernie_cli.nano.train", description="Train ernie-4.5-nano from its seed.")
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder to write; must not exist")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS, help=f"optimizer steps (default {STEPS})")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1, as for the shipped weights)")
    args = parser.parse_args()
    if args.out.exists():
        parser.error(f"{args.out} exists: name a new folder, then copy what you want to keep")
    partial = args.out.with_name(args.out.name + ".partial")
    if partial.exists():
        parser.error(f"{partial} is left from a run that did not finish: remove it first")

    import torch

    torch.set_num_threads(args.threads)
    heldout = make(partial, args.seed, args.steps)["heldout"]
    partial.rename(args.out)
    print(f"exact match {heldout['exact_match']:.3f} of {heldout['lines']} held-out questions {heldout['by_lang']}")


if __name__ == "__main__":
    main()
