"""SkeletonContext's key-part branch: joints are weighed, and the weights are drawn to the parts that a class is about.

Source: Wang et al., "SkeletonContext", CVPR 2026 (arXiv 2603.29692); behaviour of its released model files as
described, written anew. Its lists of parts are not public: ours are the slot `key_parts` of texts.csv, and the table
below says which joints a part has, by their names, in every layout.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import PosebridgeError
from pipeline.skeleton.graph import Graph

CHANNELS = 256

JOINTS = {  # parts overlap; a hand is the wrist where a layout ends there
    "head": ("nose", "eye", "ear", "head", "neck"),
    "hands": ("wrist", "hand", "hand_tip", "thumb"),
    "arms": ("shoulder", "elbow", "wrist"),
    "torso": ("shoulder", "shoulder_centre", "spine", "spine_base", "spine_middle", "spine_shoulder", "hip"),
    "legs": ("hip", "knee", "ankle"),
    "hips": ("hip", "hip_centre", "spine_base"),
    "feet": ("ankle", "foot"),
}


class KeyPartBranch(nn.Module):
    """w = softmax over the joints of MLP(F) in every frame; the feature is ReLU(W of the mean of w F)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(nn.Linear(CHANNELS, CHANNELS), nn.ReLU(), nn.Linear(CHANNELS, 1))
        self.enter = nn.Linear(CHANNELS, width)

    def forward(self, skeleton: Tensor) -> tuple[Tensor, Tensor]:
        """The map [B, 256, T', V] to the feature [B, width] and the weights [B, T', V], whose rows sum to 1."""
        batch, _, frames, joints = skeleton.shape
        x = skeleton.flatten(2).transpose(1, 2).contiguous()  # [B, T' * V, 256]
        weights = self.weigh(x).view(batch, frames, joints).softmax(-1)
        pooled = (weights.flatten(1)[:, None] @ x)[:, 0] / (frames * joints)
        return torch.relu(self.enter(pooled)), weights


def calibration(weights: Tensor, priors: Tensor) -> Tensor:
    """Mean squared error of weights [B, T', V] to the priors [B, V] of each clip's own class."""
    return F.mse_loss(weights, priors[:, None].expand_as(weights))


def joint_priors(key_parts: Sequence[str], graph: Graph) -> Tensor:
    """K / sum K: the joints of a class's parts (`head;hands`) have equal shares, the others none. [C, V] float32.

    Raises PosebridgeError for a part that is not in the table.
    """
    names = [joint.removeprefix("left_").removeprefix("right_") for joint in graph.joints]
    rows = []
    for parts in key_parts:
        wanted = {part.strip() for part in parts.split(";")}
        if unknown := sorted(wanted - set(JOINTS)):
            raise PosebridgeError(f"The key part {unknown[0]!r} in texts.csv is unknown; use {', '.join(JOINTS)}.")
        rows.append([any(name in JOINTS[part] for part in wanted) for name in names])
    inside = torch.tensor(rows, dtype=torch.float32)
    return inside / inside.sum(1, keepdim=True)
