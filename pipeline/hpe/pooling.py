"""Body-aware pooling: responses are aggregated around the predicted body.

Reconstruction; PoseBridge (arXiv 2605.11497) states that pooling is aware of the body and anchored at the pose. Masks
and anchors below are ours: an anchor is a set of points, each a linear combination of COCO-17 joints.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, lru_cache

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
@torch.inference_mode(False)  # what is kept may be used by a training, too
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
    lost = ~(keypoints.isfinite().all(-1) & scores.isfinite())  # one joint that is no number would spoil all anchors
    keypoints, scores = keypoints.masked_fill(lost[..., None], 0), scores.masked_fill(lost, 0)
    size = _extent(keypoints, scores > 0.05)  # [N]
    # As few steps as can be, each of all anchors' points together, P of them: many small ones take longer than the sums
    # that are in them.
    points, others, counts = points_of(anchors, keypoints.device)
    places = torch.einsum("pv,nvc->npc", points, keypoints)  # [N, P, 2]
    sure = scores[:, None].masked_fill(others, torch.inf).amin(-1).clamp(0, 1)  # [N, P]
    spread = 2 * (sigma * size)[:, None, None] ** 2
    x, y = _centres(grid, stride, keypoints.device)
    beside = torch.exp(-((x - places[..., :1]) ** 2) / spread)  # [N, P, W]
    above = torch.exp(-((y - places[..., 1:]) ** 2) / spread)  # [N, P, H]
    surely = sure[..., None] * above
    seen = sure.split(counts, 1)
    rows, sure_rows, columns = (values.split(counts, 1) for values in (above, surely, beside))
    masks = []
    for anchor, sight, row, sure_row, column in zip(anchors, seen, rows, sure_rows, columns, strict=True):
        if anchor == BACKGROUND:
            away = (row[..., :, None] * column[..., None, :]).amax(1) < AWAY
            masks.append((away & (sight > 0).any(1)[:, None, None]).float())
        else:
            near = sure_row[..., :, None] * column[..., None, :]
            masks.append(near.amax(1) if near.shape[1] > 1 else near[:, 0])  # [N, H, W]
    mask = torch.stack(masks, 1)  # [N, A, H, W]
    total = mask.sum((2, 3), keepdim=True)
    there = total > 1e-4
    mask = torch.where(there, mask / total.clamp_min(1e-4), 0.0)
    return mask, torch.stack([sight.mean(-1) for sight in seen], 1) * there[..., 0, 0]


@cache
@torch.inference_mode(False)
def points_of(anchors: tuple[str, ...], device: torch.device) -> tuple[Tensor, Tensor, list[int]]:
    """The points of these anchors [P, 17], of which joints each is independent [P, 17], and how many an anchor has."""
    points = torch.cat([anchor_points(anchor) for anchor in anchors]).to(device)
    return points, points.eq(0), [len(anchor_points(anchor)) for anchor in anchors]


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _centres(grid: tuple[int, int], stride: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where the columns [W] and rows [H] of a map are, in crop pixels."""
    y, x = ((torch.arange(cells, device=device, dtype=torch.float32) + 0.5) * stride - 0.5 for cells in grid)
    return x, y


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
