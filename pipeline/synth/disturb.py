"""What the knobs do to a rendered picture: things in the foreground, and too little light."""

from __future__ import annotations

import cv2
import numpy as np

SHOT_NOISE, READ_NOISE = 0.5, 3.0  # grey levels: of a level's square root, and of darkness
MOST = 60  # occluders; a share that needs more is out of reach


def foreground(rng: np.random.Generator, size: int, box: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Things in front of the person that cover at least `share` of `box` (x, y, w, h in pixels).

    Returns a picture [size, size, 3] uint8 and where it hides what is behind, [size, size] bool. With the same
    generator a greater share adds things to those of a smaller one.
    """
    picture, hides = np.zeros((size, size, 3), np.uint8), np.zeros((size, size), np.uint8)
    x, y, w, h = (float(v) for v in box)
    x0, y0, x1, y1 = (int(np.clip(v, 0, size)) for v in (x, y, x + w, y + h))
    for _ in range(MOST):
        if hides[y0:y1, x0:x1].mean() >= share:
            break
        centre = np.array([x + w * rng.uniform(), y + h * rng.uniform()])
        half = np.array([max(w, h / 2), h]) * rng.uniform(0.09, 0.20, 2)
        colour = tuple(float(v) for v in rng.uniform(30, 230, 3))
        low, high = (tuple(int(v) for v in corner) for corner in (centre - half, centre + half))
        rim = tuple(0.55 * c for c in colour)
        if rng.random() < 0.6:
            for canvas, fill, edge in ((picture, colour, rim), (hides, (1.0,), (1.0,))):
                cv2.rectangle(canvas, low, high, fill, -1)
                cv2.rectangle(canvas, low, high, edge, 2)
        else:
            middle, axes = tuple(int(v) for v in centre), tuple(int(v) for v in half)
            for canvas, fill, edge in ((picture, colour, rim), (hides, (1.0,), (1.0,))):
                cv2.ellipse(canvas, middle, axes, 0, 0, 360, fill, -1)
                cv2.ellipse(canvas, middle, axes, 0, 0, 360, edge, 2)
    return picture, hides.astype(bool)


def darken(rng: np.random.Generator, frames: np.ndarray, gain: float) -> np.ndarray:
    """Frames [F, H, W, 3] uint8 with `gain` of their light, and the noise of a sensor: photons and reading."""
    out = np.empty_like(frames)
    for f, image in enumerate(frames):
        level = image.astype(np.float32) * gain
        noise = rng.standard_normal(level.shape, np.float32) * np.sqrt(SHOT_NOISE**2 * level + READ_NOISE**2)
        out[f] = np.clip(np.round(level + noise), 0, 255)
    return out
