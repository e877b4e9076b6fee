"""Known boxes, moved and scaled at random: what a pose model gets of a detector that is a little wrong.

The draws depend on the clip and the frame alone, so that an extraction is repeated in every bit. The overlap with the
true box does not depend on that box, and so is known for a recipe.
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np

DRAWS = 20_000  # that an overlap is the mean of


def jittered(box: np.ndarray, clip_id: str, position: int, shift: float, scale: float) -> np.ndarray:
    """A box [4] float32, x y w h, of a clip's frame: its centre moved by a normal deviate of `shift` times its width
    and height, each of its sides multiplied by e to the power of one of `scale`.
    """
    clip = int.from_bytes(hashlib.sha256(clip_id.encode("utf-8", "surrogateescape")).digest()[:8], "big")
    return _moved(box[None], np.random.default_rng([clip, position]).standard_normal((1, 4)), shift, scale)[0]


@cache
def overlap(shift: float, scale: float) -> float:
    """The mean intersection over union of true boxes and jittered ones, to three digits."""
    x, y, w, h = _moved(np.array([[0, 0, 1, 1]]), np.random.default_rng(0).standard_normal((DRAWS, 4)), shift, scale).T
    inside = _common(x, w) * _common(y, h)
    return round(float(np.mean(inside / (1 + w * h - inside))), 3)


def _moved(box: np.ndarray, normal: np.ndarray, shift: float, scale: float) -> np.ndarray:
    """Boxes [N, 4] float32 of one [1, 4], by deviates [N, 4]."""
    middle = box[:, :2] + box[:, 2:] * (0.5 + shift * normal[:, :2])
    sides = box[:, 2:] * np.exp(scale * normal[:, 2:])
    return np.concatenate([middle - sides / 2, sides], 1).astype(np.float32)


def _common(low: np.ndarray, length: np.ndarray) -> np.ndarray:
    """What a stretch has in common with that from 0 to 1."""
    return np.asarray((np.minimum(low + length, 1) - np.maximum(low, 0)).clip(0))
