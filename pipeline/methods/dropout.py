"""Dropout whose random numbers are bytes: PyTorch's own draws a number for every value one after another, which on some
processors takes longer than the layers around it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 256  # of a byte


class Dropout(nn.Dropout):
    """torch.nn.Dropout with its probability (below 1) rounded to a 256th; what is kept is scaled accordingly."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape; itself in eval mode."""
        dropped = min(round(self.p * LEVELS), LEVELS - 1)
        if not (self.training and dropped):
            return x
        drawn = torch.empty(-(-x.numel() // 8), dtype=torch.int64, device=x.device).random_(-(2**63), None)
        kept = drawn.view(torch.uint8)[: x.numel()].view(x.shape) >= dropped
        return x * kept.to(x.dtype).mul_(LEVELS / (LEVELS - dropped))
