"""Cues for any method: a bridge in front of its skeleton map, so that the gain of cues is measured for every method.

Ours, from the parts of PoseBridge (bridge.py): every frame and every joint of the map asks the pose-anchored cues, and
what they learn is added to it. T' + V questions rather than T' * V, which cost five times as much. A clip without a
visible cue keeps its map as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import PosebridgeError
from pipeline.files.bounds import within
from pipeline.methods.base import MOST_LAYERS, MOST_WIDE, Features, Shapes
from pipeline.methods.bridge import SKELETON_CHANNELS, BridgeLayer, CueTokens, Levels
from pipeline.skeleton.graph import graph_of


@dataclass(frozen=True)
class CueFlags:
    """What a method that may take cues has among its flags: its own `Flags` inherit these."""

    cues: bool = False
    anchors: tuple[str, ...] = ()  # names; empty takes all
    level_widths: tuple[int, ...] = within((), 1, MOST_WIDE)  # of `levels` cues, shallow to deep; empty: one vector
    levels: tuple[int, ...] = within((), 0)  # which of them, 0-based; empty takes all
    cue_width: int = within(64, 1, MOST_WIDE)
    cue_heads: int = within(4, 1)
    cue_layers: int = within(1, 0, MOST_LAYERS)
    cue_dropout: float = within(0.2, 0, 1)  # of tokens; also the share of training clips whose cues are hidden


class MapBridge(nn.Module):
    """F'_tv = F_tv + W (z_t + z_v) + P c: z_t is the bridge's answer to the mean of frame t, z_v to that of joint v, c
    the pooled cue.

    The projection P c reaches every place alike: a joint network alone overfits few seen classes.
    """

    def __init__(self, shapes: Shapes, flags: CueFlags, channels: int = SKELETON_CHANNELS) -> None:
        """`channels` are those of the map. Raises PosebridgeError for flags that do not fit the recipe."""
        super().__init__()
        if flags.cue_width % flags.cue_heads:
            raise PosebridgeError(
                f"The flag cue_width, {flags.cue_width}, should be a multiple of cue_heads, {flags.cue_heads}."
            )
        width, self.share_hidden = flags.cue_width, flags.cue_dropout
        levels = Levels(flags.level_widths, flags.levels, width) if flags.level_widths else None
        self.cues = CueTokens(shapes, flags.anchors, levels, width, flags.cue_dropout)
        self.null = nn.Parameter(torch.randn(1, width) * 0.02)  # the token that is never hidden
        self.norm = nn.LayerNorm(channels)
        self.ask = nn.Linear(channels, width)
        self.joint = nn.Parameter(torch.randn(len(graph_of(shapes.layout).joints), width) * 0.02)
        self.time = nn.Parameter(torch.randn(width, shapes.cue_frames) * 0.02)
        self.layers = nn.ModuleList(
            BridgeLayer(width, flags.cue_heads, dropout=0.0) for _ in range(flags.cue_layers)  # tokens have theirs
        )
        self.tell = nn.Linear(width, channels)
        self.tell_all = nn.Linear(self.cues.d_cue, channels)

    def forward(self, skeleton: Tensor, features: Features) -> Tensor:
        """The map [B, channels, T', V], informed by the cues of `features`, in the same shape."""
        batch, _, frames, joints = skeleton.shape
        dropped = torch.rand(batch, device=skeleton.device) < (self.share_hidden if self.training else 0.0)
        cues = self.cues(features, dropped)
        x = torch.cat([self.null.expand(batch, 1, -1), cues.tokens], 1)  # [B, 1 + N, width]
        hidden = torch.cat([cues.hidden.new_zeros(batch, 1), cues.hidden], 1)
        time = F.interpolate(self.time[None], size=frames, mode="linear", align_corners=False)[0].T  # [T', width]
        by_frame, by_joint = skeleton.mean(3).transpose(1, 2), skeleton.mean(2).transpose(1, 2)
        places = torch.cat([time, self.joint])  # [T' + V, width]
        q = self.ask(self.norm(torch.cat([by_frame, by_joint], 1))) + places  # [B, T' + V, width]
        for layer in self.layers:
            q = layer(q, x, hidden, cues.present)
        told = self.tell(q) * cues.present[:, :, None]  # hidden here, where it is small
        of_frame, of_joint = told.transpose(1, 2).split([frames, joints], -1)  # [B, channels, T'], [B, channels, V]
        of_joint = of_joint + (self.tell_all(cues.pooled) * cues.present)[:, :, None]
        return skeleton + of_frame[:, :, :, None] + of_joint[:, :, None]
