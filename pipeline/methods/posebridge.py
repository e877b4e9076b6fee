"""PoseBridge, stage two: the skeleton queries pose-anchored cues; text prototypes are calibrated on seen classes.

Reconstruction; the paper (Lee, Kim, Lee, arXiv 2605.11497) states that the skeleton representation queries the temporal cues by
cross-attention, that language prototypes are calibrated towards the pose-semantic space estimated from seen classes while text
stays the zero-shot anchor, supervised contrastive learning, and GZSL calibration. Sizes, tokens, gate, the additive path and
the regression behind the prototypes are ours. Every ablation is a flag; `skeleton` (below) is the same method without cues.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import PosebridgeError
from pipeline.methods.base import Features, Method, Shapes, read_flags
from pipeline.methods.losses import cosine_ce, info_nce, sup_con
from pipeline.methods.prototypes import RidgeResidual, class_means

SKELETON_CHANNELS = 256


@dataclass(frozen=True)
class Flags:
    """Ablations first, then sizes and weights."""

    cues: bool = True  # False: skeleton only
    skeleton: bool = True  # False: cues only
    bridge: bool = True  # False: concatenate the pooled cue instead of attending to the tokens
    gate: bool = True
    additive: bool = True
    adaptation: str = "ridge"  # ridge, mlp or none
    centre: bool = True  # text prototypes centred on the mean of the classes trained on
    anchors: tuple = ()  # names; empty takes all
    level_widths: tuple = ()  # of `levels` cues, shallow to deep, e.g. [48, 96, 192, 384]; empty: one vector
    levels: tuple = ()  # which of them, 0-based; empty takes all
    text_slots: tuple = ("label", "one_line", "global")  # their mean describes a class

    width: int = 128
    heads: int = 8
    layers: int = 2
    queries: int = 4  # time tokens of the skeleton, beside the global one
    dropout: float = 0.2
    cue_dropout: float = 0.2  # share of training clips whose cues are hidden, so that the bridge can do without
    tau: float = 0.1
    cue_weight: float = 0.5  # of the additive path's own cross-entropy
    sup_con: float = 0.1
    info_nce: float = 0.1
    mlp_weight: float = 1.0  # of |p' - p|^2, where adaptation is mlp


class PoseBridge(Method):
    """See the module's docstring. `alpha` scales the prototype residual and is chosen by the selection phase."""

    choices = {"alpha": (0.0, 0.25, 0.5, 1.0)}

    def __init__(self, shapes: Shapes, classes: int, flags: Mapping[str, Any]) -> None:
        super().__init__()
        self.flags = f = read_flags(Flags, flags, "posebridge")
        if f.adaptation not in ("ridge", "mlp", "none"):
            raise PosebridgeError(f"The flag adaptation should be ridge, mlp or none, not {f.adaptation!r}.")
        if not (f.cues or f.skeleton):
            raise PosebridgeError("The flags cues and skeleton are both off; leave one on.")
        self.uses_cues, self.text_slots = f.cues, tuple(f.text_slots)
        self.alpha = 0.0
        if f.cues:
            self.cues = CueTokens(shapes, f)
            self.cue_head = nn.Linear(shapes.d_cue if not f.level_widths else f.width, shapes.d_text)
        self.queries = Queries(f)
        if f.bridge:
            self.null = nn.Parameter(torch.randn(f.width) * 0.02)
            self.layers = nn.ModuleList(BridgeLayer(f) for _ in range(f.layers))
        elif f.cues:
            self.concatenate = nn.Linear(f.width + self.cue_head.in_features, f.width)
        if f.gate and f.cues:
            self.gate = nn.Linear(2 + len(shapes.anchors), 1)
            nn.init.zeros_(self.gate.weight)
            nn.init.constant_(self.gate.bias, 2.0)
        self.head = nn.Linear(f.width, shapes.d_text)
        if f.adaptation == "ridge":
            self.residual = RidgeResidual(classes, shapes.d_text)
        elif f.adaptation == "mlp":
            self.mlp = nn.Sequential(nn.Linear(shapes.d_text, f.width), nn.SiLU(), nn.Linear(f.width, shapes.d_text))
        self.register_buffer("centre", torch.zeros(shapes.d_text))

    # --- text -------------------------------------------------------------------------------------------------------

    def describe(self, text: Tensor) -> Tensor:
        """One unit vector a class, the mean of its slots: [C, K, d_t] -> [C, d_t]."""
        return F.normalize(text.mean(1), dim=-1)

    def see_text(self, text: Tensor) -> None:
        if self.flags.centre:
            self.centre.copy_(self.describe(text).mean(0))

    def prototypes(self, text: Tensor, adapted: bool = True) -> Tensor:
        """p', or with `adapted=False` p: [C, K, d_t] -> [C, d_t], L2-normalised."""
        p = F.normalize(self.describe(text) - self.centre, dim=-1)
        if adapted and self.flags.adaptation == "mlp":
            return F.normalize(p + self.mlp(p), dim=-1)
        if adapted and self.flags.adaptation == "ridge" and self.alpha:
            return F.normalize(p + self.alpha * self.residual(p), dim=-1)
        return p

    # --- clips ------------------------------------------------------------------------------------------------------

    def paths(self, features: Features) -> tuple[Tensor, Tensor | None]:
        """z [B, d_t], and the additive path's own direction c [B, d_t] (zero for a clip without cues, None without a path)."""
        f = self.flags
        queries = self.queries(features.skeleton)  # [B, n_q + 1, width]
        batch = len(queries)
        tokens, hidden, pooled = None, None, None
        if f.cues and features.cues is not None:
            tokens, hidden, pooled = self.cues(features, self._drop_cues(batch, queries.device))
        gate = self._gate(features, hidden, batch)  # [B, 1]
        if f.bridge:
            x = self.null.expand(batch, 1, -1)
            mask = torch.zeros(batch, 1, dtype=torch.bool, device=x.device)
            if tokens is not None:
                x, mask = torch.cat([x, tokens], 1), torch.cat([mask, hidden], 1)
            for layer in self.layers:
                queries = layer(queries, x, mask, gate[:, :, None])
            h = queries.mean(1)
        elif f.cues:
            if pooled is None:
                pooled = queries.new_zeros(batch, self.cue_head.in_features)
            h = torch.relu(self.concatenate(torch.cat([queries.mean(1), gate * pooled], -1)))
        else:
            h = queries.mean(1)
        h = F.normalize(self.head(h), dim=-1)
        if not (f.cues and (f.additive or f.info_nce)):
            return h, None
        if pooled is None:
            return h, h.new_zeros(h.shape)
        present = (~hidden).any(1, keepdim=True)  # without one visible anchor not even the bias may speak
        c = F.normalize(self.cue_head(pooled), dim=-1) * present
        return (F.normalize(h + gate * c, dim=-1) if f.additive else h), c

    def _gate(self, features: Features, hidden: Tensor | None, batch: int) -> Tensor:
        """How far the cues are to be trusted, (0, 1) [B, 1]: from how visible the anchors were and the keypoint scores."""
        if not (self.flags.gate and self.flags.cues):
            return features.skeleton.new_ones(batch, 1)
        quality = features.quality.mean(1)  # [B, 2]
        anchors = self.gate.in_features - 2
        visible = quality.new_zeros(batch, anchors)
        if features.cue_scores is not None and features.cues is not None:
            visible = features.cue_scores.mean(dim=(1, 2))  # [B, A]
        return torch.sigmoid(self.gate(torch.cat([quality, visible], -1)))

    def _drop_cues(self, batch: int, device: torch.device) -> Tensor:
        """In training, the clips whose cues are hidden this time: [B] bool."""
        if not self.training or not self.flags.skeleton:
            return torch.zeros(batch, dtype=torch.bool, device=device)
        return torch.rand(batch, device=device) < self.flags.cue_dropout

    # --- the contract -----------------------------------------------------------------------------------------------

    def loss(self, features: Features, labels: Tensor, text: Tensor) -> Tensor:
        f = self.flags
        p = self.prototypes(text, adapted=f.adaptation == "mlp")
        z, c = self.paths(features)
        total = cosine_ce(z, p, labels, f.tau) + f.sup_con * sup_con(z, labels)
        if f.adaptation == "mlp":
            total = total + f.mlp_weight * (p - self.prototypes(text, adapted=False)).square().sum(-1).mean()
        if c is not None:
            there = c.detach().abs().sum(-1) > 0
            if there.any():
                if f.additive:
                    total = total + f.cue_weight * cosine_ce(c[there], p, labels[there], f.tau)
                total = total + f.info_nce * info_nce(c[there], p[labels[there]], labels[there], f.tau)
        return total

    def finish(self, embeddings: Tensor, labels: Tensor, text: Tensor) -> None:
        if self.flags.adaptation == "ridge":
            self.residual.fit(self.prototypes(text, adapted=False), class_means(embeddings, labels, len(text)))

    def embed(self, features: Features) -> Tensor:
        return self.paths(features)[0]

    def scores(self, features: Features, text: Tensor) -> Tensor:
        return self.embed(features) @ self.prototypes(text).T


class Skeleton(PoseBridge):
    """The same method without cues: what the skeleton alone allows."""

    def __init__(self, shapes: Shapes, classes: int, flags: Mapping[str, Any]) -> None:
        super().__init__(shapes, classes, {**flags, "cues": False})


class CueTokens(nn.Module):
    """Cues as tokens of the bridge, and pooled for the additive path."""

    def __init__(self, shapes: Shapes, f: Flags) -> None:
        super().__init__()
        if unknown := set(f.anchors) - set(shapes.anchors):
            raise PosebridgeError(f"The recipe has no anchor {sorted(unknown)[0]!r}; it has {', '.join(shapes.anchors) or 'no cues'}.")
        if f.level_widths and sum(f.level_widths) != shapes.d_cue:
            raise PosebridgeError(f"The flag level_widths sums to {sum(f.level_widths)}, but the cues are {shapes.d_cue} wide.")
        wanted = f.anchors or shapes.anchors
        self.register_buffer("wanted", torch.tensor([name in wanted for name in shapes.anchors]), persistent=False)
        self.levels = Levels(f) if f.level_widths else None
        self.norm = nn.LayerNorm(shapes.d_cue if self.levels is None else f.width)
        self.project = nn.Linear(self.norm.normalized_shape[0], f.width)
        self.time = nn.Parameter(torch.randn(shapes.cue_frames, 1, f.width) * 0.02)
        self.anchor = nn.Parameter(torch.randn(len(shapes.anchors), f.width) * 0.02)
        self.person = nn.Parameter(torch.randn(shapes.persons, 1, 1, f.width) * 0.02)
        self.importance = nn.Parameter(torch.zeros(len(shapes.anchors)))  # of each anchor in the pooled cue
        self.dropout = nn.Dropout(f.dropout)

    def forward(self, features: Features, dropped: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens [B, M*S*A, width], which of them to ignore [B, M*S*A] bool, and the pooled cue [B, D]."""
        assert features.cues is not None and features.cue_scores is not None
        cues = features.cues.float()
        hidden = (features.cue_scores <= 0) | ~self.wanted | dropped[:, None, None, None]  # [B, M, S, A]
        x = self.norm(self.levels(cues) if self.levels is not None else cues)  # [B, M, S, A, D]
        tokens = self.dropout(self.project(x) + self.time + self.anchor + self.person)
        weight = features.cue_scores * self.importance.exp() * ~hidden
        weight = weight / weight.sum(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
        pooled = torch.einsum("bmsa,bmsad->bd", weight, x)
        return tokens.flatten(1, 3), hidden.flatten(1), self.dropout(pooled)


class Levels(nn.Module):
    """Refinement over levels of already pooled cues: G1 = P1(F1), Gl = Pl(Fl) + D(G(l-1)), shallow to deep."""

    def __init__(self, f: Flags) -> None:
        super().__init__()
        self.widths, self.chosen = list(f.level_widths), f.levels or tuple(range(len(f.level_widths)))
        self.enter = nn.ModuleList(nn.Sequential(nn.LayerNorm(self.widths[i]), nn.Linear(self.widths[i], f.width)) for i in self.chosen)
        self.carry = nn.ModuleList(nn.Sequential(nn.LayerNorm(f.width), nn.SiLU(), nn.Linear(f.width, f.width)) for _ in self.chosen[1:])

    def forward(self, cues: Tensor) -> Tensor:  # [..., sum of widths] -> [..., width]
        parts = cues.split(self.widths, dim=-1)
        refined = self.enter[0](parts[self.chosen[0]])
        for enter, carry, level in zip(self.enter[1:], self.carry, self.chosen[1:], strict=True):
            refined = enter(parts[level]) + carry(refined)
        return refined


class Queries(nn.Module):
    """The skeleton map as a few time tokens and a global one: [B, 256, T', V] -> [B, n_q + 1, width]."""

    def __init__(self, f: Flags) -> None:
        super().__init__()
        self.count, self.skeleton = f.queries, f.skeleton
        self.norm = nn.LayerNorm(SKELETON_CHANNELS)
        self.project = nn.Linear(SKELETON_CHANNELS, f.width)
        self.place = nn.Parameter(torch.randn(f.queries + 1, f.width) * 0.02)
        self.dropout = nn.Dropout(f.dropout)

    def forward(self, skeleton: Tensor) -> Tensor:
        if not self.skeleton:  # cues only: the tokens are learned
            return self.place.expand(len(skeleton), -1, -1)
        frames = skeleton.mean(-1)  # [B, 256, T']
        tokens = torch.cat([F.adaptive_avg_pool1d(frames, self.count), frames.mean(-1, keepdim=True)], -1).transpose(1, 2)
        return self.project(self.dropout(self.norm(tokens))) + self.place


class BridgeLayer(nn.Module):
    """z = LN(q + g * MHA(q, X, X))."""

    def __init__(self, f: Flags) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(f.width, f.heads, dropout=f.dropout, batch_first=True)
        self.norm = nn.LayerNorm(f.width)

    def forward(self, q: Tensor, x: Tensor, ignore: Tensor, gate: Tensor) -> Tensor:
        answer, _ = self.attend(q, x, x, key_padding_mask=ignore, need_weights=False)
        return self.norm(q + gate * answer)
