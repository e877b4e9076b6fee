"""Where a joint is that was not seen."""

from __future__ import annotations

import numpy as np


def repeat_last_valid(keypoints: np.ndarray, scores: np.ndarray, boxes: np.ndarray) -> None:
    """Give every joint of score 0 its last valid place, or the centre of the box before there is one; in place.

    keypoints [M, T, V, C], scores [M, T, V], boxes [M, T, 2 C]: the low corner, then the extent.
    """
    dimensions = keypoints.shape[3]
    centres = boxes[..., :dimensions] + boxes[..., dimensions:] / 2  # [M, T, C]
    seen = np.zeros((scores.shape[0], scores.shape[2]), bool)  # [M, V]
    for t in range(scores.shape[1]):
        known = scores[:, t] > 0
        fallback = np.where(seen[..., None], keypoints[:, t - 1], centres[:, t, None])
        keypoints[:, t] = np.where(known[..., None], keypoints[:, t], fallback)
        seen |= known
