"""The shipped weights in PyTorch, through transformers: the reference other backends are compared with.

Needs torch and transformers; float32 arithmetic on the bfloat16 weights.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .chat import prompt_text
from .evaluate import MAX_NEW_TOKENS, STOP_IDS, Example, Perplexity, Score, clean, perplexity, score_answers
from .tokenizer import UNK_ID, Tokenizer

if TYPE_CHECKING:
    import numpy as np


class Reference:
    """One checkpoint folder, opened."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import Ernie4_5ForCausalLM

        self.tokenizer = Tokenizer(folder)
        self.model: Any = Ernie4_5ForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self.model.train(False)

    def logits(self, ids: list[int]) -> "np.ndarray[Any, Any]":
        """Logits [T, vocab] of ids [T]."""
        import torch

        with torch.inference_mode():
            array: np.ndarray[Any, Any] = self.model(input_ids=torch.tensor([ids])).logits[0].numpy()
        return array

    def answers(self, examples: Sequence[Example], batch: int = 128) -> list[str]:
        """Greedy answers, many at a time; padding stands on the left and is masked."""
        import torch

        prompts = [self.tokenizer.encode(prompt_text(example)) for example in examples]
        texts = []
        for start in range(0, len(prompts), batch):
            part = prompts[start : start + batch]
            width = max(map(len, part))
            ids = torch.tensor([[UNK_ID] * (width - len(prompt)) + prompt for prompt in part])
            mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in part])
            with torch.inference_mode():
                out = self.model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    max_new_tokens=MAX_NEW_TOKENS,
                    do_sample=False,
                    eos_token_id=list(STOP_IDS),
                    pad_token_id=UNK_ID,
                )
            texts += [clean(row[width:], self.tokenizer) for row in out.tolist()]
        return texts

    def score(self, examples: Sequence[Example]) -> Score:
        """Exact match on some examples."""
        return score_answers(self.answers(examples), examples)

    def perplexity(self, examples: Sequence[Example]) -> Perplexity:
        """Perplexity on some examples."""
        return perplexity(self.logits, self.tokenizer, examples)
