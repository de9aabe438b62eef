"""NonMaxSuppression."""

import torch
from torch import Tensor

from ..node import Node
from . import Rule


def corners(boxes: Tensor, centred: bool) -> Tensor:
    """[N, 4] as smallest and largest coordinates: from two opposite corners in any order, or from the centre and the size."""
    first, second = boxes[:, :2], boxes[:, 2:]
    if centred:
        return torch.cat([first - second / 2, first + second / 2], 1)
    return torch.cat([torch.minimum(first, second), torch.maximum(first, second)], 1)


def overlaps(one: Tensor, other: Tensor, most: float) -> Tensor:
    """[N, M]: whether intersection over union of boxes [N, 4] and [M, 4] is above `most`. 0 / 0 of boxes without area is not."""
    a, b = one.t().unsqueeze(2), other.t().contiguous().unsqueeze(1)
    height = (torch.minimum(a[2], b[2]) - torch.maximum(a[0], b[0])).clamp_min(0)
    width = (torch.minimum(a[3], b[3]) - torch.maximum(a[1], b[1])).clamp_min(0)
    common = height * width
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common
    return common / union > most


def kept_boxes(boxes: Tensor, scores: Tensor, limit: int, overlap: float, least: float | None) -> Tensor:
    """Indices of the boxes [N, 4] (corners) that stand, best first; of equal scores the lower index comes first.

    Block after block of the sorted boxes: what those kept before suppress is out. Within a block a box stands unless a better one
    that stands suppresses it: repeated for all at once until nothing changes, which is so at the latest after as many rounds as
    there are boxes, as the first k are right after k rounds."""
    order = torch.argsort(scores, descending=True, stable=True)
    if least is not None:
        order = order[scores[order] > least]
    kept = order[:0]
    at = 0
    while at < order.size(0) and kept.size(0) < limit:
        block = order[at : at + 256]
        at += 256
        own = boxes[block]
        if kept.size(0) > 0:
            block = block[~overlaps(boxes[kept], own, overlap).any(0)]
            own = boxes[block]
        suppresses = torch.triu(overlaps(own, own, overlap), 1)
        stands = torch.ones([block.size(0)], dtype=torch.bool, device=boxes.device)
        again = block.size(0) > 0
        while again:
            now = ~(suppresses & stands.unsqueeze(1)).any(0)
            again = not torch.equal(now, stands)
            stands = now
        kept = torch.cat([kept, block[stands]])
    return kept[:limit]


def non_max_suppression(
    boxes: Tensor, scores: Tensor, limit: Tensor | None, overlap: Tensor | None, least: Tensor | None, centred: bool
) -> Tensor:
    """boxes [B, N, 4], scores [B, C, N] → [kept, 3] of (batch, class, box), int64. Without a limit nothing is kept: ONNX's default."""
    most = int(limit) if limit is not None and limit.numel() > 0 else 0
    threshold = float(overlap) if overlap is not None and overlap.numel() > 0 else 0.0
    found = [torch.zeros([0, 3], dtype=torch.int64, device=boxes.device)]
    for b in range(boxes.size(0)):
        own = corners(boxes[b], centred)
        for c in range(scores.size(1)):
            smallest: float | None = None
            if least is not None and least.numel() > 0:
                smallest = float(least)
            kept = kept_boxes(own, scores[b, c], most, threshold, smallest)
            found.append(torch.stack([torch.full_like(kept, b), torch.full_like(kept, c), kept], 1))
    return torch.cat(found)


def _rule(node: Node) -> str:
    return node.call(non_max_suppression, *(node.x(i) for i in range(5)), bool(node.attr("center_point_box", 0)))


RULES: dict[str, Rule] = {"NonMaxSuppression": _rule}
