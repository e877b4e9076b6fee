"""Body-aware pooling: responses are aggregated around the predicted body.

Reconstruction; PoseBridge (arXiv 2605.11497) states that pooling is aware of the body and anchored at the pose. Masks
and anchors below are ours: an anchor is a set of points, each a linear combination of COCO-17 joints.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from pipeline.recipe import BACKGROUND

BONES = (
    (5, 7), (7, 9), (6, 8), (8, 10), (11, 13), (13, 15), (12, 14), (14, 16),
    (5, 6), (11, 12), (5, 11), (6, 12), (0, 5), (0, 6),
)  # fmt: skip
BEYOND_WRIST = 0.35  # COCO-17 ends at the wrist; a held object is beyond it
AWAY = 0.011  # of a mask's peak: three sigma, a quarter of a person's size, from every point of body and hands


@cache
def anchor_points(anchor: str) -> Tensor:
    """The points of an anchor as weights over joints, [P, 17] float32. Raises KeyError for an unknown anchor."""
    joint = torch.eye(17)

    def between(pairs: tuple[tuple[int, int], ...], shares: tuple[float, ...]) -> list[Tensor]:
        return [joint[a] * (1 - u) + joint[b] * u for a, b in pairs for u in shares]

    def hand(elbow: int, wrist: int) -> list[Tensor]:
        return [joint[wrist] + BEYOND_WRIST * (joint[wrist] - joint[elbow])]

    points = {
        "body": list(joint) + between(BONES, (0.33, 0.67)),
        "head": list(joint[:5]),
        "left_hand": hand(7, 9),
        "right_hand": hand(8, 10),
        "torso": [joint[i] for i in (5, 6, 11, 12)] + between(((5, 11), (6, 12), (5, 12), (6, 11)), (0.5,)),
        "legs": [joint[i] for i in (11, 12, 13, 14, 15, 16)]
        + between(((11, 13), (13, 15), (12, 14), (14, 16)), (0.5,)),
    }
    points[BACKGROUND] = points["body"] + points["left_hand"] + points["right_hand"]
    return torch.stack(points[anchor])


def pooling_weights(
    keypoints: Tensor, scores: Tensor, anchors: tuple[str, ...], grid: tuple[int, int], stride: float, sigma: float
) -> tuple[Tensor, Tensor]:
    """Normalised masks [N, A, H, W] that sum to 1, or to 0 where an anchor has vanished; and anchor scores [N, A].

    `keypoints` [N, 17, 2] in crop pixels, `scores` [N, 17] in 0..1, `grid` the (H, W) of the map that is pooled.
    M_a(x) = max over the anchor's points j of s_j exp(-|x - k_j|^2 / (2 (sigma * size)^2)), where size is the larger
    extent of the person's joints; a point counts as seen as its least seen joint. That of the background is 1 where no
    point of body and hands is near, seen or not.
    """
    height, width = grid
    device = keypoints.device
    lost = ~(keypoints.isfinite().all(-1) & scores.isfinite())  # one joint that is no number would spoil all anchors
    keypoints, scores = keypoints.masked_fill(lost[..., None], 0), scores.masked_fill(lost, 0)
    size = _extent(keypoints, scores > 0.05)  # [N]
    y = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) * stride - 0.5
    x = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) * stride - 0.5
    # The points of all anchors together, P of them: many small steps take longer than the sums that are in them.
    points = torch.cat([anchor_points(anchor) for anchor in anchors]).to(device)
    counts = [len(anchor_points(anchor)) for anchor in anchors]
    places = torch.einsum("pv,nvc->npc", points, keypoints)  # [N, P, 2]
    strength = scores[:, None].masked_fill(points.eq(0), torch.inf).amin(-1).clamp(0, 1)  # [N, P]
    spread = 2 * (sigma * size)[:, None, None] ** 2
    along_x = torch.exp(-((x - places[..., :1]) ** 2) / spread)  # [N, P, W]
    along_y = torch.exp(-((y - places[..., 1:]) ** 2) / spread)  # [N, P, H]
    seen, besides, aboves = (values.split(counts, 1) for values in (strength, along_x, along_y))
    masks = []
    for anchor, sure, beside, above in zip(anchors, seen, besides, aboves, strict=True):
        if anchor == BACKGROUND:
            away = (above[..., :, None] * beside[..., None, :]).amax(1) < AWAY
            masks.append((away & (sure > 0).any(1)[:, None, None]).float())
        else:
            masks.append((sure[..., None, None] * above[..., :, None] * beside[..., None, :]).amax(1))  # [N, H, W]
    mask = torch.stack(masks, 1)  # [N, A, H, W]
    total = mask.sum((2, 3), keepdim=True)
    mask = torch.where(total > 1e-4, mask / total.clamp_min(1e-4), torch.zeros_like(mask))
    return mask, torch.stack([sure.mean(-1) for sure in seen], 1) * (total[..., 0, 0] > 1e-4)


def pool_levels(
    maps: Sequence[Tensor], strides: Sequence[float], keypoints: Tensor, scores: Tensor, anchors: tuple[str, ...],
    sigma: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Cues [N, A, D], pooled of every map [N, C, H, W] and side by side, and their scores [N, A].

    The scores are those of the last map; without any they are 0, and D is.
    """
    pooled = [keypoints.new_zeros(len(keypoints), len(anchors), 0)]
    visible = keypoints.new_zeros(len(keypoints), len(anchors))
    found: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}  # by the size of the map: many may share one
    for feature, stride in zip(maps, strides, strict=True):
        grid = (feature.shape[2], feature.shape[3])
        if grid not in found:
            found[grid] = pooling_weights(keypoints, scores, anchors, grid, stride, sigma)
        weights, visible = found[grid]
        pooled.append(torch.einsum("nahw,nchw->nac", weights, feature))
    return torch.cat(pooled, -1), visible


def _extent(keypoints: Tensor, seen: Tensor) -> Tensor:
    """The larger side of the box of the seen joints [N], in crop pixels; of all joints where none is seen."""
    seen = (seen | ~seen.any(1, keepdim=True))[..., None]
    low = keypoints.masked_fill(~seen, torch.inf).amin(1)
    high = keypoints.masked_fill(~seen, -torch.inf).amax(1)
    return (high - low).amax(-1).clamp_min(16.0)
