"""Augmentation of normalised skeletons, in training only; the test path never imports this file's functions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.skeleton.graph import COCO_17, Graph
from pipeline.skeleton.hide import SEEN, Hiding, hide
from pipeline.skeleton.mirror import mirror
from pipeline.skeleton.resample import resample_at


def augment(
    x: Tensor,
    generator: torch.Generator,
    graph: Graph = COCO_17,
    *,
    mirrored: Tensor | None = None,
    strength: float = 1.0,
    hiding: Hiding = SEEN,
) -> Tensor:
    """A random view of normalised skeletons [B, M, T, V, C + 1], clip by clip; `generator` draws on their device.

    Mirror (one half, or the bool [B] of `mirrored`), rotation in the image up to 12 degrees, with three dimensions also
    about the vertical up to 30 degrees, shear and scale of each axis up to 20 %, temporal crop to 75..100 % resampled
    to T, a little noise on every joint; joints and frames hidden as `hiding` says.
    """
    batch, _, frames = x.shape[:3]
    device = x.device
    dimensions = x.shape[-1] - 1  # C

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator, device=device)

    if mirrored is None:
        mirrored = torch.rand(batch, generator=generator, device=device) < 0.5
    x = torch.where(mirrored[:, None, None, None, None], mirror(x, graph), x)

    angle = uniform(-1, 1, batch) * math.radians(12) * strength
    shear = uniform(-0.2, 0.2, batch) * strength
    scale = 1 + uniform(-0.2, 0.2, batch, dimensions) * strength
    cos, sin = angle.cos(), angle.sin()
    turn = torch.stack([torch.stack([cos, -sin + shear], -1), torch.stack([sin, cos], -1)], -2)  # [B, 2, 2]
    if dimensions == 3:
        turn = F.pad(turn, (0, 1, 0, 1))  # [B, 3, 3]
        turn[:, 2, 2] = 1
        turn = turn @ _about_the_vertical(uniform(-1, 1, batch) * math.radians(30) * strength)
    xy = torch.einsum("bij,bmtvj->bmtvi", turn * scale[:, None], x[..., :-1])
    present = (x[..., -1:] > 0).float()
    xy = xy + 0.01 * strength * torch.randn(xy.shape, generator=generator, device=device) * present
    x = torch.cat([xy, x[..., -1:]], dim=-1)

    length = 1 - uniform(0, 0.25, batch) * strength
    start = (1 - length) * torch.rand(batch, generator=generator, device=device)
    moments = torch.linspace(0, 1, frames, device=device)
    place = (start[:, None] + length[:, None] * moments) * (frames - 1)  # [B, T]
    return hide(resample_at(x, place), generator, hiding)


def _about_the_vertical(angle: Tensor) -> Tensor:
    """Rotations [B, 3, 3] about the y axis by angles [B]."""
    zero, cos, sin = torch.zeros_like(angle), angle.cos(), angle.sin()
    rows = ([cos, zero, sin], [zero, zero + 1, zero], [-sin, zero, cos])
    return torch.stack([torch.stack(row, -1) for row in rows], -2)
