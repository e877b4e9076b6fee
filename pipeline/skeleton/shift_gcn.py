"""Shift-GCN: graph convolution by shifting channels between joints and frames.

Written from the paper: Cheng, Zhang, He, Chen, Cheng, Lu, "Skeleton-Based Action Recognition with Shift Graph
Convolutional Network", CVPR 2020. The paper states the non-local spatial shift, its mask tanh(M) + 1, the adaptive
temporal shift by linear interpolation, shift-conv-shift, and the layout (an input block and nine residual blocks of
64, 128, 256 channels). Reconstruction where the paper is silent: the second spatial shift undoes the first; the shift
that strides is the first temporal one; temporal shifts start uniform in (-1, 1). Any joint graph works, since the
non-local shift lets every joint see every other: only the number of joints matters.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.skeleton.persons import mean_over_persons, places

OUT_CHANNELS = 256


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
    """Every channel moves in time by its own learned real number of frames.

    Linear interpolation between frames: gradients reach the shift itself. Frames from outside the clip are zero.
    """

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.empty(channels).uniform_(-1, 1))
        self.stride = stride

    def hat(self, offsets: Tensor) -> Tensor:
        """What a channel takes of the frames that lie `offsets` after its own: [C, ...], between 0 and 1."""
        return (1 - (self.shift.view(-1, *[1] * offsets.ndim) - offsets).abs()).clamp_min(0)

    def forward(self, x: Tensor) -> Tensor:
        """x [P, T, V, C] -> [P, ceil(T / stride), V, C]."""
        return self.by_taps(x) if x.device.type == "cpu" else self.by_matrix(x)

    def by_taps(self, x: Tensor) -> Tensor:
        """As a convolution of each channel with itself, as wide as the longest shift: many times faster on a CPU, but a
        GPU would have to wait until that is known.
        """
        longest = self.shift.detach().abs().max().clamp_max(x.shape[1]).nan_to_num()
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


class Block(nn.Module):
    """One spatial and one temporal shift graph convolution, with a residual path around both."""

    def __init__(self, joints: int, channels_in: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.spread = SpatialShift(joints, channels_in)
        self.mask = nn.Parameter(torch.zeros(joints, channels_in))
        self.spatial = nn.Linear(channels_in, channels, bias=False)
        self.gather = SpatialShift(joints, channels, back=True)
        self.spatial_norm = Norm(channels)
        self.spatial_skip = nn.Identity() if channels_in == channels else Project(channels_in, channels)
        self.shift_in = TemporalShift(channels, stride)
        self.temporal = nn.Linear(channels, channels, bias=False)
        self.shift_out = TemporalShift(channels)
        self.temporal_norm = Norm(channels)
        same = channels_in == channels and stride == 1
        self.skip = nn.Identity() if same else Project(channels_in, channels, stride)

    def forward(self, x: Tensor) -> Tensor:  # [P, T, V, C_in] -> [P, T/stride, V, C]
        y = self.spread(x) * (self.mask.tanh() + 1)
        y = self.spatial_norm(self.gather(self.spatial(y)))
        y = (y + self.spatial_skip(x)).relu_()
        y = self.shift_out(self.temporal(self.shift_in(y)))
        return (self.temporal_norm(y) + self.skip(x)).relu_()


class Norm(nn.BatchNorm1d):
    """Batch norm over the last axis."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(-1, x.shape[-1])).view_as(x)


class Project(nn.Module):
    """A residual path that changes width or stride."""

    def __init__(self, channels_in: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.linear, self.norm, self.stride = nn.Linear(channels_in, channels, bias=False), Norm(channels), stride

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.linear(x[:, :: self.stride]))


class ShiftGCN(nn.Module):
    """The skeleton encoder. `width` is the first channel count (64 in the paper), `blocks` those per stage (4, 3, 3
    there), `inputs` the channels of a joint (C + 1).

    The map always has 256 channels, so that what follows does not depend on `width`.
    """

    def __init__(
        self, joints: int, classes: int, width: int = 64, blocks: tuple[int, ...] = (4, 3, 3), dropout: float = 0.0,
        inputs: int = 3,
    ) -> None:  # fmt: skip
        super().__init__()
        plan = [(width << stage, 2 if stage and not i else 1) for stage, n in enumerate(blocks) for i in range(n)]
        self.input_norm = Norm(joints * inputs)
        layers: list[nn.Module] = []
        channels_in = inputs
        for channels, stride in plan:
            layers.append(Block(joints, channels_in, channels, stride))
            channels_in = channels
        if channels_in != OUT_CHANNELS:  # a narrow network: widen once, at the cheap end
            layers.append(nn.Sequential(Project(channels_in, OUT_CHANNELS), nn.ReLU()))
        self.blocks = nn.Sequential(*layers)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(OUT_CHANNELS, classes)

    def feature_map(self, x: Tensor, person: Tensor) -> Tensor:
        """Normalised skeletons [B, M, T, V, C + 1] and who is there, person [B, M] bool, to the map [B, 256, T/4, V].

        The mean over persons; a clip without any person gives zeros, never NaN. Who is not there is not computed, and
        in training the batch norms see only those who are. `person` may stay on the CPU, as `places` prefers.
        """
        return self._map(x, person).permute(0, 3, 1, 2)

    def _map(self, x: Tensor, person: Tensor) -> Tensor:
        """The same as it is made, [B, T/4, V, 256]."""
        place = places(person)
        y = x.flatten(0, 1).index_select(0, place.to(x.device, non_blocking=True))  # [P, T, V, C + 1]
        y = self.blocks(self.input_norm(y.flatten(2)).view_as(y))  # [P, T/4, V, 256]
        return mean_over_persons(y, place, person)

    def forward(self, x: Tensor, person: Tensor) -> Tensor:
        """Class scores [B, C] from the pooled map [B, 256]; only the training of the encoder uses them."""
        return self.classifier(self.dropout(self._map(x, person).mean(dim=(1, 2))))
