"""Hierarchical refinement: shallow visual evidence is carried into deeper, pose-structured features.

Reconstruction; PoseBridge (arXiv 2605.11497) states that multi-level features are fused recursively inside the pose
estimator and that body-aware pooling follows. The equations below are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import PosebridgeError
from pipeline.hpe.pooling import pooling_weights


def _conv(inputs: int, outputs: int, size: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.SiLU(inplace=True),
    )


class HierarchicalRefinement(nn.Module):
    """G_1 = F_1 and G_l = F_l + Down(G_(l-1)) above the pooled stride, in each level's own channels; there
    G_p = P_p(F_p) + Down(G_(p-1)), `width` wide, and deeper levels are interpolated up to it: + Up(P_l(F_l)).

    Down is a depthwise-separable 3x3 convolution whose stride is that between the two levels and whose channels are
    those of the deeper one, P a 1x1 convolution; each with norm and SiLU. Most of the work of a P would be on the
    shallow maps, which have the most pixels: they have none, and it all costs a few percent of the pose model.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], pooled_stride: int, width: int) -> None:
        super().__init__()
        if pooled_stride not in strides:
            raise PosebridgeError(
                f"The recipe's pooled_stride {pooled_stride} is none of the strides of its taps, "
                f"{', '.join(map(str, strides))}; take one of these."
            )
        self.pooled_level = list(strides).index(pooled_stride)
        above = strides[: self.pooled_level + 1]
        if any(deep % shallow for shallow, deep in pairwise(above)):
            raise PosebridgeError(
                f"The strides of the recipe's taps are {', '.join(map(str, strides))}; up to the pooled_stride "
                f"{pooled_stride} each should be a multiple of the one before it: name the taps shallow first."
            )
        widths = [*channels[: self.pooled_level], width]
        self.down = nn.ModuleList(
            nn.Sequential(_conv(wide, wide, 3, deep // shallow, groups=wide), _conv(wide, deeper))
            for (shallow, deep), (wide, deeper) in zip(pairwise(above), pairwise(widths), strict=True)
        )
        self.project = nn.ModuleList(_conv(wide, width) for wide in channels[self.pooled_level :])

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Fuse the tapped maps, shallow first, into one [N, width, H / pooled_stride, W / pooled_stride]."""
        fused = self.project[0](features[self.pooled_level])
        if self.pooled_level:
            carried = features[0]
            for down, feature in zip(self.down, features[1 : self.pooled_level], strict=False):
                carried = feature + down(carried)
            fused = fused + self.down[-1](carried)
        for project, feature in zip(self.project[1:], features[self.pooled_level + 1 :], strict=True):
            fused = fused + F.interpolate(project(feature), size=fused.shape[-2:], mode="bilinear", align_corners=False)
        return fused


class CueHead(nn.Module):
    """Refinement, and the projection of a pooled cue to its stored width (after pooling, where it costs nothing)."""

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], pooled_stride: int, width: int, cue_width: int = 512
    ) -> None:
        super().__init__()
        self.pooled_stride, self.cue_width = pooled_stride, cue_width
        self.refine = HierarchicalRefinement(channels, strides, pooled_stride, width)
        self.project = nn.Linear(width, cue_width)

    def forward(self, features: Sequence[Tensor], weights: Tensor) -> Tensor:
        """Cues [N, A, cue_width] of tapped maps, for weights [N, A, H, W] that sum to 1, or to 0: a zero cue."""
        pooled = torch.einsum("nahw,nchw->nac", weights.to(torch.float32), self.refine(features).to(torch.float32))
        present = (weights.flatten(2).sum(-1, keepdim=True) > 0).to(pooled.dtype)
        return self.project(pooled) * present

    def cues(
        self, features: Sequence[Tensor], keypoints: Tensor, scores: Tensor, anchors: tuple[str, ...], sigma: float
    ) -> tuple[Tensor, Tensor]:
        """Cues [N, A, cue_width] and anchor scores [N, A] of tapped maps; see `pooling_weights`."""
        grid = features[self.refine.pooled_level].shape[-2:]
        weights, visible = pooling_weights(keypoints, scores, anchors, (grid[0], grid[1]), self.pooled_stride, sigma)
        return self(features, weights), visible
