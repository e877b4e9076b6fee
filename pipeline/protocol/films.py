"""Whether two clips are one video: re-encoded, rescaled, brighter, mirrored, cropped or cut a little.

Pure: thumbnails in, distances out. What stands still and what moves (a thumbnail less the clip's mean) are compared by
themselves, since clips of one static camera share the former. The distance of two clips is 1 - the lower of the two
correlations, at the best of small shifts in time and of one being a crop of the other. A clip in which nothing moves
is like no other.

Largest distances of copies, 10 of UT-Interaction (60 clips) and 36 of skelgap-mini (360), and the smallest between
different clips, each from all others or from the train part: `tests/test_films.py` holds them.

|                | crf 34, 3/5 size, brighter | mirrored | 10 % cut | 10 % cropped | all of these | different |
|----------------|----------------------------|----------|----------|--------------|--------------|-----------|
| UT-Interaction | .02                        | .01      | .06      | .08          | .14          | .21       |
| skelgap-mini   | .10                        | .05      | .09      | .13          | .19 (1 > .17)| .21       |
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from pipeline.protocol.neighbours import projection
from pipeline.video.thumbnail import SIDE

LIMIT = 0.17  # a distance below it is a copy
ROUGH = 0.5  # correlation without any crop, below which none is looked for
MOMENTS, CELLS, WIDTH = 8, 8, 128  # of a signature: moments of a clip, cells of a side, numbers in all
NOISE = 0.15  # grey levels of a blurred thumbnail that are not movement
BLUR = 0.8  # pixels, so that a crop by less than a pixel of the thumbnail changes little
OVERLAP = 0.7  # of the time of either clip, at least
SHIFT = 0.15  # of the clip's time, what may be cut on either side beyond the difference in length
STEPS = 32  # of time in a clip


@dataclass(frozen=True)
class Film:
    """Thumbnails [T, 24, 24] float32 and their times [T] in seconds, ascending, the first 0."""

    pictures: np.ndarray
    times: np.ndarray

    @staticmethod
    def of(thumbnails: np.ndarray, timestamps: np.ndarray) -> Film:
        """From a row of the cache: uint8 [T, 24, 24] and [T]. A frame that was sampled twice counts once."""
        times, rows = np.unique(timestamps, return_index=True)
        return Film(thumbnails[rows].astype(np.float32), times - times[0])

    def mirrored(self) -> Film:
        return Film(np.ascontiguousarray(self.pictures[..., ::-1]), self.times)

    def blurred(self) -> Film:
        return Film(np.stack([cv2.GaussianBlur(picture, (0, 0), BLUR) for picture in self.pictures]), self.times)

    def at(self, times: np.ndarray) -> np.ndarray:
        """The pictures at these times [n, 24, 24], between two frames a mixture of both."""
        after = np.clip(np.searchsorted(self.times, times, side="right"), 1, len(self.times) - 1)
        span = self.times[after] - self.times[after - 1]
        share = np.clip((times - self.times[after - 1]) / span, 0, 1).astype(np.float32)[:, None, None]
        return self.pictures[after - 1] * (1 - share) + self.pictures[after] * share


def signature(film: Film) -> np.ndarray:
    """[128] float32 to look for candidates by: copies are near one another, and others may be. Zero where there is one
    frame only.
    """
    if len(film.times) < 2:
        return np.zeros(WIDTH, np.float32)
    cell = SIDE // CELLS
    pictures = film.at(np.linspace(0, film.times[-1], MOMENTS)).reshape(MOMENTS, CELLS, cell, CELLS, cell).mean((2, 4))
    still = pictures.mean(0)
    moving, still = pictures - still, still - still.mean()
    moving = moving / (np.linalg.norm(moving) + NOISE * moving.size**0.5)
    still = still / (np.linalg.norm(still) + NOISE * still.size**0.5)
    values = np.concatenate([moving.ravel(), 0.5 * still.ravel()])
    return values @ projection(len(values), WIDTH)


def distance(one: Film, other: Film) -> float:
    """0 for the same movements, 1 and more for others: see above. Not symmetrical to the last digit."""
    if min(len(one.times), len(other.times)) < 2:
        return 1.0
    length, other_length = one.times[-1], other.times[-1]
    if min(length, other_length) < OVERLAP * max(length, other_length):
        return 1.0
    one, other = one.blurred(), other.blurred()
    pairs = []
    slack, longer = SHIFT * other_length, length - other_length
    step = min(length, other_length) / STEPS
    for count in range(int((min(longer, 0) - slack) // step), int((max(longer, 0) + slack) // step) + 2):
        times = other.times + count * step  # 0 is among the shifts
        both = (times >= 0) & (times <= length)
        if both.sum() >= max(2, OVERLAP * len(times)):
            a, b = one.at(times[both]), other.pictures[both]
            pairs.append((_likeness(a, b), a, b))
    pairs.sort(key=lambda pair: -pair[0])
    best = pairs[0][0] if pairs else 0.0
    if ROUGH < best < 1 - LIMIT:
        cropped = (
            max(_likeness(_view(a, *view), b), _likeness(a, _view(b, *view))) for _, a, b in pairs[:2] for view in VIEWS
        )
        best = max(best, *cropped)
    return 1.0 - best


def _likeness(a: np.ndarray, b: np.ndarray) -> float:
    """The lower of two correlations: of what moves, and of what stands still."""
    still_a, still_b = a.mean(0), b.mean(0)
    still = _correlation(still_a - still_a.mean(), still_b - still_b.mean())
    return min(still, _correlation(a - still_a, b - still_b))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    noise = a.size * NOISE**2
    return float((a * b).sum() / np.sqrt(((a * a).sum() + noise) * ((b * b).sum() + noise)))


def _window(share: float, start: float) -> np.ndarray:
    """[24, 24]: each of 24 pixels of the window [start, start + share) of a line, from the 24 pixels of the line."""
    place = np.clip((np.arange(SIDE) + 0.5) * share + start * SIDE - 0.5, 0, SIDE - 1)
    below = np.minimum(place.astype(int), SIDE - 2)
    matrix = np.zeros((SIDE, SIDE), np.float32)
    matrix[np.arange(SIDE), below] = 1 - (place - below)
    matrix[np.arange(SIDE), below + 1] = place - below
    return matrix


def _windows() -> list[tuple[np.ndarray, np.ndarray]]:
    """Crops by 5, 10 and 15 % of either side, at the beginning, the middle or the end of both: for rows and columns."""
    found = []
    for share in (0.95, 0.9, 0.85):
        lines = [_window(share, start) for start in np.linspace(0, 1 - share, 3)]
        found += [(rows, columns) for rows in lines for columns in lines]
    return found


VIEWS = _windows()


def _view(pictures: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return rows @ pictures @ columns.T
