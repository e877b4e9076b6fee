"""Crops as bad cameras give them: dark and noisy, blurred, with things in front of the person. In training only.

Drawn on the fly, about a millisecond a crop. They are not the variants that skelgap is tested by (`synth/knobs.py`):
other shapes, other noise, any strength up to a bound, one by one or together. Darkness ends above that of
`low_light-3`, which so stays harder than what was trained for. A joint behind something keeps its place and its weight,
as in COCO: where it must be is learnt from the rest of the body.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from pipeline.files.bounds import check_bounds, within
from pipeline.tune.data import CropSource, TrainingCrop

LEAST_LIGHT, GAMMA = 0.15, 1.5  # of a dark crop: the least share of its light, the most that its curve is bent
PHOTONS, READING = 1.0, 6.0  # most noise, in grey levels: of a level's square root, and of darkness
BLUR, MOTION = 1.8, 11.0  # most, crop pixels: sigma of a soft lens, length of a shaken one's trace
THINGS, REACH = 6, 0.8  # most of them, and the most that one reaches across, as a share of the crop's width


@dataclass(frozen=True)
class Degradations:
    """How often crops are degraded, shares of 1, each drawn by itself."""

    dark: float = within(0.0, 0, 1)
    blurred: float = within(0.0, 0, 1)
    occluded: float = within(0.0, 0, 1)

    def __post_init__(self) -> None:
        """Raise PosebridgeError for a share that is none."""
        check_bounds(self)


class Degraded:
    """A `CropSource` whose crops are degraded; the same group is always degraded alike."""

    def __init__(self, source: CropSource, how: Degradations, seed: int = 0) -> None:
        self._source, self._how, self._seed = source, how, seed
        self.per_group, self.captions, self.phrases = source.per_group, source.captions, source.phrases
        self.facts = source.facts

    def crops(self, group: int, crop_size: tuple[int, int]) -> list[TrainingCrop]:
        """See `CropSource`."""
        rng = np.random.default_rng([self._seed, group, 2])
        return [self._degraded(crop, rng) for crop in self._source.crops(group, crop_size)]

    def _degraded(self, crop: TrainingCrop, rng: np.random.Generator) -> TrainingCrop:
        things, blur, dark = rng.random(3) < (self._how.occluded, self._how.blurred, self._how.dark)
        image = crop.image
        for wanted, change in ((things, occluded), (blur, blurred), (dark, darkened)):  # as light meets them
            image = change(image, rng) if wanted else image
        return replace(crop, image=image, degraded=bool(things or blur or dark))


def occluded(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crop, uint8 RGB [H, W, 3], with one to THINGS things anywhere in front: polygons of one colour, of a slope
    between two, or of what is seen elsewhere in the crop.
    """
    height, width = image.shape[:2]
    out = image.copy()
    for _ in range(rng.integers(1, THINGS + 1)):
        corners = int(rng.integers(3, 10))
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        reach = rng.uniform(0.1, REACH) * width / 2 * rng.uniform(0.6, 1.0, (corners, 1))
        around = np.column_stack([np.cos(angles), np.sin(angles)]) * reach * np.exp(rng.normal(0, 0.3, 2))
        points = around + rng.uniform(0.05, 0.95, 2) * (width, height)
        hides = np.zeros((height, width), np.uint8)
        cv2.fillPoly(hides, [np.round(points).astype(np.int32)], 1)
        np.copyto(out, _surface(image, rng), where=hides[..., None].astype(bool))
    return out


def _surface(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a thing looks like, uint8 of the crop's shape."""
    if rng.random() < 0.3:
        shift = rng.integers(image.shape[0] // 4, image.shape[0]), rng.integers(image.shape[1] // 4, image.shape[1])
        return np.roll(image[::-1] if rng.random() < 0.5 else image, shift, (0, 1))
    colours = rng.uniform(0, 255, (2, 3))
    rows = np.linspace(0, 1, len(image))[:, None, None] if rng.random() < 0.5 else np.zeros((len(image), 1, 1))
    return np.broadcast_to((colours[0] + rows * (colours[1] - colours[0])).astype(np.uint8), image.shape)


def blurred(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crop seen by a soft lens, or by one that moved along a straight line."""
    if rng.random() < 0.5:
        return cv2.GaussianBlur(image, (0, 0), float(rng.uniform(0.5, BLUR)))
    length, angle = rng.uniform(2, MOTION), rng.uniform(0, np.pi)
    size = 2 * int(MOTION) + 1
    trace = np.zeros((size, size), np.float32)
    step = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    start, end = (tuple(int(v) for v in np.round(16 * (size // 2 + sign * step))) for sign in (-1, 1))
    cv2.line(trace, start, end, 1.0, 1, cv2.LINE_8, 4)
    return cv2.filter2D(image, -1, trace / trace.sum())


def darkened(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crop with less light, any share down to LEAST_LIGHT, on a bent curve, and the noise of a sensor, which may be
    as fine as a crop pixel or coarser.
    """
    gain, curve = np.exp(rng.uniform(np.log(LEAST_LIGHT), 0.0)), np.exp(rng.uniform(-1, 1) * np.log(GAMMA))
    photons, reading, grain = rng.uniform(0, PHOTONS), rng.uniform(0, READING), rng.uniform(1, 2)
    height, width = image.shape[:2]
    level = (255 * gain * (np.arange(256, dtype=np.float32) / 255) ** curve)[image]
    fine = rng.standard_normal((int(height / grain), int(width / grain), 3), np.float32)
    noise = cv2.resize(fine, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray((level + noise * np.sqrt(photons**2 * level + reading**2)).round().clip(0, 255), np.uint8)


CHANGES = {"dark": darkened, "blurred": blurred, "occluded": occluded}  # by the names of their shares
