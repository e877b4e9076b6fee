"""Shift-GCN as published: graph convolution by shifting channels between joints and between frames.

Written from the paper: Cheng, Zhang, He, Chen, Cheng, Lu, "Skeleton-Based Action Recognition with Shift Graph
Convolutional Network", CVPR 2020. A block is a spatial convolution (shift, mask tanh(M) + 1, product, shift back, batch
norm per joint and channel, residual path, ReLU) and a temporal one (batch norm, adaptive shift, product, ReLU, adaptive
shift, batch norm), then a residual path around both, which the first block has not, and ReLU. The second temporal shift
strides, its frames in the middle of those that it replaces. Ten blocks of 64, 128, 256 channels; each person of a clip
has a batch norm of the input. For 60 classes, 25 joints, 2 persons of 3 channels it has the published network's 690,291
weights. Its code is under a licence that we do not take: what the paper does not tell is as others describe that code.

Not as published: a person who is not there is not computed and in no mean, where the original takes an empty slot for a
person at the origin; with everybody there, both are the same. Ours where the paper is silent: weights start as PyTorch
has them, temporal shifts uniform in (-1, 1). It is trained as all encoders here (learn/encode.py): AdamW, cosine,
averaged weights, label smoothing (published: SGD with Nesterov momentum, divided by 10 at set epochs). A width other
than 64 is widened to 256 channels at the end. Any joint graph works, since every joint sees every other: only the
number of joints matters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.skeleton.base import Norm, Project, ShiftEncoder, those
from pipeline.skeleton.persons import places
from pipeline.skeleton.shifts import SpatialShift, TemporalShift


class SpatialConvolution(nn.Module):
    """[P, T, V, C_in] -> [P, T, V, C]."""

    def __init__(self, joints: int, channels_in: int, channels: int) -> None:
        super().__init__()
        self.spread = SpatialShift(joints, channels_in)
        self.mask = nn.Parameter(torch.zeros(joints, channels_in))
        self.linear = nn.Linear(channels_in, channels)
        self.gather = SpatialShift(joints, channels, back=True)
        self.norm = Norm(joints * channels)
        self.skip = nn.Identity() if channels_in == channels else Project(channels_in, channels, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.gather(self.linear(self.spread(x) * (self.mask.tanh() + 1)))
        return (self.norm(y.flatten(2)).view_as(y) + self.skip(x)).relu_()


class TemporalConvolution(nn.Module):
    """[P, T, V, C] -> [P, ceil(T / stride), V, C]."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.norm_in = Norm(channels)
        self.shift_in = TemporalShift(channels)
        self.linear = nn.Linear(channels, channels)
        self.shift_out = TemporalShift(channels, stride, offset=(stride - 1) / 2)
        self.norm_out = Norm(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(self.shift_in(self.norm_in(x))).relu_()
        return self.norm_out(self.shift_out(y))


class Block(nn.Module):
    """Both convolutions, and a residual path around them."""

    def __init__(self, joints: int, channels_in: int, channels: int, stride: int = 1, residual: bool = True) -> None:
        super().__init__()
        self.spatial = SpatialConvolution(joints, channels_in, channels)
        self.temporal = TemporalConvolution(channels, stride)
        self.residual = residual
        same = channels_in == channels and stride == 1 or not residual
        self.skip = nn.Identity() if same else Project(channels_in, channels, stride, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.temporal(self.spatial(x))
        return (y + self.skip(x)).relu_() if self.residual else y.relu()


class ShiftGCN(ShiftEncoder):
    """The skeleton encoder `shift_gcn`."""

    input_norm: nn.ModuleList

    def norm_of_input(self, channels: int, persons: int) -> nn.Module:
        return nn.ModuleList(Norm(channels) for _ in range(persons))

    def block(self, joints: int, channels_in: int, channels: int, stride: int, first: bool) -> nn.Module:
        return Block(joints, channels_in, channels, stride, residual=not first)

    def packed(self, x: Tensor, person: Tensor) -> tuple[Tensor, Tensor]:
        persons, normed, place = x.shape[1], [], []
        for m in range(persons):
            clips = places(person[:, m])
            y = those(x[:, m], clips)  # [P_m, T, V, C + 1]
            normed.append(self.input_norm[m](y.flatten(2)).view_as(y))
            place.append(clips * persons + m)
        return torch.cat(normed), torch.cat(place)
