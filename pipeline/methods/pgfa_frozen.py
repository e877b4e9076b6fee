"""PGFA's alignment on a frozen encoder: its loss and its linear adapter, on features that are not trained with them.

Zhou et al., "PGFA", IEEE TIP 2025 (arXiv 2507.00566), train the skeleton encoder too, which is `pgfa`. Ours is the
other half alone: it tells what end-to-end training adds, and runs on imported features, whose encoder is not at hand.
Schedule and loss are those of pgfa.py, and `adapt: pgfa` is its alignment of text prototypes at test.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.files.bounds import within
from pipeline.methods.base import EmbeddingMethod, Features, Shapes, read_flags
from pipeline.methods.bridge import SKELETON_CHANNELS
from pipeline.methods.pgfa import contrastive_kl


@dataclass(frozen=True)
class Flags:
    """The text, then the training, as in pgfa.py."""

    text_slots: tuple[str, ...] = ("one_line",)
    tau: float = within(0.07, above=0)
    lr: float = within(0.05, above=0)
    batch_size: int = within(128, 1, 10**6)
    epochs: int = within(50, 1, 10**6)


class PGFAFrozen(EmbeddingMethod):
    """See the module's docstring."""

    def __init__(self, shapes: Shapes, classes: int, flags: Mapping[str, Any]) -> None:
        super().__init__(shapes, classes, flags)
        self.flags = f = read_flags(Flags, flags, "pgfa_frozen")
        self.text_slots, self.temperature = tuple(f.text_slots), f.tau
        self.adapter = nn.Linear(SKELETON_CHANNELS, shapes.d_text)

    def schedule(self) -> Mapping[str, Any]:
        f = self.flags
        return {
            "optimiser": "sgd", "lr": f.lr, "weight_decay": 5e-4, "batch_size": f.batch_size, "epochs": f.epochs,
            "warmup_epochs": 5, "milestones": (50, 80), "ema": 0.0,
        }  # fmt: skip

    def loss(self, features: Features, labels: Tensor, text: Tensor) -> Tensor:
        labels = labels.to(text.device, non_blocking=True)
        return contrastive_kl(self.embed(features), self.prototypes(text)[labels], labels, self.flags.tau)

    def embed(self, features: Features) -> Tensor:
        return F.normalize(self.adapter(features.skeleton.mean(dim=(2, 3))), dim=-1)

    def prototypes(self, text: Tensor) -> Tensor:
        return self.describe(text)
