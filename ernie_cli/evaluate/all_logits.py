"""A decoder graph made to give the logits of every token, in memory: then the likelihood of a text is one prefill.

Graphs for generation compute the last token's logits alone: graph/dense.py gathers it at the end, or in the last block. Those
gathers go. The file stays as it is, and so do the weights. What opens and runs the graph is rows.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..need import need

if TYPE_CHECKING:
    import onnx_ir as ir


def give_all(model: ir.Model) -> bool:
    """Change `model` in place so that `logits` has a row for every token. False, and nothing is changed, where it cannot be done.

    Afterwards `logits` is [B·S, V]: rows of a batch one after another. Graphs that give [B, S, V] already stay as they are.
    """
    logits = next((value for value in model.graph.outputs if value.name == "logits"), None)
    if logits is None or logits.shape is None:
        return False
    if len(logits.shape) == 3:
        return True
    found = [node for node in model.graph if _takes_the_last(node)]
    if not found or not _understood(model):
        return False
    ir = need("onnx_ir")
    for node in found:
        all_of_it, last = node.inputs[0], node.outputs[0]
        assert all_of_it is not None
        ir.convenience.replace_all_uses_with(last, all_of_it)
        model.graph.remove(node, safe=True)
    ends = set(model.graph.outputs)
    for node in model.graph:
        _look_back(node)
        for value in node.outputs:
            if value not in ends:  # lengths of 1 are so no longer
                value.shape = None
    logits.shape = ir.Shape([None, logits.shape[-1]])
    return True


def _takes_the_last(node: ir.Node) -> bool:
    """Whether a node is a Gather of index -1, of the last token (axis 1) or its row of the mask (axis 2). Nothing else here is."""
    if node.op_type != "Gather" or node.domain not in ("", "ai.onnx") or node.attributes.get_int("axis", 0) not in (1, 2):
        return False
    index = need("onnx_ir").convenience.get_const_tensor(node.inputs[1])
    return index is not None and tuple(index.shape) == (1,) and int(index.numpy()[0]) == -1


def _understood(model: ir.Model) -> bool:
    """Whether attention is still one operator per layer: rewritten into smaller ones, the causal mask of the last block is gone."""
    return any(node.op_type == "Attention" for node in model.graph)


def _look_back(node: ir.Node) -> None:
    """Without a mask, a token that is not the last must not see those behind it; graph/cache.py leaves that out for the last one."""
    if node.op_type == "Attention" and (len(node.inputs) < 4 or node.inputs[3] is None):
        node.attributes["is_causal"] = need("onnx_ir").AttrInt64("is_causal", 1)
