"""Joints at other moments than those of their frames, by linear interpolation."""

from __future__ import annotations

import torch
from torch import Tensor


def resample(x: Tensor, frames: int) -> Tensor:
    """Joints [N, M, T, V, C] at `frames` moments evenly in time, the first and the last frame as they are."""
    if frames == (had := x.shape[2]):
        return x
    return resample_at(x, torch.linspace(0, had - 1, frames, dtype=x.dtype, device=x.device).expand(len(x), -1))


def resample_at(x: Tensor, place: Tensor) -> Tensor:
    """Joints [B, M, T, V, C] at the fractional frames `place` [B, T'] of each clip.

    Between a frame with a person and one without, all zero, the nearer one: half a person near the origin was never
    there.
    """
    low = place.floor().long().clamp(0, x.shape[2] - 1)
    high = (low + 1).clamp_max(x.shape[2] - 1)
    weight = (place - low)[:, None, :, None, None]
    rows = torch.arange(len(x), device=x.device)[:, None]
    moved = x.transpose(1, 2)  # [B, T, M, V, C]
    before, after = moved[rows, low].transpose(1, 2), moved[rows, high].transpose(1, 2)
    both = before.flatten(3).any(-1) & after.flatten(3).any(-1)  # [B, M, T']
    weight = torch.where(both[..., None, None], weight, weight.round())
    return before + weight * (after - before)
