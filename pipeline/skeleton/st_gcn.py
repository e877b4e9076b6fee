"""ST-GCN: convolution over the joints of a graph, then over time, with residual paths.

Written from the paper: Yan, Xiong, Lin, "Spatial Temporal Graph Convolutional Networks for Skeleton-Based Action
Recognition", AAAI 2018: neighbours in three subsets (the joint itself and those as far from the centre of gravity,
those nearer, those farther), the mean of each subset through weights of its own, a learned importance of every edge,
temporal convolutions, ten layers. Ours where a graph has no coordinates: distance from the centre is the mean number of
bones to hips and shoulders. `PUBLISHED_HIDDEN` and 256 are the small setting that PGFA trains end to end.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.skeleton.graph import Graph
from pipeline.skeleton.persons import mean_over_persons, places

PUBLISHED_HIDDEN = (16, 16, 16, 16, 32, 32, 32, 64, 64)


def partition(graph: Graph) -> Tensor:
    """A [3, V, V]: A_k[v, w] is the share of joint w in the mean over the neighbours of v in subset k."""
    joints = len(graph.joints)
    linked = torch.eye(joints, dtype=torch.bool)
    for a, b in graph.bones:
        linked[a, b] = linked[b, a] = True
    hops = torch.full((joints, joints), joints)
    for distance in range(joints, 0, -1):  # whoever is reached in fewer bones is reached in more as well
        hops[torch.linalg.matrix_power(linked.double(), distance) > 0] = distance
    hops.fill_diagonal_(0)
    far = hops[:, [*graph.hips, *graph.shoulders]].sum(1)  # [V]
    inward = far[None, :] < far[:, None]  # w is nearer than v
    outward = far[None, :] > far[:, None]
    subsets = torch.stack([linked & ~inward & ~outward, linked & inward, linked & outward]).float()
    return subsets / subsets.sum(-1, keepdim=True).clamp_min(1)


class SpatialGraphConv(nn.Module):
    """y_v = sum_k sum_w A_k[v, w] M_k[v, w] W_k x_w, with learned M and W. x [B, C_in, T, V] -> [B, C, T, V]."""

    shares: Tensor  # [K, V, V]

    def __init__(self, shares: Tensor, channels_in: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("shares", shares, persistent=False)
        self.importance = nn.Parameter(torch.ones_like(shares))
        self.weights = nn.Conv2d(channels_in, channels * len(shares), 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.weights(x).unflatten(1, (len(self.shares), -1))  # [B, K, C, T, V]
        return torch.einsum("bkctw,kvw->bctv", y, self.shares * self.importance)


class Block(nn.Module):
    """One layer: spatial, then temporal convolution, and a residual path around both."""

    def __init__(
        self, shares: Tensor, channels_in: int, channels: int, stride: int, kernel: int, dropout: float, residual: bool
    ) -> None:
        super().__init__()
        self.spatial = SpatialGraphConv(shares, channels_in, channels)
        self.temporal = nn.Sequential(
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, (kernel, 1), (stride, 1), (kernel // 2, 0)),
            nn.BatchNorm2d(channels),
            nn.Dropout(dropout),
        )
        self.residual, self.skip = residual, nn.Sequential()
        if residual and (channels_in != channels or stride > 1):
            self.skip = nn.Sequential(nn.Conv2d(channels_in, channels, 1, (stride, 1)), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:  # [B, C_in, T, V] -> [B, C, ceil(T / stride), V]
        y = self.temporal(self.spatial(x))
        return torch.relu(y + self.skip(x) if self.residual else y)


class STGCN(nn.Module):
    """The skeleton encoder: a layer for each of `hidden`, one more to `out`. Between the first and the last, a layer
    that widens halves time.
    """

    def __init__(
        self, graph: Graph, hidden: Sequence[int] = PUBLISHED_HIDDEN, out: int = 256, kernel: int = 9,
        dropout: float = 0.0, inputs: int = 3,
    ) -> None:  # fmt: skip
        """`kernel` is the odd number of frames of a temporal convolution, `inputs` the channels of a joint (C + 1)."""
        super().__init__()
        shares = partition(graph)
        self.input_norm = nn.BatchNorm1d(inputs * len(graph.joints))
        widths = (inputs, *hidden, out)
        self.layers = nn.Sequential()
        for i, (channels_in, channels) in enumerate(zip(widths, widths[1:], strict=False)):
            halve = 0 < i < len(hidden) and channels > channels_in
            self.layers.append(Block(shares, channels_in, channels, 1 + halve, kernel, dropout, residual=i > 0))

    def feature_map(self, x: Tensor, person: Tensor) -> Tensor:
        """Normalised skeletons [B, M, T, V, C + 1] and who is there, person [B, M] bool, to the map [B, out, T', V].

        The mean over persons; a clip without any person gives zeros, never NaN. Who is not there is not computed, and
        in training the batch norms see only those who are. `person` may stay on the CPU, as `places` prefers.
        """
        place = places(person)
        y = x.flatten(0, 1).index_select(0, place.to(x.device, non_blocking=True)).permute(0, 2, 3, 1)  # [P, V, C+1, T]
        y = self.input_norm(y.flatten(1, 2)).view_as(y).permute(0, 2, 3, 1)  # [P, C+1, T, V]
        return mean_over_persons(self.layers(y.contiguous()), place, person)
