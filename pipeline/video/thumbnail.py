"""A frame as a few grey pixels: enough to tell later, from the cache alone, whether two clips are one video."""

from __future__ import annotations

import numpy as np

SIDE = 24


def thumbnail(frame: np.ndarray) -> np.ndarray:
    """uint8 RGB [H, W, 3] to uint8 grey [24, 24], whatever the frame's shape: each pixel the mean of what it covers."""
    import cv2  # late: who reads a cache asks for SIDE alone

    small = cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
