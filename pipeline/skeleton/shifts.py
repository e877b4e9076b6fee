"""Shifts of channels between joints and between frames: what Shift-GCN has in the place of adjacency matrices.

Written from the paper: Cheng, Zhang, He, Chen, Cheng, Lu, "Skeleton-Based Action Recognition with Shift Graph
Convolutional Network", CVPR 2020: the non-local spatial shift, and the adaptive temporal shift by linear interpolation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SpatialShift(nn.Module):
    """Channel i of joint v comes from joint (v + i) mod V; `back` undoes it. x [..., V, C]."""

    def __init__(self, joints: int, channels: int, back: bool = False) -> None:
        super().__init__()
        v, c = torch.meshgrid(torch.arange(joints), torch.arange(channels), indexing="ij")
        source = (v - c if back else v + c) % joints
        goal = (v + c if back else v - c) % joints
        self.register_buffer("source", (source * channels + c).flatten(), persistent=False)  # [V * C]
        self.register_buffer("goal", (goal * channels + c).flatten(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return _Permute.apply(x.flatten(-2).flatten(0, -2), self.source, self.goal).view_as(x)


class _Permute(torch.autograd.Function):
    """Indexing columns by a permutation whose inverse is known, so that backward is indexing too (many times faster
    than scatter). x [N, D]: with more axes, it takes four times as long.
    """

    @staticmethod
    def forward(ctx, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        ctx.save_for_backward(inverse)
        return x.index_select(1, order)

    @staticmethod
    def backward(ctx, grad: Tensor):
        (inverse,) = ctx.saved_tensors
        return grad.index_select(1, inverse), None, None


class TemporalShift(nn.Module):
    """Every channel moves in time by its own learned real number of frames, and by `offset`, the same for all.

    Linear interpolation between frames: gradients reach the shift itself. Frames from outside the clip are zero.
    """

    def __init__(self, channels: int, stride: int = 1, offset: float = 0.0) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.empty(channels).uniform_(-1, 1))
        self.stride, self.offset = stride, offset

    def hat(self, offsets: Tensor) -> Tensor:
        """What a channel takes of the frames that lie `offsets` after its own: [C, ...], between 0 and 1."""
        moved = self.shift + self.offset if self.offset else self.shift
        return (1 - (moved.view(-1, *[1] * offsets.ndim) - offsets).abs()).clamp_min(0)

    def forward(self, x: Tensor) -> Tensor:
        """x [P, T, V, C] -> [P, ceil(T / stride), V, C]."""
        return self.by_taps(x) if x.device.type == "cpu" else self.by_matrix(x)

    def by_taps(self, x: Tensor) -> Tensor:
        """As a convolution of each channel with itself, as wide as the longest shift: many times faster on a CPU, but a
        GPU would have to wait until that is known.
        """
        longest = (self.shift.detach() + self.offset).abs().max().clamp_max(x.shape[1]).nan_to_num()
        reach = int(longest) + 1
        taps = self.hat(torch.arange(-reach, reach + 1, device=x.device, dtype=self.shift.dtype))  # [C, 2 reach + 1]
        y = F.conv2d(
            x.permute(0, 3, 1, 2), taps.to(x.dtype)[:, None, :, None], stride=(self.stride, 1), padding=(reach, 0),
            groups=len(taps),
        )  # fmt: skip
        return y.permute(0, 2, 3, 1)

    def by_matrix(self, x: Tensor) -> Tensor:
        """As a product with a matrix [ceil(T / stride), T] for each channel."""
        now = torch.arange(x.shape[1], device=x.device, dtype=self.shift.dtype)
        hat = self.hat(now - now[:: self.stride, None])
        return torch.einsum("cut,ptvc->puvc", hat.to(x.dtype), x)
