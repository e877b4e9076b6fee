"""Skeletons as they are where something hides the person: joints that were guessed, frames in which nobody was seen.

In training only; see `augment`. A pose model that cannot see a joint puts it where it might be, and scores it low.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MOST_JOINTS, MOST_FRAMES = 0.7, 0.4  # shares of the joints and of the frames of a clip, at most
ASIDE, SHAKE = 0.35, 0.1  # torso lengths, standard deviations: of a guess throughout, and from frame to frame
LEAST_SCORE = 0.2  # of what it was, at the lowest
DIM = 0.5  # all scores of such a clip are lower by this share, at most


@dataclass(frozen=True)
class Hiding:
    """How often, shares of 1 of the clips: `joints` hidden for a stretch of the clip, `frames` without the person."""

    joints: float = 0.0
    frames: float = 0.0


SEEN = Hiding()


def hide(x: Tensor, generator: torch.Generator, how: Hiding) -> Tensor:
    """Normalised skeletons [B, M, T, V, C + 1] of which some have joints or frames hidden; `generator` draws on their
    device.
    """
    batch, persons, frames, joints = x.shape[:4]
    moments = torch.linspace(0, 1, frames, device=x.device)[None, None, :, None]  # [1, 1, T, 1]

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(*shape, generator=generator, device=x.device)

    def stretch(least: float, most: float, *shape: int) -> Tensor:
        """Which frames are in a stretch of such a share of the clip, for each of `shape`: [*shape with T]."""
        length = uniform(least, most, *shape)
        start = uniform(0, 1, *shape) * (1 - length)
        return (moments >= start) & (moments <= start + length)

    def some(share: float) -> Tensor:
        return uniform(0, 1, batch, 1, 1, 1) < share

    if how.joints:
        wanted, how_many = some(how.joints), uniform(0, MOST_JOINTS, batch, 1, 1, 1)
        which = uniform(0, 1, batch, persons, 1, joints) < how_many
        hidden = wanted & which & stretch(0.3, 1, batch, persons, 1, joints) & (x[..., -1] > 0)  # [B, M, T, V]
        place = x[..., :-1]
        aside = torch.randn(batch, persons, 1, *place.shape[3:], generator=generator, device=x.device)
        shake = torch.randn(place.shape, generator=generator, device=x.device)
        place = place + hidden[..., None] * (ASIDE * aside + SHAKE * shake)
        score = x[..., -1] * (1 - wanted * uniform(0, DIM, batch, 1, 1, 1))
        score = torch.where(hidden, score * uniform(LEAST_SCORE, 1, *score.shape), score)
        x = torch.cat([place, score[..., None]], -1)
    if how.frames:
        gone = some(how.frames) & stretch(0, MOST_FRAMES, batch, persons, 1, 1)
        x = x * ~gone[..., None]
    return x
