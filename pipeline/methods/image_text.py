"""An image-text model as it is, a reference and no part of posebridge: pictures and class descriptions compared by it.

After Radford et al. (ICML 2021): nothing is trained. A clip is the mean vector of its frames (`view: frame`), each
once however many persons are in it, or of the crops of all persons in all frames (`view: person`); a class is the mean
vector of its words in `text_slots`, and a score their cosine. Only gamma is chosen, by the selection phase, as for all
methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from pipeline.errors import PosebridgeError
from pipeline.files.bounds import one_of
from pipeline.methods.base import Features, Shapes, SolvedMethod, read_flags


@dataclass(frozen=True)
class Flags:
    view: str = one_of("frame", "person")
    text_slots: tuple[str, ...] = ("label",)  # the words of a prompt are those of a text variant
    cues: bool = True  # there is nothing else


class ImageText(SolvedMethod):
    """See the module's docstring."""

    end_to_end = True
    one_model = True

    def __init__(self, shapes: Shapes, classes: int, flags: Mapping[str, Any]) -> None:
        super().__init__(shapes, classes, flags)
        self.flags = read_flags(Flags, flags, "image_text")
        self.text_slots, self.temperature = self.flags.text_slots, 0.01
        if not self.flags.cues or self.flags.view not in shapes.anchors or shapes.d_cue != shapes.d_text:
            raise PosebridgeError(
                f"The method image_text compares vectors of the {self.flags.view} and of words by one model; name a "
                f"recipe with `cues_from: image-text` and {self.flags.view} among its anchors, and its model as the "
                "run's `text`."
            )
        self.place, self.width = shapes.anchors.index(self.flags.view), shapes.d_cue

    def embed(self, features: Features) -> Tensor:
        if features.cues is None or features.cue_scores is None:
            return features.quality.new_zeros(len(features.quality), self.width)
        there = (features.cue_scores[..., self.place] > 0).float()[..., None]  # [B, M, S, 1]
        if self.flags.view == "frame":  # whose vector stands with every person in it
            there = there / there.sum(1, keepdim=True).clamp_min(1)
        mean = (features.cues[..., self.place, :].float() * there).sum((1, 2)) / there.sum((1, 2)).clamp_min(1)
        return F.normalize(mean, dim=-1)

    def prototypes(self, text: Tensor) -> Tensor:
        return self.describe(text)
