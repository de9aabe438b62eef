"""The scripted decoder called as a C++ program calls it: rows of their own length, chunks, larger caches, forgotten tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ernie_cli.checkpoint import Checkpoint

torch = pytest.importorskip("torch", reason="TorchScript needs torch")


@pytest.fixture
def scripted(checkpoint: Any) -> Any:
    """`scripted(**config)` → (scripted module, transformers model)."""
    from ernie_cli.torchscript.decoder import Decoder
    from ernie_cli.torchscript.decoder_weights import fill

    def make(*, all_logits: bool = False, **changes: Any) -> tuple[Any, Any]:
        folder, model = checkpoint(**changes)
        opened = Checkpoint.open(folder)
        module = Decoder(opened.config, torch.float32, all_logits=all_logits)
        fill(module, opened)
        return torch.jit.script(module.eval()), model

    return make


def wanted(model: Any, ids: list[int]) -> Any:
    """transformers' logits after the last of `ids`."""
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0, -1]


def same(want: Any, got: Any) -> None:
    assert float((want - got).abs().max()) <= 1e-4 * float(want.abs().max())


IDS = [int(token) for token in np.random.default_rng(0).integers(3, 300, 40)]


@pytest.mark.parametrize("cuts", [(40,), (20, 20), (1,) * 40, (7, 1, 30, 2)], ids=str)
def test_chunks(cuts: tuple[int, ...], scripted: Any) -> None:
    module, model = scripted()
    cache, at = module.new_cache(1, 40), 0
    for cut in cuts:
        logits = module(torch.tensor([IDS[at : at + cut]]), torch.tensor([at]), cache)
        at += cut
    assert logits.dtype == torch.float32 and logits.shape == (1, 320)
    same(wanted(model, IDS), logits[0])


@pytest.mark.parametrize("new", [1, 5])
@pytest.mark.parametrize("held", [(0, 9, 20), (4, 4, 4), (0, 0, 0)], ids=str)
def test_rows_of_their_own_length(held: tuple[int, ...], new: int, scripted: Any) -> None:
    module, model = scripted()
    cache = module.new_cache(3, 32)
    for row, length in enumerate(held):
        if length:
            module(torch.tensor([IDS[:length]]), torch.tensor([0]), [tensor[row : row + 1] for tensor in cache])
    following = torch.tensor([IDS[30 + row : 30 + row + new] for row in range(3)])
    logits = module(following, torch.tensor(held), cache)
    for row, length in enumerate(held):
        same(wanted(model, IDS[:length] + following[row].tolist()), logits[row])


def test_forgetting_is_a_smaller_position(scripted: Any) -> None:
    module, model = scripted()
    cache = module.new_cache(1, 32)
    module(torch.tensor([IDS[:20]]), torch.tensor([0]), cache)
    same(wanted(model, [*IDS[:8], 5, 6]), module(torch.tensor([[5, 6]]), torch.tensor([8]), cache)[0])


def test_a_larger_cache_takes_over(scripted: Any) -> None:
    module, model = scripted()
    small, large = module.new_cache(1, 8), module.new_cache(1, 64)
    module(torch.tensor([IDS[:8]]), torch.tensor([0]), small)
    for new, old in zip(large, small, strict=True):
        new[:, :, :8] = old
    same(wanted(model, IDS), module(torch.tensor([IDS[8:]]), torch.tensor([8]), large)[0])


@pytest.mark.parametrize("tied", [True, False])
def test_all_logits_of_a_ragged_batch(tied: bool, scripted: Any) -> None:
    module, model = scripted(all_logits=True, tie_word_embeddings=tied)
    cache = module.new_cache(2, 16)
    module(torch.tensor([IDS[:3]]), torch.tensor([0]), [tensor[:1] for tensor in cache])
    logits = module(torch.tensor([IDS[3:9], IDS[:6]]), torch.tensor([3, 0]), cache)
    with torch.no_grad():
        same(model(torch.tensor([IDS[:9]])).logits[0, 3:], logits[0])
        same(model(torch.tensor([IDS[:6]])).logits[0], logits[1])


def test_parameters_are_named_as_transformers_tensors(scripted: Any) -> None:
    module, model = scripted(use_bias=True, tie_word_embeddings=False)
    ours = {name: weight.shape for name, weight in module.named_parameters()}
    assert ours == {name.removeprefix("model."): weight.shape for name, weight in model.named_parameters()}


def test_another_type_after_the_fact_keeps_rope_exact(scripted: Any) -> None:
    """`model.to(torch.bfloat16)` in somebody's program: far positions still turn by float32 angles."""
    module, model = scripted(max_position_embeddings=131072, num_hidden_layers=1)
    module = module.to(torch.bfloat16)
    far = torch.tensor([100_003])
    turns = module.rope(far.unsqueeze(1))
    assert turns.dtype == torch.complex64
    exact = 100_003 / 500_000 ** (np.arange(0, 32, 2) / 32)
    assert np.abs(turns.numpy().ravel() - np.exp(1j * exact)).max() < 1e-2  # float32 at 1e5 holds angles to 0.008
    cache = module.new_cache(1, 16)
    assert cache[0].dtype == torch.bfloat16
    logits = module(torch.tensor([IDS[:9]]), torch.tensor([0]), cache)
    want = wanted(model, IDS[:9])
    assert float((want - logits[0]).abs().max()) <= 0.15 * float(want.abs().max())
