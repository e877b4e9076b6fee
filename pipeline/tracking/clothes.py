"""Who is who after two persons have hidden each other: by the colours of their clothes.

Where two people embrace, boxes and joints are those of one body for a while, and those who come apart again may have
changed names. Before and after, while they are apart, their clothes tell.
"""

from __future__ import annotations

from itertools import combinations, pairwise

import cv2
import numpy as np

from pipeline.tracking.similarity import box_iou_pairs

APART = 0.05  # IoU of the boxes below which each is seen alone
SURE = 0.6  # exchanged names have to fit this much better: distance after exchange / distance as it is
DIFFERENT = 0.05  # in colours of 0..1: clothes that are more alike tell nothing


def clothes(crop: np.ndarray) -> np.ndarray:
    """The mean colours of chest and thighs in a person's uint8 RGB crop [h, w, 3]: [6] float32 in 0..1."""
    height, width = crop.shape[:2]
    middle = crop[:, width * 2 // 5 : width * 3 // 5]
    chest, thighs = middle[height // 4 : height // 2], middle[height // 2 : height * 3 // 4]
    sums = np.array([cv2.sumElems(part)[:3] for part in (chest, thighs)])
    return (sums / [[chest[..., 0].size], [thighs[..., 0].size]]).ravel().astype(np.float32) / 255


def exchange_mistaken(identity: np.ndarray, boxes: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """Exchange the names of two tracks from where their clothes say so; a new [K, T].

    For every pair: in each stretch of frames in which both are seen apart, after one in which they were not, compare
    the colours with those of all frames apart before. Where they hid each other the most is where names change.

    Args:
        identity: [K, T] int, -1 for none.
        boxes: [K, T, 4] x, y, w, h.
        colours: [K, T, C] 0..1.
    """
    identity = identity.copy()
    for a, b in combinations(range(int(identity.max(initial=-1)) + 1), 2):
        overlap = _overlap(identity, boxes, a, b)
        apart = overlap < APART
        for (_, parted), (begin, end) in pairwise(_stretches(apart)):
            before = [_colour(identity, colours, track, np.flatnonzero(apart[:begin])) for track in (a, b)]
            now = [_colour(identity, colours, track, np.arange(begin, end)) for track in (a, b)]
            kept = np.linalg.norm(before[0] - now[0]) + np.linalg.norm(before[1] - now[1])
            exchanged = np.linalg.norm(before[0] - now[1]) + np.linalg.norm(before[1] - now[0])
            if np.linalg.norm(before[0] - before[1]) > DIFFERENT and exchanged < SURE * kept:
                later = identity[:, parted + overlap[parted:begin].argmax() :]
                later[...] = np.where(later == a, b, np.where(later == b, a, later))
    return identity


def _overlap(identity: np.ndarray, boxes: np.ndarray, a: int, b: int) -> np.ndarray:
    """How much two tracks hide each other in every frame: the IoU of their boxes, 1 where one is not seen, [T]."""
    first, second = identity == a, identity == b
    frames = np.arange(identity.shape[1])
    iou = box_iou_pairs(boxes[first.argmax(0), frames], boxes[second.argmax(0), frames])
    return np.where(first.any(0) & second.any(0), iou, 1.0)


def _stretches(flags: np.ndarray) -> list[tuple[int, int]]:
    """The runs of true, as [begin, end)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    return [(int(begin), int(end)) for begin, end in edges.reshape(-1, 2)]


def _colour(identity: np.ndarray, colours: np.ndarray, track: int, frames: np.ndarray) -> np.ndarray:
    """The median colours of a track over frames in which it is seen: [C]."""
    rows = (identity[:, frames] == track).argmax(0)
    return np.median(colours[rows, frames], axis=0)
