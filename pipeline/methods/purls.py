"""PURLS: eight descriptions of a class pool a skeleton map, each its own feature; the global one is compared.

Source: Zhu, Ke, Gong, Bailey, "Part-aware Unified Representation of Language and Skeleton for Zero-shot Action
Recognition", CVPR 2024; its released behaviour as described, written anew. Two methods: `purls` is trained as
published, on features pooled by a clip's own class only; `purls_matched` is trained as it is tested, each clip pooled
by every class of the batch.

Not as released, because it leaks: at test the features are pooled by each candidate's descriptions and compared with
that candidate, never pooled by the true class; batch norm and dropout are at rest.

The flag `loss` chooses how a clip and a text are compared. `published`, the default of `purls`, is the released code's:
dot products of the output as it is, cross-entropy in both directions added, each clip of a batch the only positive of
its own text; the answer goes by the same products, without their scale. The paper's text was not at hand, so the code
stands for it. `cosine`, the default of `purls_matched`, is ours: cosines, half of that sum, and clips of one class are
positives of one another.

Other deviations: text is as wide as the bank's (384 for MiniLM; published: CLIP ViT-B/32, 512). The skeleton encoder's
map has T/4 frames, which are averaged to three. The slots' losses are weighted by what is learnt, a softmax times 8, so
that none can flee from its loss (released: their plain sum, unless a switch says so, and then weights without softmax);
queries have a bias (released: none, as keys have none in either). Training is the loop that all methods share: AdamW
with warm-up, averaged weights and clipped gradients, epochs chosen on pseudo-unseen classes (published: Adam 1e-4,
divided by 10 on a plateau of 25 epochs, batch 256, 100 epochs, lowest loss on seen classes).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.errors import PosebridgeError
from pipeline.files.bounds import within
from pipeline.methods.base import MOST_WIDE, Features, Method, Shapes, read_flags
from pipeline.methods.cued import CueFlags, MapBridge
from pipeline.methods.dropout import Dropout
from pipeline.methods.partition import CHANNELS, SLOTS, AdaptivePartition, StaticPartition, phase_vectors
from pipeline.skeleton.graph import graph_of

GLOBAL = SLOTS.index("global")


@dataclass(frozen=True)
class Flags(CueFlags):
    """Sizes are the published ones. `cues` puts the bridge of cued.py in front of the partition."""

    partition: str = "adaptive"  # or static
    loss: str = ""  # published or cosine; left out, that of the method
    width: int = within(300, 1, MOST_WIDE)  # of queries and keys
    heads: int = within(2, 1)
    hidden: int = within(1024, 1, MOST_WIDE)
    dropout: float = within(0.5, 0, 1)
    batch_size: int = within(0, 0, 10**6)  # 0: as `train` has it; what `purls_matched` costs a clip grows with it


class Purls(Method):
    """See the module's docstring."""

    matched: ClassVar[bool] = False
    default_loss: ClassVar[str] = "published"
    text_slots = SLOTS

    def __init__(self, shapes: Shapes, classes: int, flags: Mapping[str, Any]) -> None:
        super().__init__(shapes, classes, flags)
        self.flags = f = read_flags(Flags, flags, "purls")
        check_flags(f)
        self.published = (f.loss or self.default_loss) == "published"
        if self.published:  # among the weights, since those of before this was the default mean something else
            self.register_buffer("dot_products", torch.tensor(True))
        self.bridge = MapBridge(shapes, f) if f.cues else None
        self.partition = (
            AdaptivePartition(shapes.d_text, f.width, f.heads)
            if f.partition == "adaptive"
            else StaticPartition(graph_of(shapes.layout))
        )
        self.project = nn.Sequential(
            nn.BatchNorm1d(len(SLOTS) * CHANNELS),
            Dropout(f.dropout),
            nn.Linear(len(SLOTS) * CHANNELS, f.hidden),
            nn.SiLU(),
            nn.BatchNorm1d(f.hidden),
            Dropout(f.dropout),
        )
        self.to_text = nn.Linear(f.hidden, len(SLOTS) * shapes.d_text)
        self.scale = nn.Parameter(torch.full((len(SLOTS),), math.log(1 / 0.07)))  # of the products, not exponentiated
        self.slot_weight = nn.Parameter(torch.zeros(len(SLOTS)))

    def schedule(self) -> Mapping[str, Any]:
        return {"batch_size": self.flags.batch_size} if self.flags.batch_size else {}

    def describe(self, text: Tensor) -> Tensor:
        """The global description is what a class is compared by: [C, 8, d_t] -> [C, d_t]."""
        return F.normalize(text[:, GLOBAL], dim=-1)

    def pool(self, features: Features, text: Tensor) -> Tensor:
        """Features by the descriptions of each candidate: [B, U, 8, 256], or [B, 1, 8, 256] by static parts. `text` is
        [U, 8, d_t], or in training [B, U, 8, d_t].
        """
        skeleton = features.skeleton if self.bridge is None else self.bridge(features.skeleton, features)
        return self.partition(phase_vectors(skeleton), text)

    def in_text_space(self, pooled: Tensor, slots: slice = slice(None)) -> Tensor:
        """Pooled features as wide as text: [B, U, 8, 256] -> [B, U, 8, d_t], or only these slots.

        Every slot depends on all eight features; one alone spares most of the last layer.
        """
        hidden = self.project(pooled.flatten(2).flatten(0, 1))  # [B * U, hidden]
        last = self.to_text
        weight, bias = (x.unflatten(0, (len(SLOTS), -1))[slots].flatten(0, 1) for x in (last.weight, last.bias))
        width = last.out_features // len(SLOTS)
        return F.linear(hidden, weight, bias).tanh().unflatten(-1, (-1, width)).unflatten(0, pooled.shape[:2])

    def loss(self, features: Features, labels: Tensor, text: Tensor) -> Tensor:
        if len(labels) < 2:
            return 0 * self.scale.sum()  # a single clip has nothing to be contrasted with, nor a batch's statistics
        classes, own = (part.to(text.device, non_blocking=True) for part in classes_among(labels))
        text = text[classes]  # [U, 8, d_t]
        pooled = self.pool(features, text if self.matched else text[own][:, None])  # [B, U or 1, 8, 256]
        x = self.in_text_space(pooled)  # the largest tensor: to divide by its length after the sum saves passes over it
        likeness = products(x, text)  # [B, U, 8]
        if not self.published:
            likeness = likeness / x.norm(dim=-1).clamp_min(1e-12)
        # The batch's classes, or its clips as published.
        columns = torch.arange(len(classes), device=own.device) if self.matched else own
        positive = own[:, None] == columns
        if self.published and not self.matched:
            positive = torch.eye(len(own), dtype=torch.bool, device=own.device)
        loss = self.slot_loss(likeness[:, columns], positive)
        return 2 * loss if self.published else loss

    def slot_loss(self, likeness: Tensor, positive: Tensor) -> Tensor:
        """Weighted sum over the slots of the contrastive loss. likeness [B, K, 8], positive [B, K] bool."""
        logits = (self.scale * likeness).unbind(-1)
        losses = torch.stack([contrastive(each, positive) for each in logits])
        return (len(SLOTS) * self.slot_weight.softmax(0) * losses).sum()

    def scores(self, features: Features, text: Tensor) -> Tensor:
        """Logits of the global slot: its scale times the cosine; as published, the dot product."""
        return self.compare(self.keep(features, text), text)

    def keep(self, features: Features, text: Tensor) -> Tensor:
        """What is compared of a clip, one for each candidate: [B, U, d_t], or [B, 1, d_t] by static parts."""
        kept = self.in_text_space(self.pool(features, text), slice(GLOBAL, GLOBAL + 1))[:, :, 0]
        return kept if self.published else F.normalize(kept, dim=-1)

    def compare(self, kept: Tensor, text: Tensor) -> Tensor:
        """Logits [B, U] of what is kept of the clips against the candidates' text [U, 8, d_t]."""
        likeness = (kept * self.describe(text)).sum(-1)
        return likeness if self.published else self.scale[GLOBAL] * likeness


class PurlsMatched(Purls):
    """Trained as it is tested: sample i is scored against class j with its features pooled by j."""

    matched = True
    default_loss = "cosine"


def classes_among(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The different ones of labels [B], in their order, and where each label stands among them: [U], [B].

    torch's meta device knows no values: there all are different.
    """
    if labels.is_meta:
        return labels, torch.arange(len(labels), device=labels.device)
    return labels.unique(return_inverse=True)


def products(x: Tensor, text: Tensor) -> Tensor:
    """Dot products slot by slot: x [B, U, 8, d_t], or [B, 1, 8, d_t] the same for all, and text [U, 8, d_t] ->
    [B, U, 8].
    """
    return (x * text).sum(-1) if x.shape[1] > 1 else torch.einsum("bsd,usd->bus", x[:, 0], text)


def contrastive(logits: Tensor, positive: Tensor) -> Tensor:
    """Symmetric cross-entropy of logits [B, K]; the positives of a row, or of a column, share its target equally."""

    def half(x: Tensor, same: Tensor) -> Tensor:
        target = same / same.sum(1, keepdim=True)
        return -(target * x.log_softmax(1)).sum(1).mean()

    return (half(logits, positive) + half(logits.T, positive.T)) / 2


def check_flags(f: Flags) -> None:
    """Raise PosebridgeError, one sentence, for flags that cannot be."""
    if f.partition not in ("adaptive", "static"):
        raise PosebridgeError(f"The flag partition should be adaptive or static, not {f.partition!r}.")
    if f.loss not in ("", "cosine", "published"):
        raise PosebridgeError(f"The flag loss should be cosine or published, not {f.loss!r}.")
    if f.width % f.heads:
        raise PosebridgeError(f"The flag width, {f.width}, should be a multiple of heads, {f.heads}.")
