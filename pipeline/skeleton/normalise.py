"""Skeletons in pixels or metres to network input: centred on the hips and measured in torso lengths.

Place in the frame, camera distance and image size vanish; the way that persons stand to each other, and a person's
walk through the scene, stay. Deterministic. Augmentation, for training only, is in augment.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.skeleton.graph import COCO_17, Graph


def normalise(keypoints: Tensor, scores: Tensor, person_valid: Tensor, graph: Graph = COCO_17) -> Tensor:
    """Input of the skeleton encoder, float32 [B, M, T, V, C + 1]: x (right), y (up), z where C is 3, score; zero where
    nobody was seen.

    keypoints [B, M, T, V, C]: C = 2 in pixels (y down), C = 3 in metres (y up); scores [B, M, T, V] in 0..1,
    person_valid [B, M, T] bool.
    Origin (median hip centre over time) and unit (median torso length) are those of the clip's first valid person.
    """
    batch = keypoints.shape[0]
    xy, dimensions = keypoints.float(), keypoints.shape[-1]
    hips, shoulders = (_between(xy, *pair) for pair in (graph.hips, graph.shoulders))  # [B, M, T, C]
    torso = (shoulders - hips).norm(dim=-1)  # [B, M, T]
    height = xy[..., 1].amax(-1) - xy[..., 1].amin(-1)
    size = torch.maximum(torso, 0.2 * height)  # a torso seen from above, or one that was not found, has no length

    first = person_valid.any(-1).int().argmax(-1)  # [B] the first person with any valid frame
    rows = torch.arange(batch, device=xy.device)
    valid = person_valid[rows, first]  # [B, T]
    origin = _median(hips[rows, first], valid[..., None])  # [B, C]
    unit = _median(size[rows, first], valid).clamp_min(1.0 if dimensions == 2 else 0.01)  # [B]

    x = (xy - origin[:, None, None, None]) / unit[:, None, None, None, None]  # [B, M, T, V, C]
    if dimensions == 2:
        x[..., 1].neg_()  # image rows grow downwards
    x = torch.cat([x, scores.float()[..., None]], dim=-1)  # [B, M, T, V, C + 1]
    return x * person_valid[..., None, None]


def _between(x: Tensor, one: int, other: int) -> Tensor:
    """The middle of two joints of x [..., V, C]."""
    return (x[..., one, :] + x[..., other, :]) / 2


def _median(values: Tensor, valid: Tensor) -> Tensor:
    """Median over time (dim 1) of the valid entries; 0 where there are none."""
    hidden = torch.where(valid.expand_as(values), values, torch.nan)
    return hidden.nanmedian(dim=1).values.nan_to_num(0.0)
