"""The geometry between a video frame and the crop that a top-down pose model sees.

Same geometry as mmpose's GetBBoxCenterScale (padding 1.25) and TopdownAffine without UDP, so that weights from mmpose's
model zoo see what they were trained on.
"""

from __future__ import annotations

import cv2
import numpy as np

PADDING = 1.25
DARK, BRIGHT = 200, 220  # grey levels: the brightest hundredth of a crop in too little light, and what it is raised to
MOST_GAIN = 10.0
EVERY = 4  # pixels in either direction: enough to tell how bright a crop is


def crop_matrix(box: np.ndarray, crop_size: tuple[int, int]) -> np.ndarray:
    """The 2x3 float64 matrix that maps frame pixels to crop pixels for a box (x, y, w, h) in frame pixels."""
    x, y, w, h = (float(value) for value in box)
    width, height = crop_size
    # Grow the shorter side to the crop's aspect ratio, then pad.
    w, h = max(w, h * width / height, 1.0) * PADDING, max(h, w * height / width, 1.0) * PADDING
    scale = width / w
    centre_x, centre_y = x + float(box[2]) / 2, y + float(box[3]) / 2
    return np.array([[scale, 0.0, width / 2 - scale * centre_x], [0.0, scale, height / 2 - scale * centre_y]])


def crop(frame: np.ndarray, matrix: np.ndarray, crop_size: tuple[int, int], light: str = "as_is") -> np.ndarray:
    """Warp one uint8 RGB frame [H, W, 3] into a crop [h, w, 3]; black outside the frame. `light` is the recipe's."""
    image = cv2.warpAffine(frame, matrix, crop_size, flags=cv2.INTER_LINEAR)
    return raised(image) if light == "raised" else image


def raised(image: np.ndarray) -> np.ndarray:
    """A crop, uint8, as a camera would have exposed it: where its brightest hundredth of values is darker than DARK,
    all are multiplied so that that is BRIGHT, at most MOST_GAIN times. Its noise is, too.
    """
    values = image[::EVERY, ::EVERY]
    place = int(0.99 * (values.size - 1))
    bright = float(np.partition(values, place, axis=None)[place])
    if bright >= DARK:
        return image
    gain = min(BRIGHT / max(bright, 1.0), MOST_GAIN)
    return np.asarray(cv2.LUT(image, (np.arange(256) * gain).round().clip(0, 255).astype(np.uint8)))


def to_frame(keypoints: np.ndarray, matrices: np.ndarray) -> np.ndarray:
    """Map keypoints [..., V, 2] from pixels of crops to those of the frames, by the crops' matrices [..., 2, 3]."""
    return ((keypoints - matrices[..., None, :, 2]) / matrices[..., :1, :1]).astype(np.float32)
