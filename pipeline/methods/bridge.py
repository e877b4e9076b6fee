"""The parts of PoseBridge: cue tokens, skeleton queries, the gate, and the cross-attention between them.

Reconstruction; the paper states that the skeleton representation queries the temporal cues by cross-attention. Ours:
what a token is, the null token, the gate, the sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import PosebridgeError
from pipeline.methods.base import Features, Shapes
from pipeline.methods.dropout import Dropout

SKELETON_CHANNELS = 256
IMPORTANCE_SPEED = 10.0  # a few numbers that must move far in as many steps as a weight matrix moves a little


class Cues(NamedTuple):
    """Cues of a batch as the bridge takes them. A clip without any visible anchor has only hidden tokens, and zeros."""

    tokens: Tensor  # [B, N, width], N = M * S * A, or 0 where there are no cues
    hidden: Tensor  # [B, N] bool, to be ignored
    pooled: Tensor  # [B, D] weighted mean of the visible ones
    present: Tensor  # [B, 1] 1.0 where any is visible, else 0.0


class CueTokens(nn.Module):
    """Tokens W LN(cue) + e_time + e_anchor + e_person, and the pooled cue of the additive path."""

    wanted: Tensor  # [A] bool

    def __init__(
        self, shapes: Shapes, anchors: Sequence[str], levels: Levels | None, width: int, dropout: float
    ) -> None:
        super().__init__()
        if unknown := sorted(set(anchors) - set(shapes.anchors)):
            raise PosebridgeError(
                f"The recipe has no anchor {unknown[0]!r}; it has {', '.join(shapes.anchors) or 'none'}."
            )
        if levels is not None and sum(levels.level_widths) != shapes.d_cue:
            raise PosebridgeError(
                f"The flag level_widths sums to {sum(levels.level_widths)}, but the recipe's cues are {shapes.d_cue} "
                "wide; where its taps have changed since, run `posebridge extract` again, else correct the flag."
            )
        names = [name in (anchors or shapes.anchors) for name in shapes.anchors]
        self.register_buffer("wanted", torch.tensor(names, dtype=torch.bool), persistent=False)
        self.levels = levels
        self.d_cue = levels.width if levels is not None else shapes.d_cue
        self.pooled_norm = nn.LayerNorm(self.d_cue)
        self.project = nn.Linear(self.d_cue, width)
        self.time = nn.Parameter(torch.randn(shapes.cue_frames, 1, width) * 0.02)
        self.anchor = nn.Parameter(torch.randn(len(shapes.anchors), width) * 0.02)
        self.person = nn.Parameter(torch.randn(shapes.cue_persons or shapes.persons, 1, 1, width) * 0.02)
        self.importance = nn.Parameter(torch.zeros(len(shapes.anchors)))  # of each anchor in the pooled cue
        self.dropout = Dropout(dropout)

    def forward(self, features: Features, dropped: Tensor) -> Cues:
        """`dropped` [B] bool are clips whose cues are to be hidden; or of [B, M, S, A], each cue by itself."""
        batch = len(dropped)
        if features.cues is None or features.cue_scores is None:
            new = self.importance.new_zeros
            return Cues(
                new(batch, 0, self.project.out_features), new(batch, 0).bool(), new(batch, self.d_cue), new(batch, 1)
            )
        hidden_now = dropped.view(batch, *(dropped.shape[1:] or (1, 1, 1)))
        visible = (features.cue_scores > 0) & self.wanted & ~hidden_now  # [B, M, S, A]
        cues = features.cues.to(self.anchor.dtype)
        x = F.layer_norm(cues if self.levels is None else self.levels(cues), (self.d_cue,))  # [B, M, S, A, D]
        tokens = self.dropout(self.project(x) + self.time + self.anchor + self.person)
        weight = features.cue_scores * (IMPORTANCE_SPEED * self.importance).exp() * visible
        weight = weight / weight.sum(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
        pooled = weight.flatten(1)[:, None] @ x.flatten(1, 3)  # [B, 1, N] @ [B, N, D]
        pooled = self.dropout(self.pooled_norm(pooled[:, 0]))
        hidden = ~visible.flatten(1)
        return Cues(tokens.flatten(1, 3), hidden, pooled, visible.flatten(1).any(1, keepdim=True).float())


class Levels(nn.Module):
    """Refinement over levels of already pooled cues: G1 = P1(F1), Gl = Pl(Fl) + D(G(l-1)), shallow to deep."""

    def __init__(self, level_widths: Sequence[int], levels: Sequence[int], width: int) -> None:
        super().__init__()
        self.level_widths, self.width = list(level_widths), width
        self.levels = tuple(levels) or tuple(range(len(level_widths)))
        if max(self.levels) >= len(level_widths):
            raise PosebridgeError(
                f"The flag levels names {max(self.levels)}, but level_widths has 0 to {len(level_widths) - 1}."
            )
        self.enter = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(level_widths[i]), nn.Linear(level_widths[i], width)) for i in self.levels
        )
        self.carry = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.SiLU(), nn.Linear(width, width)) for _ in self.levels[1:]
        )

    def forward(self, cues: Tensor) -> Tensor:  # [..., sum of level widths] -> [..., width]
        parts = cues.split(self.level_widths, dim=-1)
        refined = self.enter[0](parts[self.levels[0]])
        for enter, carry, level in zip(self.enter[1:], self.carry, self.levels[1:], strict=True):
            refined = enter(parts[level]) + carry(refined)
        return refined


class Queries(nn.Module):
    """The skeleton map as a few time tokens and a global one: [B, 256, T', V] -> [B, count + 1, width]."""

    def __init__(self, count: int, width: int, dropout: float, skeleton: bool = True) -> None:
        super().__init__()
        self.count, self.skeleton = count, skeleton
        self.norm = nn.LayerNorm(SKELETON_CHANNELS)
        self.project = nn.Linear(SKELETON_CHANNELS, width)
        self.place = nn.Parameter(torch.randn(count + 1, width) * 0.02)
        self.dropout = Dropout(dropout)

    def forward(self, skeleton: Tensor) -> Tensor:
        if not self.skeleton:  # cues only: the queries are learned
            return self.place.expand(len(skeleton), -1, -1)
        frames = skeleton.mean(-1)  # [B, 256, T']
        tokens = torch.cat([F.adaptive_avg_pool1d(frames, self.count), frames.mean(-1, keepdim=True)], -1)
        return self.project(self.dropout(self.norm(tokens.transpose(1, 2)))) + self.place


class Gate(nn.Module):
    """How far the cues are to be trusted, (0, 1) [B, 1]: from the keypoint scores and how visible each anchor was."""

    def __init__(self, anchors: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 + anchors, 1)
        nn.init.zeros_(self.linear.weight)
        nn.init.constant_(self.linear.bias, 2.0)  # open at first

    def forward(self, features: Features) -> Tensor:
        quality = features.quality.mean(1)  # [B, 2]
        if features.cues is None or features.cue_scores is None:
            visible = quality.new_zeros(len(quality), self.linear.in_features - 2)
        else:
            visible = features.cue_scores.mean(dim=(1, 2))  # [B, A]
        return torch.sigmoid(self.linear(torch.cat([quality, visible], -1)))


class BridgeLayer(nn.Module):
    """z = LN(q + g * MHA(q, X, X))."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.ask, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out, self.norm = nn.Linear(width, width), nn.LayerNorm(width)

    def forward(self, q: Tensor, x: Tensor, hidden: Tensor, gate: Tensor) -> Tensor:
        """q [B, Q, width], x [B, N, width], hidden [B, N] bool, gate [B, 1]. At least one token must not be hidden."""
        key, value = self.key_value(x).chunk(2, dim=-1)
        answer = F.scaled_dot_product_attention(
            self._split(self.ask(q)),
            self._split(key),
            self._split(value),
            attn_mask=~hidden[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )  # [B, heads, Q, width / heads]
        return self.norm(q + gate[:, :, None] * self.out(answer.transpose(1, 2).flatten(2)))

    def looks(self, q: Tensor, x: Tensor, hidden: Tensor) -> Tensor:
        """Where the queries look: the share of each token, mean over queries and heads, [B, N]; 0 where hidden."""
        asked, key = self._split(self.ask(q)), self._split(self.key_value(x).chunk(2, dim=-1)[0])
        likeness = asked @ key.transpose(-1, -2) / asked.shape[-1] ** 0.5  # [B, heads, Q, N]
        return likeness.masked_fill(hidden[:, None, None, :], -torch.inf).softmax(-1).mean((1, 2))

    def _split(self, y: Tensor) -> Tensor:
        return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
