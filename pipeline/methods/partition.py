"""PURLS's partitioning: a skeleton map becomes eight features, one for each description of a class.

Source: Zhu, Ke, Gong, Bailey, "Part-aware Unified Representation of Language and Skeleton for Zero-shot Action
Recognition", CVPR 2024; its released behaviour as described, written anew. The map is averaged to three phases of V
joints; a description asks each of the 3V vectors how well it fits, and their weighted mean is the description's
feature. Ours: the part map of the static variant, by joint names, so that it holds for every layout.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.skeleton.graph import Graph

SLOTS = ("head", "hands", "torso", "legs", "start", "middle", "end", "global")  # in the published order
PHASES = 3  # start, middle, end
CHANNELS = 256

PARTS = {  # every joint of every layout is in one part; `hands` are what moves them too, from the elbow on
    "head": ("nose", "eye", "ear", "head", "neck"),
    "hands": ("elbow", "wrist", "hand", "hand_tip", "thumb"),
    "torso": (
        "shoulder", "hip", "spine", "spine_base", "spine_middle", "spine_shoulder", "hip_centre", "shoulder_centre",
    ),
    "legs": ("knee", "ankle", "foot"),
}  # fmt: skip


def phase_vectors(skeleton: Tensor) -> Tensor:
    """The map [B, 256, T', V] as unit vectors [B, 3V, 256], phase by phase; a zero vector stays zero.

    Phases are those of adaptive average pooling: of T' frames, each takes the ones that any of its third falls into.
    """
    frames = skeleton.shape[2]
    ends = [(i * frames // PHASES, -(-(i + 1) * frames // PHASES)) for i in range(PHASES)]
    phases = torch.cat([skeleton[:, :, a:b].mean(2) for a, b in ends], 2)  # [B, 256, 3V]
    return F.normalize(phases.transpose(1, 2).contiguous(), dim=-1)


class AdaptivePartition(nn.Module):
    """a_ip = softmax over p of the mean over heads of q_i . k_p / sqrt(width / heads); v_i = sum over p of a_ip x_p.

    The mean over heads of their dot products is the dot product of the whole, divided by their number; and the keys'
    weights are applied to the queries, which are fewer: q . (K x) = (K^T q) . x. A bias of the keys would cancel.
    Weights are a class's own, so features are made for every candidate class, whatever the true one is.
    """

    def __init__(self, d_text: int, width: int, heads: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(d_text, width), nn.Linear(CHANNELS, width, bias=False)
        self.scale = 1 / (heads * (width / heads) ** 0.5)

    def weights(self, x: Tensor, text: Tensor) -> Tensor:
        """x [B, P, 256] of `phase_vectors`, text [U, 8, d_t], or [B, U, 8, d_t] of each clip's own candidates ->
        [B, U, 8, P], sums over P are 1.
        """
        asked = (self.query(text) @ self.key.weight * self.scale).flatten(-3, -2)  # [U * 8, 256], or [B, U * 8, 256]
        return (asked @ x.transpose(1, 2)).softmax(-1).unflatten(1, text.shape[-3:-1])

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """[B, U, 8, 256]: a clip's features by the descriptions of each of U candidate classes."""
        weights = self.weights(x, text)
        return (weights.flatten(1, 2) @ x).unflatten(1, weights.shape[1:3])


class StaticPartition(nn.Module):
    """The same for every class: a part is the mean of its joints in all phases, a phase that of all its joints."""

    shares: Tensor  # [8, 3V], rows sum to 1

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.register_buffer("shares", static_shares(graph), persistent=False)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        """[B, 1, 8, 256]: one set of features, whatever the candidates."""
        return torch.einsum("ip,bpd->bid", self.shares.to(x.dtype), x)[:, None]


def static_shares(graph: Graph) -> Tensor:
    """Weight of every phase and joint in every slot, [8, 3V] float32."""
    inside = torch.zeros(len(SLOTS), PHASES, len(graph.joints))
    for slot, name in enumerate(SLOTS):
        if name in PARTS:
            inside[slot, :, [part_of(joint) == name for joint in graph.joints]] = 1
        elif name == "global":
            inside[slot] = 1
        else:
            inside[slot, SLOTS.index(name) - len(PARTS)] = 1
    flat = inside.flatten(1)
    return flat / flat.sum(1, keepdim=True)


def part_of(joint: str) -> str:
    """The part that a joint belongs to; its side does not matter."""
    name = joint.removeprefix("left_").removeprefix("right_")
    return next(part for part, joints in PARTS.items() if name in joints)
