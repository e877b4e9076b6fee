"""The feature maps of clips, in memory or made batch by batch: what a method of stage two is shown.

Reads and writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pipeline.learn.features import Samples
from pipeline.methods.base import Features
from pipeline.recipe import other_side
from pipeline.skeleton.augment import augment
from pipeline.skeleton.normalise import normalise
from pipeline.skeleton.shift_gcn import ShiftGCN

HELD_BYTES = 4 << 30  # of feature maps


class Joints(nn.Module):
    """In the place of a frozen encoder, for a method that has its own: the map is the joints themselves."""

    def feature_map(self, x: Tensor, person: Tensor) -> Tensor:
        """[B, M, T, V, C + 1], as it comes: nobody is all zero."""
        return x


Encoder = ShiftGCN | Joints


@dataclass(frozen=True)
class FeatureTable:
    """Maps of N clips, in R views (the first as seen, the others augmented), with the cues that go with them.

    The maps are held, or made anew for every batch where they would not fit (a view of all of NTU-120 is 18 GB).
    """

    encoder: Encoder
    inputs: Tensor | None  # [R, N, M, T, V, C + 1] what maps are made of; None where they are held
    maps: Tensor | None  # [R, N, 256, T', V] float32; of `Joints`, [R, N, M, T, V, C + 1]
    person: Tensor  # [N, M] bool
    mirrored: Tensor  # [R, N] bool
    samples: Samples
    anchor_mirror: tuple[int, ...] = ()  # where each anchor's cue is found in a mirrored clip

    def batch(self, rows: Tensor, views: Tensor | None = None) -> Features:
        """Features of clips `rows` [B], each in its view of `views` [B]; the first view where none is named."""
        views = torch.zeros_like(rows) if views is None else views
        cues, cue_scores = self.samples.cues, self.samples.cue_scores
        if cues is not None and cue_scores is not None:
            cues, cue_scores = cues[rows], cue_scores[rows]
            turned = self.mirrored[views, rows]
            if turned.any():
                order = list(self.anchor_mirror)
                cues[turned] = cues[turned][..., order, :]  # `cues` is a copy already
                cue_scores[turned] = cue_scores[turned][..., order]
        return Features(self._maps(rows, views), self.samples.quality[rows], cues, cue_scores)

    @torch.no_grad()
    def _maps(self, rows: Tensor, views: Tensor) -> Tensor:
        if self.maps is not None:
            return self.maps[views, rows]
        assert self.inputs is not None
        return self.encoder.feature_map(self.inputs[views, rows], self.person[rows])


@torch.no_grad()
def feature_table(
    encoder: Encoder, samples: Samples, anchors: tuple[str, ...] = (), views: int = 1, seed: int = 0,
    held_bytes: int = HELD_BYTES,
) -> FeatureTable:  # fmt: skip
    """The frozen encoder's maps, held in memory up to `held_bytes`.

    `views` > 1 adds augmented ones, for training only; one view is deterministic.
    """
    x = normalise(samples.keypoints, samples.scores, samples.person_valid, samples.graph)
    person = samples.person_valid.any(-1)
    generator = torch.Generator().manual_seed(seed)
    inputs, mirrored = [x], torch.zeros(views, len(samples), dtype=torch.bool)
    for view in range(1, views):
        mirrored[view] = torch.rand(len(samples), generator=generator) < 0.5
        inputs.append(augment(x, generator, samples.graph, mirrored=mirrored[view]))
    order = tuple(anchors.index(other_side(name)) for name in anchors)
    one = encoder.feature_map(x[:1], person[:1])
    if one.nbytes * views * len(samples) > held_bytes:
        return FeatureTable(encoder, torch.stack(inputs), None, person, mirrored, samples, order)
    maps = [
        torch.cat([encoder.feature_map(a, b) for a, b in zip(seen.split(64), person.split(64), strict=True)])
        for seen in inputs
    ]
    return FeatureTable(encoder, None, torch.stack(maps), person, mirrored, samples, order)
