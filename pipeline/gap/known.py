"""Clips as a probe sees them: one vector of the skeleton, and one of the cues for every level and anchor.

Reads an extraction, a part at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.learn.features import CHUNK, Reader, Samples, load_samples
from pipeline.predict.examples import mean_cues, place_free
from pipeline.recipe import BACKGROUND

SKELETON, CUES, BOTH = "skeleton", "cues", "skeleton and cues"


@dataclass
class Known:
    """N clips: skeletons [N, d], free of place and size, and cues [N, A, D], the mean over persons and time."""

    skeletons: Tensor
    cues: Tensor


def know(samples: Samples) -> Known:
    """Of samples with cues."""
    cues = mean_cues(samples)
    assert cues is not None
    return Known(place_free(samples.keypoints[:, :2], samples.person_valid[:, :2]), cues)


def read_known(
    clip_ids: Sequence[str], reader: Reader, told: Callable[[int, int], None] = lambda done, total: None
) -> Known:
    """Of clips in the cache, in their order; `told` hears (clips done, all)."""
    parts = []
    for start in range(0, len(clip_ids), CHUNK):
        parts.append(know(load_samples(clip_ids[start : start + CHUNK], reader, reader)))
        told(min(start + CHUNK, len(clip_ids)), len(clip_ids))
    return joined(parts)


def joined(parts: Sequence[Known]) -> Known:
    """All of them, one after another."""
    return Known(torch.cat([part.skeletons for part in parts]), torch.cat([part.cues for part in parts]))


def blocks_of(known: Known, anchors: Sequence[str], levels: Mapping[str, int]) -> dict[str, Tensor]:
    """Features [N, d] of the skeleton and of every (level, anchor), the latter of length 1.

    `levels` are the names and widths of what lies side by side in a cue.
    """
    found = {SKELETON: known.skeletons}
    for level, part in zip(levels, known.cues.split(list(levels.values()), dim=-1), strict=True):
        for place, anchor in enumerate(anchors):
            found[block(level, anchor)] = F.normalize(part[:, place], dim=-1)
    return found


def block(level: str, anchor: str) -> str:
    """The name of a block."""
    return f"{level} @ {anchor}"


def of_bodies(anchors: Sequence[str]) -> list[str]:
    """Without the control, which is pooled where no body is."""
    return [anchor for anchor in anchors if anchor != BACKGROUND]


def looks_of(anchors: Sequence[str], levels: Sequence[str]) -> dict[str, dict[str, float]]:
    """What is looked at together, each with its shares: the skeleton, each level, each anchor, all cues, and both.

    The control `background` is an anchor by itself, and no part of what is called cues.
    """
    own = of_bodies(anchors)
    looks = {SKELETON: {SKELETON: 1.0}}
    if len(levels) > 1:
        looks |= {f"cues of {level}": evenly(block(level, anchor) for anchor in own) for level in levels}
    looks |= {f"cues at {anchor}": evenly(block(level, anchor) for level in levels) for anchor in anchors}
    looks[CUES] = evenly(block(level, anchor) for level in levels for anchor in own)
    return looks | {BOTH: with_skeleton(looks[CUES])}


def with_skeleton(look: Mapping[str, float]) -> dict[str, float]:
    """A look and the skeleton, half and half."""
    return {SKELETON: 0.5} | {name: share / 2 for name, share in look.items()}


def evenly(names: Iterable[str]) -> dict[str, float]:
    """Each with the same share."""
    listed = list(names)
    return dict.fromkeys(listed, 1 / len(listed))
