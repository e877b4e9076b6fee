"""How much two findings of a person look like the same person a moment later: boxes, joints, nearness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# COCO's spread of annotators, per joint (cocoapi's `sigmas`); other sets of joints get a middling one.
COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062,
    0.107, 0.107, 0.087, 0.087, 0.089, 0.089,
)  # fmt: skip
OTHER_SIGMA = 0.07


@dataclass(frozen=True)
class People:
    """P persons of one moment."""

    boxes: np.ndarray  # [P, 4] x, y, w, h
    keypoints: np.ndarray  # [P, V, 2]
    scores: np.ndarray  # [P, V] 0..1

    def __getitem__(self, rows: np.ndarray) -> People:
        return People(self.boxes[rows], self.keypoints[rows], self.scores[rows])

    def moved(self, shifts: np.ndarray) -> People:
        """All of them somewhere else, by [P, 2] pixels."""
        places = np.concatenate([self.boxes[:, :2] + shifts, self.boxes[:, 2:]], 1)
        return People(places, self.keypoints + shifts[:, None], self.scores)

    @property
    def centres(self) -> np.ndarray:
        """The centres of the boxes, [P, 2]."""
        return self.boxes[:, :2] + self.boxes[:, 2:] / 2


def together(people: list[People]) -> People:
    """One group of several."""
    return People(
        np.concatenate([p.boxes for p in people]),
        np.concatenate([p.keypoints for p in people]),
        np.concatenate([p.scores for p in people]),
    )


def box_iou(a: People, b: People) -> np.ndarray:
    """Intersection over union of the boxes, [P, Q]."""
    return box_iou_pairs(a.boxes[:, None], b.boxes[None])


def box_iou_pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union [...] of boxes [..., 4] (x, y, w, h) with boxes [..., 4]."""
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., :2] + a[..., 2:], b[..., :2] + b[..., 2:])
    shared = (high - low).clip(0).prod(-1)
    union = a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - shared
    return shared / np.maximum(union, 1e-9)


def oks(a: People, b: People) -> np.ndarray:
    """Object keypoint similarity as COCO defines it, with the mean of both boxes as the area, [P, Q].

    A joint counts as much as the less sure of its two scores; 0 where no joint counts.
    """
    joints = a.keypoints.shape[1]
    sigmas = np.array(COCO_SIGMAS if joints == len(COCO_SIGMAS) else [OTHER_SIGMA] * joints)
    area = (a.boxes[:, None, 2:].prod(-1) + b.boxes[None, :, 2:].prod(-1)) / 2
    squared = ((a.keypoints[:, None] - b.keypoints[None]) ** 2).sum(-1)  # [P, Q, V]
    near = np.exp(-squared / (2 * np.maximum(area, 1.0)[..., None] * (2 * sigmas) ** 2))
    weight = np.minimum(a.scores[:, None], b.scores[None])
    return (near * weight).sum(-1) / np.maximum(weight.sum(-1), 1e-9)


def closeness(a: People, b: People) -> np.ndarray:
    """1 where boxes of equal size have one centre, [P, Q].

    It falls to 0 at a distance of the larger box's longer side, and with the ratio of their longer sides.
    """
    distance = np.linalg.norm(a.centres[:, None] - b.centres[None], axis=-1)
    sides = a.boxes[:, None, 2:].max(-1), b.boxes[None, :, 2:].max(-1)
    larger = np.maximum(np.maximum(*sides), 1e-9)
    return (1 - distance / larger).clip(0) * np.minimum(*sides) / larger
