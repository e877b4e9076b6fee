"""Kernel canonical correlation of clips and texts, solved in closed form: for data with a few clips a class.

Ours; after regularised kernel CCA (Hardoon, Szedmak, Shawe-Taylor, Neural Computation 2004). Where a class has one clip
(gym), networks learn the clips by heart. Here skeleton and cues are fixed features; what is learnt are the directions
in which they and the texts of the classes trained on vary alike, and both sides are weighed by how well they do: a word
that no picture shows has no say. Slots of a text are joined and not averaged, so that each has directions of its own.

The skeleton is seen through random Fourier features (Rahimi, Recht, NIPS 2007) of a Gaussian kernel over joints at a
few moments, added to those of its mirror image; its width is the median distance of clips trained on. Of cues, the mean
over frames of each anchor and level is brought to length one. Both parts are centred and brought to equal size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import PosebridgeError
from pipeline.files.bounds import within
from pipeline.methods.base import MOST_WIDE, Features, Shapes, SolvedMethod, read_flags
from pipeline.methods.canonical import RIDGE, TEXT_RIDGE, correlate
from pipeline.recipe import CUES_ALONE, POOLED
from pipeline.skeleton.graph import graph_of
from pipeline.skeleton.mirror import mirror
from pipeline.skeleton.resample import resample

MOST_CLIPS = 5_000  # whose matrix is decomposed
SOME = 200  # clips by whose distances the kernel's width is found


@dataclass(frozen=True)
class Flags:
    """What is seen, then how it is solved."""

    cues: bool = True  # False: skeleton only
    skeleton: bool = True  # False: cues only
    level_widths: tuple[int, ...] = within((), 1, MOST_WIDE)  # of `levels` cues, shallow to deep; empty: one vector
    text_slots: tuple[str, ...] = ("one_line", "hands", "global")  # joined
    moments: int = within(4, 1, 100)  # of the skeleton, evenly in time
    waves: int = within(2048, 1, MOST_WIDE)  # random Fourier features of it
    directions: int = within(200, 1, MOST_WIDE)  # at the most
    ridge: float = within(RIDGE, above=0)  # of clips, in terms of their mean variance
    text_ridge: float = within(TEXT_RIDGE, above=0)


class CCA(SolvedMethod):
    """See the module's docstring."""

    end_to_end = True
    waves: Tensor  # [moments * V * C, R] directions of the Fourier features
    phases: Tensor  # [R]
    width: Tensor  # [] of the Gaussian kernel
    middle: Tensor  # [D] mean features of the clips trained on
    scale: Tensor  # [D] that brings skeleton and cues to equal size
    clips: Tensor  # [D, directions]
    texts: Tensor  # [K d_t, directions]

    def __init__(self, shapes: Shapes, classes: int, flags: Mapping[str, Any]) -> None:
        super().__init__(shapes, classes, flags)
        self.flags = f = read_flags(Flags, flags, "cca")
        if not (f.cues or f.skeleton):
            raise PosebridgeError("The flags cues and skeleton are both off; leave one on.")
        if f.cues and f.level_widths and sum(f.level_widths) != shapes.d_cue:
            raise PosebridgeError(
                f"The flag level_widths sums to {sum(f.level_widths)}, but the recipe's cues are {shapes.d_cue} wide."
            )
        self.text_slots = tuple(f.text_slots)
        self.graph = None if shapes.layout in (POOLED, CUES_ALONE) else graph_of(shapes.layout)
        self.levels = list(f.level_widths) or [shapes.d_cue]
        joints = f.moments * len(self.graph.joints) * (shapes.inputs - 1) if self.graph else 0
        wide = f.waves * f.skeleton + len(shapes.anchors) * shapes.d_cue * f.cues
        joined = len(self.text_slots) * shapes.d_text
        self.register_buffer("centre", torch.zeros(joined))
        self.register_buffer("waves", torch.randn(joints, f.waves * f.skeleton))
        self.register_buffer("phases", 2 * math.pi * torch.rand(f.waves * f.skeleton))
        self.register_buffer("width", torch.ones(()))
        self.register_buffer("middle", torch.zeros(wide))
        self.register_buffer("scale", torch.ones(wide))
        self.register_buffer("clips", torch.zeros(wide, f.directions))
        self.register_buffer("texts", torch.zeros(joined, f.directions))

    def describe(self, text: Tensor) -> Tensor:
        """The slots beside one another: [C, K, d_t] -> [C, K d_t], of length one."""
        return text.flatten(1) / math.sqrt(text.shape[1])

    def see_text(self, text: Tensor) -> None:
        self.centre.copy_(self.describe(text).mean(0))

    def embed(self, features: Features) -> Tensor:
        return F.normalize((self._seen(features) - self.middle) * self.scale @ self.clips, dim=-1)

    def prototypes(self, text: Tensor) -> Tensor:
        return F.normalize((self.describe(text) - self.centre) @ self.texts, dim=-1)

    @torch.no_grad()
    def solve(self, batches: Iterable[Features], labels: Tensor, text: Tensor) -> None:
        if len(labels) > MOST_CLIPS:
            raise PosebridgeError(
                f"The method cca decomposes a matrix of all clips trained on, of which there may be {MOST_CLIPS:,} and "
                f"are {len(labels):,}; use posebridge."
            )
        known = list(batches)
        if self.flags.skeleton:
            some = torch.cat([self._joints(features)[0][:, 0] for features in known])[:: max(1, len(labels) // SOME)]
            if len(some) > 1:
                self.width.copy_(torch.pdist(some).median().clamp_min(1e-6) / math.sqrt(2))
        x = torch.cat([self._seen(features) for features in known]).double().cpu()  # [N, D]
        self.middle.copy_(x.mean(0))
        x -= x.mean(0)
        parts = [len(self.phases), x.shape[1] - len(self.phases)]  # of the skeleton, of cues
        sizes = [part.square().sum(1).mean().clamp_min(1e-12).sqrt() for part in x.split(parts, 1)]
        scale = torch.cat([torch.full((n,), 1 / size) for n, size in zip(parts, sizes, strict=True)]).double()
        self.scale.copy_(scale)
        t = (self.describe(text) - self.centre)[labels.to(text.device)].double().cpu()  # [N, K d_t]
        f = self.flags
        clips, texts = correlate(x * scale, t, f.ridge, f.text_ridge, f.directions)
        self.clips.copy_(clips)
        self.texts.copy_(texts)

    def _seen(self, features: Features) -> Tensor:
        """The fixed features of clips, [B, D]."""
        found = []
        if self.flags.skeleton:
            there = features.skeleton.flatten(2).any(-1)  # [B, M]
            seen = [torch.cos(x @ self.waves / self.width + self.phases) for x in self._joints(features)]
            waves = seen[0] + seen[1]  # [B, M, R]
            found.append((waves * there[..., None]).sum(1) / math.sqrt(self.flags.waves / 2))
        if self.flags.cues and (features.cues is None or features.cue_scores is None):
            found.append(self.middle.new_zeros(len(features.quality), len(self.middle) - len(self.phases)))
        elif features.cues is not None and features.cue_scores is not None and self.flags.cues:
            there = (features.cue_scores > 0).float()[..., None]  # [B, M, S, A, 1]
            mean = (features.cues.float() * there).sum((1, 2)) / there.sum((1, 2)).clamp_min(1)  # [B, A, D]
            found += [F.normalize(level, dim=-1).flatten(1) for level in mean.split(self.levels, -1)]
        return torch.cat(found, 1)

    def _joints(self, features: Features) -> tuple[Tensor, Tensor]:
        """Where joints are at a few moments, and in a mirror: [B, M, moments * V * C] each."""
        assert self.graph is not None, "the skeleton is read of joints alone"
        x = resample(features.skeleton, self.flags.moments)
        return x[..., :-1].flatten(2), mirror(x, self.graph)[..., :-1].flatten(2)
