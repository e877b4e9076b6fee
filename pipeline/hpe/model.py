"""PoseBridge-HPE: a top-down pose model whose inner evidence is kept as pose-anchored cues."""

from __future__ import annotations

from torch import nn

from pipeline.hpe.refinement import CueHead
from pipeline.hpe.topdown import TopdownModel


class PoseBridgeHPE(nn.Module):
    """A top-down pose model with its cue head: what the weights file holds, under `pose.` and `cue.`."""

    def __init__(
        self, config: str, taps: tuple[str, ...] = (), pooled_stride: int = 16, width: int = 96, text_width: int = 0
    ) -> None:
        super().__init__()
        self.pose = TopdownModel(config, taps)
        self.cue = CueHead(self.pose.channels, self.pose.strides, pooled_stride, width)
        # Only training compares cues with text; stage two learns its own projection.
        self.to_text = nn.Linear(self.cue.cue_width, text_width, bias=False) if text_width else None
