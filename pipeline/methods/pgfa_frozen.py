"""PGFA's alignment on a frozen encoder: its loss and its linear adapter, on features that are not trained with them.

Zhou et al., "PGFA", IEEE TIP 2025 (arXiv 2507.00566), train the skeleton encoder too, which is `pgfa`. Ours is the
other half alone: it tells what end-to-end training adds, and runs on imported features, whose encoder is not at hand.
Schedule and loss are those of pgfa.py, and `adapt: pgfa` is its alignment of text prototypes at test.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.methods.base import Features, Shapes, read_flags
from pipeline.methods.bridge import SKELETON_CHANNELS
from pipeline.methods.pgfa import Alignment
from pipeline.methods.pgfa import AlignmentFlags as Flags


class PGFAFrozen(Alignment):
    """See the module's docstring."""

    def __init__(self, shapes: Shapes, classes: int, flags: Mapping[str, Any]) -> None:
        super().__init__(shapes, classes, flags)
        self.flags = f = read_flags(Flags, flags, "pgfa_frozen")
        self.text_slots, self.temperature = tuple(f.text_slots), f.tau
        self.adapter = nn.Linear(SKELETON_CHANNELS, shapes.d_text)

    def embed(self, features: Features) -> Tensor:
        return F.normalize(self.adapter(features.skeleton.mean(dim=(2, 3))), dim=-1)
